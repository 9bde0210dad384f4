// Saved views as tabs: a name for a query with its range, one's own or for everybody.
import { frozen, searchOf, stateOf } from "./logs-state.js";
import { element } from "./logs-text.js";

export class Views {
  // OPEN gets a view's query string; CURRENT gives that of the page.
  constructor(host, source, { open, current, failed }) {
    this.host = host;
    this.source = source;
    this.open = open;
    this.current = current;
    this.failed = failed;
    this.views = [];
    this.available = false;
  }

  async load(available = true) {
    if (!available) {
      this.render();
      return;
    }
    try {
      const answer = await this.source.get("views");
      this.views = answer.views;
      this.available = true;
    } catch (error) {
      this.available = false;
      this.failed(error);
    }
    this.render();
  }

  render() {
    const now = comparable(this.current());
    const tab = (name, search, view = null) => {
      const here = comparable(search) === now;
      const item = element("span", `helm-viewtab${here ? " helm-viewtab--here" : ""}`);
      const link = element("a", "helm-viewtab__link", name, { href: search || location.pathname, "aria-current": here ? "page" : null });
      link.addEventListener("click", (event) => {
        if (!event.ctrlKey && !event.metaKey && !event.shiftKey) {
          event.preventDefault();
          this.open(search);
        }
      });
      item.append(link);
      if (view?.own && here) {
        const remove = element("button", "helm-viewtab__remove", "\u00d7", { type: "button", "aria-label": `Delete the view ${name}` });
        remove.addEventListener("click", () => this.remove(view));
        item.append(remove);
      }
      return item;
    };
    const tabs = [tab("All lines", ""), tab("Errors today", "?query=level%3E%3Derror&from=-24h")];
    for (const view of this.views) {
      tabs.push(tab(view.name, searchOfView(view), view));
    }
    if (this.available) {
      tabs.push(this.saver());
    }
    this.host.replaceChildren(...tabs);
  }

  saver() {
    const made = element("span", "helm-viewtab");
    const button = element("button", "helm-viewtab__add", "+ Save this view", { type: "button" });
    button.addEventListener("click", () => this.ask(made));
    made.append(button);
    return made;
  }

  ask(place) {
    const form = element("form", "helm-viewtab__form");
    const name = element("input", "helm-logfield__input", undefined, { name: "name", required: true, maxlength: 80, "aria-label": "Name of the view", placeholder: "Name" });
    const label = element("label", "helm-viewtab__shared", "for everybody");
    const shared = element("input", "", undefined, { type: "checkbox", name: "shared" });
    label.prepend(shared);
    const save = element("button", "helm-button helm-button--small helm-button--primary", "Save");
    const cancel = element("button", "helm-button helm-button--small", "Cancel", { type: "button" });
    cancel.addEventListener("click", () => this.render());
    form.append(name, label, save, cancel);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save(name.value.trim(), shared.checked);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.render();
      }
      event.stopPropagation();
    });
    place.replaceChildren(form);
    name.focus();
  }

  async save(name, shared) {
    try {
      await this.source.send("POST", "views", bodyOfView(name, shared, this.current()));
      await this.load();
    } catch (error) {
      this.failed(error);
    }
  }

  async remove(view) {
    try {
      await this.source.send("DELETE", `views/${view.id}`);
      await this.load();
    } catch (error) {
      this.failed(error);
    }
  }
}

// A view as the page's own query string has it. Columns of the page are keys of the context.
function searchOfView(view) {
  const last = /^(\d+)(min|h|d|w)$/.exec(view.last);
  const days = last?.[2] === "w";
  const from = last ? `-${days ? last[1] * 7 : last[1]}${days ? "d" : last[2][0]}` : (view.start_time ?? "-90d");
  return searchOf({
    query: view.query,
    from,
    to: view.end_time ?? "",
    at: "",
    entry: null,
    wrap: false,
    utc: false,
    columns: view.columns.filter((name) => name.startsWith("context.")).map((name) => name.slice(8)),
  });
}

function bodyOfView(name, shared, search) {
  const state = stateOf(search);
  const last = /^-(\d+)([mhd])$/.exec(state.from);
  const relative = last && !state.to;
  const fixed = relative ? {} : frozen(state);
  return {
    name,
    shared,
    query: state.query,
    columns: state.columns.map((key) => `context.${key}`),
    last: relative ? `${last[1]}${last[2] === "m" ? "min" : last[2]}` : "",
    start_time: fixed.from ?? null,
    end_time: fixed.to ?? null,
  };
}

// Without what a view does not have: how lines are shown.
export function comparable(search) {
  return searchOf({ ...stateOf(search), at: "", entry: null, wrap: false, utc: false });
}
