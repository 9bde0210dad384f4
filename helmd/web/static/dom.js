// Making elements, and where things are.

/** "/helm/", also behind the gateway. */
export const HOME = new URL("../../", import.meta.url).pathname;
/** Changes with every change of any script, style sheet or image. */
export const ASSETS = import.meta.url.split("/").at(-2);

const SVG = "http://www.w3.org/2000/svg";
const meta = document.querySelector('meta[name="helm-session"]');

/** Names the session among those of this browser; empty without one. */
export const SESSION = meta?.content ?? "";
export const ROLE = meta?.dataset.role ?? "public";

/** What is written out in text of others, since it is not seen or misleads: as helmd/model/printable.py has it. */
export const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\u{e0000}-\u{e007f}]/gu;

/** A character written out: "\\x1b", "\\u202e". */
export const written = (character) => {
  const code = character.codePointAt(0);
  const [mark, length] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${mark}${code.toString(16).padStart(length, "0")}`;
};

/** TEXT of others, with what is not seen written out. */
export const shownText = (text) => text.replace(UNSEEN, written);

/** An element: h("p", {class: "helm-note", onclick: f, "data-x": 1}, "text", child). */
export function h(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      made.addEventListener(key.replace(/^on/, ""), value);
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(key, value === true ? "" : value);
    }
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) {
      made.append(child instanceof Node ? child : shownText(String(child)));
    }
  }
  return made;
}

/** An icon of the sprite. */
export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "helm-icon");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${new URL("icons.svg", import.meta.url).pathname}#${name}`);
  made.append(use);
  return made;
}

/** A remembered choice of this browser; storage may be off. */
export function stored(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`helm-${key}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function store(key, value) {
  try {
    localStorage.setItem(`helm-${key}`, JSON.stringify(value));
  } catch {
    // Then it is not remembered.
  }
}

/**
 * Shows a notification at the bottom of the page and returns a function that closes it. It closes after 8 s, but not
 * while it has the pointer or the focus, and never where `stays`; `actions` are [label, function] pairs.
 */
export function toast(text, { tone = "off", glyph = "info", actions = [], stays = false } = {}) {
  const box = document.querySelector("[data-toasts]");
  const close = () => made.remove();
  const made = h(
    "div",
    { class: `helm-toast helm-toast--${tone}`, role: tone === "error" ? "alert" : "status" },
    icon(glyph),
    h("p", { class: "helm-toast__text" }, text),
    actions.map(([label, act]) =>
      h("button", { class: "helm-button", type: "button", onclick: () => (close(), act()) }, label),
    ),
    h(
      "button",
      { class: "helm-button helm-button--bare", type: "button", title: "Close", onclick: close },
      icon("x"),
      h("span", { class: "helm-hidden" }, "Close"),
    ),
  );
  box.append(made);
  while (box.children.length > 4) {
    box.firstElementChild.remove();
  }
  if (!stays) {
    const wait = () => setTimeout(() => (made.matches(":hover, :focus-within") ? wait() : close()), 8000);
    wait();
  }
  return close;
}

const CAN_HAVE_FOCUS = "a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), textarea:not(:disabled)";

/**
 * Where the focus is now. What is returned gives it back after the page has changed, unless something else has it: to
 * the same element, to one with the same data in the place of one that went, or to what is next to it.
 */
export function holdFocus(element = document.activeElement) {
  if (!element || element === document.body) {
    return () => {};
  }
  const around = [];
  for (let at = element.parentElement; at && at !== document.body; at = at.parentElement) {
    around.push([at, at.id]);
  }
  const data = element.getAttributeNames().filter((name) => name.startsWith("data-"));
  const alike = data.length ? `${data.map((name) => `[${name}]`).join("")}:not(:disabled)` : null;
  return () => {
    const has = () => ![null, document.body, document.documentElement].includes(document.activeElement);
    const give = (to) => to?.focus({ preventScroll: true });
    if (!has() && element.isConnected) {
      give(element);
    }
    for (const [one, id] of around) {
      if (has()) {
        return;
      }
      const place = one.isConnected ? one : id ? document.getElementById(id) : null;
      give(alike && place?.querySelector(alike));
      if (!has() && !place?.querySelector("main")) {
        give(place?.matches("main") ? place : place?.querySelector(CAN_HAVE_FOCUS));
      }
    }
  };
}

/** Copies, and says so. */
export async function copy(text, what = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
    toast(what, { glyph: "check", tone: "ok" });
  } catch {
    toast("The browser did not allow copying. Select the text and press Ctrl C.", { tone: "warn", glyph: "info" });
  }
}

addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (button) {
    copy(button.dataset.copy);
  }
});
