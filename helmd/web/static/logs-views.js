// Saved views as tabs: a name for a query with its range, one's own or for everybody.
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
    const now = this.current();
    const tab = (name, search, view = null) => {
      const here = search === now;
      const item = element("span", `helm-viewtab${here ? " helm-viewtab--here" : ""}`);
      const link = element("a", "helm-viewtab__link", name, { href: search || location.pathname, "aria-current": here ? "page" : null });
      link.addEventListener("click", (event) => {
        if (!event.ctrlKey && !event.metaKey && !event.shiftKey) {
          event.preventDefault();
          this.open(search);
        }
      });
      item.append(link);
      if (view?.mine !== false && view && here) {
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
    const name = element("input", "helm-logfield__input", undefined, { name: "name", required: true, maxlength: 60, "aria-label": "Name of the view", placeholder: "Name" });
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
      await this.source.send("DELETE", `views/${encodeURIComponent(view.id)}`);
      await this.load();
    } catch (error) {
      this.failed(error);
    }
  }
}

function searchOfView(view) {
  const given = new URLSearchParams(view.parameters ?? {});
  if (view.query) {
    given.set("query", view.query);
  }
  const text = given.toString();
  return text ? `?${text}` : "";
}

function bodyOfView(name, shared, search) {
  const { query = "", ...parameters } = Object.fromEntries(new URLSearchParams(search));
  return { name, query, shared, parameters };
}
