// The overview: what changed since the last visit, the checklist at the first one.
import { store, stored } from "./dom.js";
import { short } from "./format.js";
import { refresh } from "./live.js";

const VISIT_MS = 30 * 60 * 1000;
const SHOWN = 6;
const visit = stored("visit", null);
// A visit ends half an hour after the page was last looked at; until then what was new stays new.
const since = visit && Date.now() - visit.seen > VISIT_MS ? visit.seen : (visit?.since ?? null);
let all = false;

function keepVisit() {
  if (!document.hidden) {
    store("visit", { seen: Date.now(), since });
  }
}

function showChanges() {
  const items = [...document.querySelectorAll(".helm-changes__item")];
  const fresh = items.filter((item) => since && Date.parse(item.dataset.at) > since);
  const shown = Math.max(SHOWN, Math.min(fresh.length, 20));
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

function check() {
  const waits = document.querySelector("[data-findings-wait]");
  if (waits) {
    waits.textContent = "The machine is being checked. This takes some seconds.";
  }
  refresh("findings");
}

document.addEventListener("click", (event) => {
  if (event.target.closest?.("[data-findings-run]")) {
    check();
  } else if (event.target.closest?.("[data-changes-more]")) {
    all = true;
    showChanges();
  }
});
document.addEventListener("helm:part", (event) => event.detail.name === "changes" && showChanges());
document.addEventListener("visibilitychange", keepVisit);
setInterval(keepVisit, 60000);
showChanges();
if (!visit && document.querySelector("[data-findings-wait]")) {
  check();
}
keepVisit();
