// The command palette (Ctrl K): services, pages and actions by name.
import { serviceAction } from "./action.js";
import { api } from "./api.js";
import { HOME, ROLE, h, icon } from "./dom.js";
import { isUtc, setUtc } from "./format.js";
import { statuses } from "./live.js";
import { nextTheme } from "./theme.js";
import Combobox from "./vendor/combobox-nav.js";
import uFuzzy from "./vendor/ufuzzy.js";

const SHOWN = 12;
const fuzzy = new uFuzzy({ intraMode: 1 });

async function items() {
  let known = statuses();
  if (!Object.keys(known).length) {
    known = await api("GET", "api/services/status").catch(() => ({}));
  }
  const names = Object.keys(known).sort();
  const go = (path) => () => location.assign(HOME + path);
  const pages = [...document.querySelectorAll(".helm-rail__item")].map((link) => ({
    label: link.textContent.trim(),
    hint: "Page",
    glyph: "layout-dashboard",
    act: () => link.click(),
  }));
  const canOpenService = ROLE === "admin" || ROLE === "technician";
  const paths = new Set(pages.map((page) => page.label));
  const services = names.map((name) => ({
    label: name,
    hint: `Service, ${known[name].state}`,
    glyph: "server",
    act: canOpenService ? go(`service/${name}`) : go(`#service-${name}`),
  }));
  const logs = paths.has("Logs")
    ? names.map((name) => ({ label: `Logs of ${name}`, hint: "Logs", glyph: "scroll-text", act: go(`logs?query=service:${name}`) }))
    : [];
  const controlled = names.filter((name) => known[name].unit && !["helm", "postgres"].includes(name));
  const actions =
    ROLE === "admin"
      ? controlled.flatMap((name) =>
          (known[name].status === "running" ? ["restart", "stop"] : ["start"]).map((verb) => ({
            label: `${verb[0].toUpperCase()}${verb.slice(1)} ${name}`,
            hint: "Action",
            glyph: { restart: "rotate-ccw", stop: "square", start: "play" }[verb],
            act: () => serviceAction(verb, [name]),
          })),
        )
      : [];
  return [
    ...pages,
    ...services,
    ...logs,
    ...actions,
    { label: isUtc() ? "Show times in local time" : "Show times in UTC", hint: "Setting", glyph: "clock", act: () => setUtc(!isUtc()) },
    { label: "Change colours", hint: "Setting", glyph: "sun", act: nextTheme },
  ];
}

/** The items that match, the best match first. */
function matching(list, text) {
  if (!text.trim()) {
    return list.slice(0, SHOWN);
  }
  const [found, , order] = fuzzy.search(list.map((item) => item.label), text, 1);
  return order ? order.map((at) => list[found[at]]).slice(0, SHOWN) : (found ?? []).slice(0, SHOWN).map((at) => list[at]);
}

let shown = null;

export async function open() {
  // Its close event comes later: a key pressed before that opens another one.
  if (shown?.open) {
    shown.querySelector("input").focus();
    return;
  }
  const list = h("ul", { class: "helm-palette__list", id: "helm-palette-list", role: "listbox", "aria-label": "What fits" });
  const input = h("input", {
    class: "helm-palette__input",
    type: "text",
    placeholder: "A service, a page, or what to do",
    "aria-label": "Search services, pages and actions",
    spellcheck: "false",
    autocomplete: "off",
  });
  const dialog = h(
    "dialog",
    { class: "helm-dialog helm-palette", "aria-label": "Search", onclose: () => (combobox.destroy(), dialog.remove()) },
    h("div", { class: "helm-palette__field" }, icon("search"), input),
    list,
    h("p", { class: "helm-palette__none", role: "status", hidden: true }, "Nothing is called like that."),
  );
  shown = dialog;
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.querySelector(".helm-frame").append(dialog);
  const combobox = new Combobox(input, list, { firstOptionSelectionMode: "selected", tabInsertsSuggestions: false });
  let all = [];
  const show = () => {
    const found = matching(all, input.value);
    list.replaceChildren(
      ...found.map((item, at) => {
        const option = h(
          "li",
          { class: "helm-palette__item", role: "option", id: `helm-palette-${at}` },
          icon(item.glyph),
          h("span", { class: "helm-palette__label" }, item.label),
          h("span", { class: "helm-palette__hint" }, item.hint),
        );
        option.addEventListener("combobox-commit", () => {
          dialog.close();
          item.act();
        });
        return option;
      }),
    );
    dialog.querySelector(".helm-palette__none").hidden = found.length > 0 || !all.length;
    combobox.stop();
    combobox.start();
  };
  input.addEventListener("input", show);
  dialog.showModal();
  input.focus();
  all = await items();
  show();
}
