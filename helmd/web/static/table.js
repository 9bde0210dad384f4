// Tables that can be sorted, filtered and copied, with columns that can be hidden and rows that can be selected.
//
// Markup: <table data-table="services"> with <th data-column="cpu" data-sort="number">; a cell's value is its
// data-value or its text. The controls are in the same element data-table-box: <input data-table-filter>,
// [data-table-copy="csv|json"], [data-table-columns], [data-table-selected]. Sorting and filter are in the URL (sort,
// find), hidden columns in local storage by the table's name.
import { copy, h, saveFocus, store, stored } from "./dom.js";

const tables = new Map();

/** The row of the page for which a placeholder in an update stands (see live.js); any other row itself. */
const fullRow = (row) => ("liveSame" in row.dataset && document.getElementById(row.id)) || row;

class Table {
  constructor(element) {
    this.name = element.dataset.table;
    const parameters = new URLSearchParams(location.search);
    [this.by, this.down] = [parameters.get("sort")?.replace(/^-/, "") ?? "", parameters.get("sort")?.startsWith("-") ?? false];
    this.find = parameters.get("find") ?? "";
    this.hidden = new Set(stored(`columns-${this.name}`, []));
    this.selected = new Set();
    document.addEventListener("helm:part", () => this.show());
    // An update is sorted and filtered before it is morphed in, so that rows don't move and keep the focus.
    document.addEventListener("helm:fresh", ({ detail }) => {
      const fresh = detail.fresh.querySelector(`[data-table="${CSS.escape(this.name)}"]`);
      if (fresh) {
        this.arrange(fresh);
      }
    });
    document.addEventListener("click", (event) => this.onClick(event));
    document.addEventListener("input", (event) => this.onInput(event));
    document.addEventListener("change", (event) => this.onChange(event));
    const field = this.box?.querySelector("[data-table-filter]");
    if (field && this.find) {
      field.value = this.find;
    }
    this.show();
  }

  get element() {
    return document.querySelector(`[data-table="${CSS.escape(this.name)}"]`);
  }

  get box() {
    return this.element?.closest("[data-table-box]");
  }

  rows(element = this.element) {
    return [...element.tBodies].flatMap((body) => [...body.rows]).filter((row) => !row.hasAttribute("data-detail"));
  }

  heads(element = this.element) {
    return [...(element.tHead?.rows[0]?.cells ?? [])];
  }

  show() {
    if (!this.element) {
      return;
    }
    const left = this.arrange(this.element);
    const none = this.box?.querySelector("[data-table-none]");
    if (none) {
      none.hidden = left > 0 || !this.find.trim();
    }
    this.showSelected();
  }

