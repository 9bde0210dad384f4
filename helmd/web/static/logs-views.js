// Saved views as tabs. A view is a named query with its range and columns, private or shared with all users.
import { toast } from "./dom.js";
import { Problem } from "./logs-source.js";
import { searchOf, stateOf, withAbsoluteTimes } from "./logs-state.js";
import { element } from "./logs-text.js";

export class Views {
  /**
   * `open` is called with the query string of the view to show; `current` returns that of the page; `onError` is called
   * with errors that concern the page as a whole.
   */
  constructor(host, source, { open, current, onError }) {
    this.host = host;
    this.source = source;
    this.open = open;
    this.current = current;
    this.onError = onError;
    this.views = [];
    this.available = false;
    this.note = element("p", "helm-viewtab__note", "", { role: "alert" });
  }

  /** Shows beside the tabs why a view was not saved or removed; the page's own notice is for errors of the lines. */
  showError(sentence, hint = "") {
    const text = [sentence, hint].filter(Boolean).map((each) => each.replace(/\.$/, "")).join(". ");
    this.note.textContent = text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "";
  }

  async load(available = true) {
    if (!available) {
      this.render();
      return;
    }
    try {
      const response = await this.source.get("views");
      this.views = response.views;
      this.available = true;
    } catch (error) {
      this.available = false;
      this.onError(error);
    }
    this.render();
  }

  render() {
    const focused = this.host.contains(document.activeElement) ? document.activeElement.textContent : null;
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
    this.host.replaceChildren(...tabs, this.note);
    if (focused !== null) {
      // Restores the focus: to the control with the same text, else to the current view.
      const all = [...this.host.querySelectorAll("a, button")];
      const here = this.host.querySelector(".helm-viewtab--here a");
      (all.find((each) => focused && each.textContent === focused) ?? here ?? all.at(-1)).focus();
    }
  }

  saver() {
    const made = element("span", "helm-viewtab");
    const button = element("button", "helm-viewtab__add", "+ Save this view", { type: "button" });
    button.addEventListener("click", () => this.showForm(made));
    made.append(button);
    return made;
  }

  showForm(place) {
    const form = element("form", "helm-viewtab__form");
    const name = element("input", "helm-logfield__input", undefined, { name: "name", required: true, maxlength: 80, "aria-label": "Name of the view", placeholder: "Name" });
    const label = element("label", "helm-viewtab__shared", "for everybody");
    const shared = element("input", "", undefined, { type: "checkbox", name: "shared" });
    label.prepend(shared);
    const save = element("button", "helm-button helm-button--small helm-button--primary", "Save");
    const cancel = element("button", "helm-button helm-button--small", "Cancel", { type: "button" });
    const leave = () => {
      this.showError("");
      this.render();
      this.host.querySelector(".helm-viewtab__add")?.focus();
    };
    cancel.addEventListener("click", leave);
    name.addEventListener("input", () => (save.textContent = "Save"));
    form.append(name, label, save, cancel);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = name.value.trim();
      if (save.textContent === "Save" && this.views.some((each) => each.own && each.name === text)) {
        save.textContent = "Replace it";
        this.showError(`There is a view ${text} of yours`, "Press Replace it, or give this one another name");
        return;
      }
      this.save(text, shared.checked);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        leave();
      }
      event.stopPropagation();
    });
    place.replaceChildren(form);
    name.focus();
  }

  /** Sends a request and reloads the views. Resolves to whether it succeeded; errors are shown, and the form stays. */
  async change(what, method, path, body) {
    try {
      await this.source.send(method, path, body);
    } catch (error) {
      const details = (error.errors ?? []).map((each) => each.detail).join("; ");
      if (!(error instanceof Problem)) {
        this.showError(`Helm can't be reached, so the view was not ${what}`, "Try it again when it answers. On the machine: systemctl --user status helmd");
      } else if (error.status === 401) {
        this.onError(error);
      } else if (error.status === 404) {
        this.showError("This view is not there any more: somebody has removed it", "The tabs are those that there are now");
        await this.load();
      } else {
        this.showError(`The view was not ${what}: ${details || error.message}`, error.hint);
      }
      return false;
    }
    this.showError("");
    await this.load();
    return true;
  }

  save(name, shared) {
    return this.change("saved", "POST", "views", bodyOfView(name, shared, this.current()));
  }

  async remove(view) {
    if (await this.change("removed", "DELETE", `views/${view.id}`)) {
      const { name, shared, query, columns, last, start_time, end_time } = view;
      const body = { name, shared, query, columns, last, start_time, end_time };
      toast(`The view ${name} was removed.`, { glyph: "check", tone: "ok", actions: [["Undo", () => this.change("restored", "POST", "views", body)]] });
    }
  }
}

// The page's query string for a view. The page's columns are keys of the context.
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
  const fixed = relative ? {} : withAbsoluteTimes(state);
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

// A query string without what is not part of a view: the position and the display of lines.
export function comparable(search) {
  return searchOf({ ...stateOf(search), at: "", entry: null, wrap: false, utc: false });
}
