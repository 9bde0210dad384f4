// The overview: the rows' menu, changes since the last visit, and findings, which are checked again where they are old.
import { HOME, h, icon, store, stored } from "./dom.js";
import { short } from "./format.js";
import { bind } from "./keys.js";
import { refresh } from "./live.js";
import { place } from "./table.js";

const VISIT_MS = 30 * 60 * 1000;
const SHOWN_CHANGES = 6;
const visit = stored("visit", null);
// A visit ends when the page has not been visible for half an hour: until then, changes stay marked as new on reload.
const since = visit && Date.now() - visit.seen > VISIT_MS ? visit.seen : (visit?.since ?? null);
let all = false;

function saveVisit() {
  if (!document.hidden) {
    store("visit", { seen: Date.now(), since });
  }
}

function showChanges() {
  const items = [...document.querySelectorAll(".helm-changes__item")];
  const fresh = items.filter((item) => since && Date.parse(item.dataset.at) > since);
  const shown = Math.max(SHOWN_CHANGES, Math.min(fresh.length, 20));
  items.forEach((item, at) => {
    item.hidden = !all && at >= shown;
    item.classList.toggle("helm-changes__item--new", fresh.includes(item));
  });
  const more = document.querySelector("[data-changes-more]");
  if (more) {
    more.hidden = all || items.length <= shown;
  }
  const label = document.querySelector("[data-changes-since]");
  if (label) {
    const text = !since ? "" : `${fresh.length || "nothing"} since your last visit, ${short(since)}`;
    if (label.textContent !== text) {
      label.textContent = text;
    }
  }
}

function check(again) {
  const part = document.querySelector("[data-live-part=findings]");
  if (part && again) {
    // The part that is fetched lacks this attribute, so that only one request has the parameter.
    part.dataset.liveUrl = "?again=1";
  }
  refresh("findings");
}

const VERBS = { start: "play", restart: "rotate-ccw", stop: "square" };

/** Opens the menu of a row. It is made on demand: a menu for each row would be most of the page's elements. */
function openMenu(button) {
  const name = button.closest("[data-service]").dataset.service;
  const { menu: verbs, keeps } = button.dataset;
  const item = (tag, attributes, glyph, text) => h(tag, { class: "helm-menu__item", role: "menuitem", ...attributes }, icon(glyph), text);
  const act = (verb) =>
    item("button", { type: "button", "data-action": "service", "data-verb": verb, "data-services": name }, VERBS[verb], `${verb[0].toUpperCase()}${verb.slice(1)}`);
  const go = (glyph, text, path) => item("a", { href: HOME + path }, glyph, text);
  const service = encodeURIComponent(name);
  const menu = h(
    "div",
    {
      class: "helm-menu",
      popover: "auto",
      role: "menu",
      "aria-label": `Actions for ${name}`,
      onclick: () => menu.hidePopover(),
      onkeydown: (event) => moveInMenu(menu, event),
      ontoggle: (event) => event.newState === "closed" && menu.remove(),
    },
    verbs.split(" ").filter(Boolean).map(act),
    keeps && item("button", { type: "button", "aria-disabled": "true" }, "lock", keeps),
    h("div", { class: "helm-menu__line", role: "separator" }),
    go("server", "Open", `service/${service}`),
    go("scroll-text", "Logs", `logs?query=service:${service}`),
    go("activity", "Metrics", `metrics?service=${service}`),
    go("sliders-horizontal", "Settings", `service/${service}?tab=settings`),
  );
  document.querySelector(".helm-frame").append(menu);
  place(menu, button);
  menu.querySelector(".helm-menu__item").focus();
}

function moveInMenu(menu, event) {
  const items = [...menu.querySelectorAll(".helm-menu__item")];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: (at + 1) % items.length, ArrowUp: (at || items.length) - 1, Home: 0, End: items.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    items[to].focus();
  }
}

bind("m", "Actions of the row", () => {
  const button = document.activeElement?.closest("[data-row]")?.querySelector("[data-menu]");
  return button ? openMenu(button) : false;
});

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-menu]");
  if (button) {
    openMenu(button);
  }
  if (event.target.closest?.("[data-findings-run]")) {
    check(true);
  } else if (event.target.closest?.("[data-changes-more]")) {
    all = true;
    showChanges();
  }
});
document.addEventListener("helm:part", (event) => event.detail.name === "changes" && showChanges());
document.addEventListener("visibilitychange", saveVisit);
setInterval(saveVisit, 60000);
showChanges();
if (document.querySelector("[data-findings-old]")) {
  check(false);
}
saveVisit();