  /** Sorts and filters a table and hides columns. Returns the number of visible rows. */
  arrange(element) {
    const heads = this.heads(element);
    heads.forEach((head, at) => {
      const column = head.dataset.column;
      if ("sort" in head.dataset && !head.querySelector("button")) {
        const button = h("button", { class: "helm-table__sort", type: "button", "data-table-sort": column });
        button.append(...head.childNodes);
        head.append(button);
      }
      if ("sort" in head.dataset) {
        const sorted = column === this.by ? (this.down ? "descending" : "ascending") : "none";
        head.setAttribute("aria-sort", sorted);
      }
      this.hide(element, at, head, this.hidden.has(column));
    });
    this.sort(element, heads);
    const words = this.find.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of this.rows(element)) {
      const text = fullRow(row).textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      left += row.hidden ? 0 : 1;
      const check = row.querySelector("[data-select]");
      if (check) {
        check.checked = this.selected.has(check.value);
        row.toggleAttribute("data-selected", check.checked);
      }
    }
    return left;
  }

  hide(element, at, head, hidden) {
    if (!head.dataset.column) {
      return;
    }
    head.hidden = hidden;
    for (const row of this.rows(element)) {
      if (row.cells[at]) {
        row.cells[at].hidden = hidden;
      }
    }
  }

  sort(element, heads) {
    const at = heads.findIndex((head) => head.dataset.column === this.by);
    if (at < 0) {
      return;
    }
    const numeric = heads[at].dataset.sort === "number";
    const value = (placeholder) => {
      const row = fullRow(placeholder);
      const text = row.cells[at]?.dataset.value ?? row.cells[at]?.textContent.trim() ?? "";
      return numeric ? (text === "" ? -Infinity : Number(text)) : text;
    };
    const sign = this.down ? -1 : 1;
    const order = new Intl.Collator(undefined, { numeric: true }).compare;
    const restoreFocus = saveFocus();
    for (const body of element.tBodies) {
      const rows = [...body.rows];
      const sorted = rows.toSorted((one, other) =>
        sign * (numeric ? value(one) - value(other) || 0 : order(value(one), value(other))),
      );
      if (sorted.some((row, place) => row !== rows[place])) {
        body.append(...sorted);
      }
    }
    restoreFocus();
  }

  onClick(event) {
    if (!this.element || !(event.target instanceof Element)) {
      return;
    }
    const sort = event.target.closest("[data-table-sort]");
    if (sort && this.element.contains(sort)) {
      const column = sort.dataset.tableSort;
      const first = sort.closest("th").dataset.sort === "number";
      if (this.by !== column) {
        [this.by, this.down] = [column, first];
      } else if (this.down === first) {
        this.down = !first;
      } else {
        [this.by, this.down] = ["", false];
      }
      this.setParameter("sort", this.by && `${this.down ? "-" : ""}${this.by}`);
      this.show();
    }
    const copied = event.target.closest("[data-table-copy]");
    if (copied && this.box?.contains(copied)) {
      copy(copied.dataset.tableCopy === "json" ? this.json() : this.csv(), "The table was copied");
    }
    const columns = event.target.closest("[data-table-columns]");
    if (columns && this.box?.contains(columns)) {
      this.openColumnMenu(columns);
    }
  }

  onInput(event) {
    if (event.target.matches?.("[data-table-filter]") && this.box?.contains(event.target)) {
      this.find = event.target.value;
      this.setParameter("find", this.find);
      this.show();
    }
  }

  onChange(event) {
    const box = event.target;
    if (!this.element?.contains(box)) {
      return;
    }
    if (box.matches("[data-select-all]")) {
      const shown = this.rows().filter((row) => !row.hidden);
      shown.forEach((row) => this.select(row.querySelector("[data-select]")?.value, box.checked));
      this.show();
    } else if (box.matches("[data-select]")) {
      this.select(box.value, box.checked);
      this.show();
    }
  }

  select(value, chosen) {
    if (value !== undefined) {
      this.selected[chosen ? "add" : "delete"](value);
    }
  }

  showSelected() {
    const checks = this.rows().map((row) => [row, row.querySelector("[data-select]")?.value]).filter(([, value]) => value);
    const values = checks.map(([, value]) => value);
    this.selected = new Set([...this.selected].filter((value) => values.includes(value)));
    const all = this.element.querySelector("[data-select-all]");
    if (all) {
      // It is for the rows that the filter leaves.
      const shown = checks.filter(([row]) => !row.hidden);
      all.checked = shown.length > 0 && shown.every(([, value]) => this.selected.has(value));
      all.indeterminate = this.selected.size > 0 && !all.checked;
    }
    for (const bar of this.box?.querySelectorAll("[data-table-selected]") ?? []) {
      bar.hidden = this.selected.size === 0;
      const count = bar.querySelector("[data-table-count]");
      if (count) {
        count.textContent = `${this.selected.size} selected`;
      }
      for (const button of bar.querySelectorAll("[data-action]")) {
        button.dataset.services = [...this.selected].join(" ");
      }
    }
    this.element.dispatchEvent(new CustomEvent("helm:selected", { bubbles: true, detail: [...this.selected] }));
  }

  openColumnMenu(button) {
    const id = `helm-columns-${this.name}`;
    document.getElementById(id)?.remove();
    const menu = h(
      "div",
      { class: "helm-menu", id, popover: "auto", role: "group", "aria-label": "Columns" },
      this.heads()
        .filter((head) => head.dataset.column)
        .map((head) => {
          const column = head.dataset.column;
          const check = h("input", {
            class: "helm-check",
            type: "checkbox",
            checked: !this.hidden.has(column),
            onchange: () => {
              this.hidden[check.checked ? "delete" : "add"](column);
              store(`columns-${this.name}`, [...this.hidden]);
              this.show();
            },
          });
          return h("label", { class: "helm-menu__item" }, check, head.textContent.trim());
        }),
    );
    button.after(menu);
    place(menu, button);
  }

  setParameter(name, value) {
    const url = new URL(location.href);
    if (value) {
      url.searchParams.set(name, value);
    } else {
      url.searchParams.delete(name);
    }
    history.replaceState(history.state, "", url);
  }

  cells() {
    const heads = this.heads();
    const columns = heads.map((head, at) => ({ at, name: head.dataset.column })).filter((each) => each.name);
    const shown = columns.filter((each) => !this.hidden.has(each.name));
    const rows = this.rows().filter((row) => !row.hidden && (!this.selected.size || row.hasAttribute("data-selected")));
    return [shown, rows.map((row) => shown.map(({ at }) => row.cells[at]?.dataset.value ?? row.cells[at]?.textContent.replace(/\s+/g, " ").trim() ?? ""))];
  }

  csv() {
    const [columns, rows] = this.cells();
    // Prevents CSV injection: spreadsheets evaluate a cell that begins like a formula.
    const quote = (text) => `"${(/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text).replaceAll('"', '""')}"`;
    return [columns.map((each) => each.name), ...rows].map((row) => row.map(quote).join(",")).join("\r\n");
  }

  json() {
    const [columns, rows] = this.cells();
    return JSON.stringify(rows.map((row) => Object.fromEntries(columns.map((each, at) => [each.name, row[at]]))), null, 2);
  }
}

/** Opens a popover at a button: below it, or above where there is not enough space. */
export function place(menu, button) {
  menu.showPopover();
  const [at, own] = [button.getBoundingClientRect(), menu.getBoundingClientRect()];
  menu.style.left = `${Math.max(8, Math.min(at.left, innerWidth - own.width - 8))}px`;
  menu.style.top = `${at.bottom + own.height + 8 > innerHeight ? Math.max(8, at.top - own.height - 4) : at.bottom + 4}px`;
}

function enhance() {
  for (const element of document.querySelectorAll("[data-table]")) {
    if (!tables.has(element.dataset.table)) {
      tables.set(element.dataset.table, new Table(element));
    }
  }
}

enhance();
document.addEventListener("helm:part", enhance);
