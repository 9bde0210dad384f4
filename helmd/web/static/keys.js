// Keyboard shortcuts: registered with `bind`, listed by "?".
import { h } from "./dom.js";

const bindings = [];
let prefix = "";
let timer = 0;

/**
 * Calls `act` on a key ("e", "E") or a sequence of two ("g l"), but not while the focus is in a field or a dialog is
 * open. Where `act` returns false, the key keeps its default action. "?" lists `label` below `group`.
 */
export function bind(keys, label, act, group = "This page") {
  bindings.push({ keys, label, act, group });
}

const fieldOf = (element) =>
  element?.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]") ?? null;

function onKeydown(event) {
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey) {
    event.preventDefault();
    palette();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) {
    return;
  }
  if (event.key === "Escape" && fieldOf(event.target) && !event.target.closest("dialog")) {
    event.target.blur();
    return;
  }
  if (fieldOf(event.target) || document.querySelector("dialog[open]")) {
    return;
  }
  const keys = prefix ? `${prefix} ${event.key}` : event.key;
  prefix = "";
  clearTimeout(timer);
  const found = bindings.find((each) => each.keys === keys);
  if (found) {
    if (found.act(event) !== false) {
      event.preventDefault();
    }
  } else if (bindings.some((each) => each.keys.startsWith(`${keys} `))) {
    prefix = keys;
    timer = setTimeout(() => (prefix = ""), 1500);
  }
}

async function palette() {
  if (document.querySelector("[data-palette]")) {
    (await import("./palette.js")).open();
  }
}

/** Moves the focus by `step` among the visible rows ([data-row]). */
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
  const groups = Map.groupBy ? Map.groupBy(bindings, (each) => each.group) : groupBindings();
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

function groupBindings() {
  const groups = new Map();
  bindings.forEach((each) => groups.set(each.group, [...(groups.get(each.group) ?? []), each]));
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
// For the list only: browsers close dialogs and popovers, and `onKeydown` takes the focus from a field.
bind("Escape", "Close, leave a field", () => false, GENERAL);

for (const link of document.querySelectorAll(".helm-rail__item[data-key]")) {
  bind(`g ${link.dataset.key}`, link.textContent.trim(), () => link.click(), "Go to");
}
document.addEventListener("keydown", onKeydown);
