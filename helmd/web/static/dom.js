// Paths, and helpers for the DOM.

/** The base path of all pages, "/helm/", also behind the gateway. */
export const HOME = new URL("../../", import.meta.url).pathname;
/** The digest of all scripts, style sheets and images, which is part of their URLs. */
export const ASSETS = import.meta.url.split("/").at(-2);

const SVG = "http://www.w3.org/2000/svg";
const meta = document.querySelector('meta[name="helm-session"]');

/** An identifier of the session, not its secret; empty without a session. */
export const SESSION = meta?.content ?? "";
export const ROLE = meta?.dataset.role ?? "public";

/** Invisible and misleading characters, shown as escape sequences in untrusted text; see helmd/model/printable.py. */
export const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\u{e0000}-\u{e007f}]/gu;

/** The escape sequence that stands for a character: "\\x1b", "\\u202e". */
export const escapeCharacter = (character) => {
  const code = character.codePointAt(0);
  const [mark, length] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${mark}${code.toString(16).padStart(length, "0")}`;
};

/** Untrusted text with invisible and misleading characters as escape sequences. */
export const printableText = (text) => text.replace(UNSEEN, escapeCharacter);

/**
 * Creates an element: h("p", {class: "helm-note", onclick: f, "data-x": 1}, "text", child). Functions become event
 * listeners; attributes and children that are false, null or undefined are left out.
 */
export function h(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      created.addEventListener(key.replace(/^on/, ""), value);
    } else if (value !== false && value !== null && value !== undefined) {
      created.setAttribute(key, value === true ? "" : value);
    }
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) {
      created.append(child instanceof Node ? child : printableText(String(child)));
    }
  }
  return created;
}

/** Creates an icon, by its name in the sprite icons.svg. */
export function icon(name) {
  const created = document.createElementNS(SVG, "svg");
  created.setAttribute("class", "helm-icon");
  created.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${new URL("icons.svg", import.meta.url).pathname}#${name}`);
  created.append(use);
  return created;
}

/** A value from local storage; `fallback` where there is none, or where storage is disabled. */
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
    // Storage is disabled or full: a setting then lasts until the page is left.
  }
}

/**
 * Shows a notification at the bottom of the page and returns a function that closes it. It closes after 8 s, but not
 * while it has the pointer or the focus, and never where `stays`; `actions` are [label, function] pairs.
 */
export function toast(text, { tone = "off", glyph = "info", actions = [], stays = false } = {}) {
  const box = document.querySelector("[data-toasts]");
  const close = () => created.remove();
  const created = h(
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
  box.append(created);
  while (box.children.length > 4) {
    box.firstElementChild.remove();
  }
  if (!stays) {
    const wait = () => setTimeout(() => (created.matches(":hover, :focus-within") ? wait() : close()), 8000);
    wait();
  }
  return close;
}

const FOCUSABLE = "a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), textarea:not(:disabled)";

/**
 * Remembers the focused element and returns a function that restores the focus after the page was changed, unless
 * another element has it: to the same element, or in the nearest remaining ancestor to one with the same data
 * attributes, else to the first that is focusable.
 */
export function saveFocus(element = document.activeElement) {
  if (!element || element === document.body) {
    return () => {};
  }
  const ancestors = [];
  for (let at = element.parentElement; at && at !== document.body; at = at.parentElement) {
    ancestors.push([at, at.id]);
  }
  const data = element.getAttributeNames().filter((name) => name.startsWith("data-"));
  const similar = data.length ? `${data.map((name) => `[${name}]`).join("")}:not(:disabled)` : null;
  return () => {
    const isFocused = () => ![null, document.body, document.documentElement].includes(document.activeElement);
    const focus = (target) => target?.focus({ preventScroll: true });
    if (!isFocused() && element.isConnected) {
      focus(element);
    }
    for (const [ancestor, id] of ancestors) {
      if (isFocused()) {
        return;
      }
      const place = ancestor.isConnected ? ancestor : id ? document.getElementById(id) : null;
      focus(similar && place?.querySelector(similar));
      if (!isFocused() && !place?.querySelector("main")) {
        focus(place?.matches("main") ? place : place?.querySelector(FOCUSABLE));
      }
    }
  };
}

/** Copies text to the clipboard and shows `message`. */
export async function copy(text, message = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
    toast(message, { glyph: "check", tone: "ok" });
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
