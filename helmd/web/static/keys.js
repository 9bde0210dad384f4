// Keys: bound by pages with `bind`, shown by "?".
import { h } from "./dom.js";

const bound = [];
let waiting = "";
let timer = 0;

/** Calls `act` for a key ("e", "E") or two ("g l") when nothing is being written. `label` is shown by "?". */
export function bind(keys, label, act, group = "This page") {
  bound.push({ keys, label, act, group });
}

const writes = (element) =>
  element?.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]") ?? null;

function press(event) {
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey) {
    event.preventDefault();
    palette();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) {
    return;
  }
  if (event.key === "Escape" && writes(event.target) && !event.target.closest("dialog")) {
    event.target.blur();
    return;
  }
  if (writes(event.target) || document.querySelector("dialog[open]")) {
    return;
  }
  const keys = waiting ? `${waiting} ${event.key}` : event.key;
  waiting = "";
  clearTimeout(timer);
  const found = bound.find((each) => each.keys === keys);
  if (found) {
    // What an action does not want, the browser does.
    if (found.act(event) !== false) {
      event.preventDefault();
    }
  } else if (bound.some((each) => each.keys.startsWith(`${keys} `))) {
    waiting = keys;
    timer = setTimeout(() => (waiting = ""), 1500);
  }
}

async function palette() {
  if (document.querySelector("[data-palette]")) {
    (await import("./palette.js")).open();
  }
}

/** Rows that j and k go through: [data-row] of the page, and what of them Enter opens. */
function move(step) {
  const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.checkVisibility?.() ?? true);
  if (!rows.length) {
    return;
  }
  const at = rows.indexOf(document.activeElement?.closest("[data-row]"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
  next.tabIndex = -1;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function help() {
  const groups = Map.groupBy ? Map.groupBy(bound, (each) => each.group) : grouped();
  const dialog = h(
    "dialog",
    { class: "helm-dialog", "aria-labelledby": "helm-keys", onclose: () => dialog.remove() },
    h("h2", { class: "helm-dialog__title", id: "helm-keys" }, "Keys"),
    h(
      "div",
      { class: "helm-keys" },
      [...groups].map(([group, keys]) =>
        h(
          "section",
          { class: "helm-keys__group" },
          h("h3", { class: "helm-keys__title" }, group),
          h(
            "dl",
            { class: "helm-keys__list" },
            keys.map((each) =>
              h(
                "div",
                { class: "helm-keys__row" },
                h("dt", { class: "helm-keys__keys" }, each.keys.split(" ").map((key) => h("kbd", { class: "helm-key" }, key))),
                h("dd", { class: "helm-keys__label" }, each.label),
              ),
            ),
          ),
        ),
      ),
    ),
    h(
      "form",
      { class: "helm-dialog__do", method: "dialog" },
      h("button", { class: "helm-button helm-button--primary", autofocus: true }, "Close"),
    ),
  );
  document.querySelector(".helm-frame").append(dialog);
  dialog.showModal();
}

function grouped() {
  const groups = new Map();
  bound.forEach((each) => groups.set(each.group, [...(groups.get(each.group) ?? []), each]));
  return groups;
}

const GENERAL = "Everywhere";
bind("/", "Search", () => {
  const field = document.querySelector("[data-search]");
  if (field) {
    field.focus();
    field.select?.();
  } else {
    palette();
  }
}, GENERAL);
bind("Ctrl K", "Find services, pages and actions", palette, GENERAL);
bind("?", "Show the keys", help, GENERAL);
bind("j", "Next row", () => move(1), GENERAL);
bind("k", "Row before", () => move(-1), GENERAL);
bind("Enter", "Open the row", () => {
  const focused = document.activeElement;
  if (!focused?.matches("[data-row]")) {
    return false;
  }
  return void (focused.querySelector("[data-open]") ?? focused.querySelector("a[href]"))?.click();
}, GENERAL);
// The browser closes what is open; leaving a field is done above.
bind("Escape", "Close, leave a field", () => false, GENERAL);

for (const link of document.querySelectorAll(".helm-rail__item[data-key]")) {
  bind(`g ${link.dataset.key}`, link.textContent.trim(), () => link.click(), "Go to");
}
document.addEventListener("keydown", press);
