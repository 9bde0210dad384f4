// The toolbar above the lines: range, wrapping, columns, patterns, export, links; and status messages.
import { withClause } from "./logs-query.js";
import { PRESETS, fieldTime, isoOf, nowMicros, typedTime, withAbsoluteTimes } from "./logs-state.js";
import { appendText, element } from "./logs-text.js";

export class Menus {
  constructor(page) {
    this.page = page;
    this.host = page.host;
    this.part = page.part;
    this.message = element("p", "helm-logs__message", "", { role: "status" });
    this.part("count").after(this.message);
    this.listen();
  }

  show() {
    const { state, times, range } = this.page;
    this.part("range").textContent = times.range(range);
    const pressed = (name, on) => this.button(name).setAttribute("aria-pressed", String(on));
    pressed("wrap", state.wrap);
    pressed("utc", state.utc);
    this.part("presets").replaceChildren(
      ...PRESETS.map(([from, text]) => {
        const here = state.from === from && !state.to;
        const button = element("button", `helm-logmenu__item${here ? " helm-logmenu__item--here" : ""}`, text, { type: "button", "aria-pressed": String(here) });
        button.addEventListener("click", () => {
          this.part("range-panel").hidePopover();
          this.page.go({ from, to: "", at: "", entry: null });
        });
        return button;
      }),
    );
  }

  button(name) {
    return this.host.querySelector(`[data-logs-do="${name}"]`);
  }

  announce(text) {
    this.message.textContent = text;
    clearTimeout(this.messageTimer);
    this.messageTimer = setTimeout(() => {
      this.message.textContent = "";
    }, 4000);
  }

  async copy(text, message) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS, there is no navigator.clipboard.
      const area = element("textarea", "helm-hidden");
      area.value = text;
      this.host.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    this.announce(message);
  }

  column(name) {
    const { columns } = this.page.state;
    const next = columns.includes(name) ? columns.filter((each) => each !== name) : [...columns, name].slice(-4);
    this.page.setDisplay({ columns: next });
  }

  listen() {
    const { page } = this;
    const acts = {
      wrap: () => page.setDisplay({ wrap: !page.state.wrap }),
      utc: () => page.setDisplay({ utc: !page.state.utc }),
      beginning: () => page.showBeginning(),
      "next-error": () => page.nextError(1),
      "previous-error": () => page.nextError(-1),
      link: () => this.copy(page.link(), "Link with fixed times copied"),
      patterns: () => this.patterns(),
      facets: () => this.facets(),
    };
    for (const [name, act] of Object.entries(acts)) {
      this.button(name)?.addEventListener("click", act);
    }
    this.part("range-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.range(new FormData(event.target));
    });
    this.part("jump-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const at = typedTime(new FormData(event.target).get("at"), page.state.utc);
      if (at) {
        this.part("range-panel").hidePopover();
        page.jump(at);
      }
    });
    this.onOpen("range-panel", () => this.fillRange());
    this.onOpen("columns", () => this.fillColumns());
    this.onOpen("export", () => this.fillExport());
  }

  onOpen(name, fill) {
    this.part(name).addEventListener("beforetoggle", (event) => {
      if (event.newState === "open") {
        fill();
        this.place(this.part(name));
      }
    });
  }

  /** Moves a popover below the button that opens it. */
  place(panel) {
    const opener = this.host.querySelector(`[popovertarget="${panel.id}"]`).getBoundingClientRect();
    panel.style.top = `${opener.bottom + 6}px`;
    panel.style.right = `${Math.max(8, innerWidth - opener.right)}px`;
  }

  fillRange() {
    const { range, state } = this.page;
    const form = this.part("range-form");
    form.elements.from.value = fieldTime(range.from, state.utc);
    form.elements.to.value = fieldTime(range.to ?? nowMicros(), state.utc);
    this.part("jump-form").elements.at.value = fieldTime((range.from + (range.to ?? nowMicros())) / 2, state.utc);
  }

  range(fields) {
    const { utc } = this.page.state;
    const from = typedTime(fields.get("from"), utc);
    const to = typedTime(fields.get("to"), utc);
    if (!from || (to && from >= to)) {
      this.announce("The range has no beginning before its end");
      return;
    }
    this.part("range-panel").hidePopover();
    this.page.go({ from: isoOf(from), to: to ? isoOf(to) : "", at: "", entry: null });
  }

  fillColumns() {
    const names = [...new Set([...this.page.state.columns, ...this.page.knownKeys])].slice(0, 14);
    const panel = this.part("columns");
    const items = names.map((name) => {
      const label = element("label", "helm-logmenu__item");
      const box = element("input", "", undefined, { type: "checkbox" });
      box.checked = this.page.state.columns.includes(name);
      box.addEventListener("change", () => this.column(name));
      label.append(box, ` context.${name}`);
      return label;
    });
    const form = element("form", "helm-logmenu__form");
    const input = element("input", "helm-logfield__input", undefined, { name: "name", pattern: "[\\w.\\-]{1,60}", placeholder: "another key", "aria-label": "Another key of the context" });
    form.append(input, element("button", "helm-button helm-button--small", "Add"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.column(input.value.replace(/^context\./, ""));
      this.fillColumns();
    });
    panel.replaceChildren(element("h2", "helm-logmenu__title", "Columns from the context"), ...items, form);
  }

  fillExport() {
    const { page } = this;
    const { from, to } = withAbsoluteTimes(page.state);
    const parameters = { ...page.parameters(), start_time: from, end_time: to };
    const link = (format, text) =>
      element("a", "helm-logmenu__item", text, { href: page.source.url("logs/export", { ...parameters, format, order: "asc" }), download: "" });
    const command = element("button", "helm-logmenu__item", "Copy as helmctl command", { type: "button" });
    const services = page.service ? `${page.service} ` : "";
    // "--", since a query may begin with a hyphen.
    const query = page.state.query ? ` -- '${page.state.query.replace(/'/g, "'\\''")}'` : "";
    command.addEventListener("click", () =>
      this.copy(`helmctl logs ${services}--since '${from}' --until '${to}' -o json${query}`, "Command copied"),
    );
    const count = page.total === null ? "" : `${page.total.toLocaleString()} lines, exactly as filtered, the oldest first`;
    this.part("export").replaceChildren(
      element("h2", "helm-logmenu__title", "Export"),
      element("p", "helm-logmenu__note", count),
      link("ndjson", "NDJSON, an entry a line"),
      link("csv", "CSV, for a spreadsheet"),
      command,
    );
  }

  facets() {
    const open = this.host.classList.toggle("helm-logs--facets");
    this.button("facets").setAttribute("aria-expanded", String(open));
  }

  async patterns() {
    const panel = this.part("patterns");
    const open = panel.hidden;
    this.button("patterns").setAttribute("aria-expanded", String(open));
    panel.hidden = !open;
    if (!open) {
      return;
    }
    panel.replaceChildren(element("p", "helm-logmenu__note", "Reading …"));
    try {
      const { from, to } = withAbsoluteTimes(this.page.state);
      const found = await this.page.source.get("logs/patterns", { ...this.page.parameters(), start_time: from, end_time: to });
      this.fillPatterns(panel, found);
    } catch (error) {
      panel.replaceChildren(element("p", "helm-logmenu__note", error.message));
    }
  }

  fillPatterns(panel, found) {
    const list = element("ul", "helm-patterns__list");
    for (const each of found.patterns.slice(0, 50)) {
      const item = element("li", "helm-patterns__item");
      const text = element("span", "helm-patterns__text", undefined, { title: each.example.slice(0, 300) });
      appendText(text, each.pattern.slice(0, 300));
      item.append(
        element("span", "helm-patterns__count", each.count.toLocaleString()),
        element("span", "helm-patterns__service", each.service_name),
        element("span", `helm-patterns__level helm-patterns__level--${each.level.toLowerCase()}`, each.level),
        text,
      );
      for (const [sign, word] of [["-", "Hide"], ["", "Only"]]) {
        const button = element("button", "helm-button helm-button--small", word, {
          type: "button",
          "aria-label": `${word} ${each.pattern.slice(0, 80)}`,
        });
        button.addEventListener("click", () => {
          this.patterns();
          this.page.go({ query: withClause(this.page.state.query, `${sign}${each.term}`), at: "", entry: null });
        });
        item.append(button);
      }
      list.append(item);
    }
    const back = found.counted_back_to ? ` Counted back to ${new Date(found.counted_back_to).toLocaleString()}.` : "";
    const note = found.patterns.length
      ? `Kinds of lines, the most frequent first; an asterisk stands for what differs.${found.more ? " There are more." : ""}${back}`
      : "No lines.";
    panel.replaceChildren(element("p", "helm-logmenu__note", note), list);
  }
}
