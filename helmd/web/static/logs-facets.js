// Facets: the values of fields with their counts, and buttons that add them to the query.
import { element } from "./logs-text.js";

const TITLES = { level: "Level", service: "Service", source: "Source", stream: "Stream", trace: "Trace", user: "User" };
const NAMES = { journal: "printed", http: "posted", helm: "Helm" };
const MAX_COLLAPSED = 8;

export class Facets {
  /**
   * `choose` is called with a field, a value as the API has it ({value, term, count}), and "include", "exclude" or
   * "only".
   */
  constructor(host, choose) {
    this.host = host;
    this.choose = choose;
    this.expanded = new Set();
    this.facets = [];
    this.shown = "";
  }

  values(field) {
    return this.facets.find((facet) => facet.field === field)?.values;
  }

  set(facets) {
    const back = facets.map((facet) => facet.counted_back_to).filter(Boolean).sort().at(-1);
    const note = back ? `Counted back to ${new Date(back).toLocaleString()}; more would take too long.` : "";
    const text = JSON.stringify([facets, note]);
    if (text === this.shown) {
      return;
    }
    this.shown = text;
    this.facets = facets;
    this.note = note;
    // While the pointer or the focus is within, only counts change: rendering would move buttons away from them.
    if (this.host.matches(":hover") || this.host.contains(document.activeElement)) {
      this.updateCounts();
    } else {
      this.render();
    }
  }

  updateCounts() {
    for (const row of this.host.querySelectorAll("[data-field]")) {
      const found = this.values(row.dataset.field)?.find((each) => String(each.value) === row.dataset.value);
      row.querySelector(".helm-facet__count").textContent = (found?.count ?? 0).toLocaleString();
    }
    const renderWhenLeft = () => {
      this.host.removeEventListener("pointerleave", renderWhenLeft);
      this.host.removeEventListener("focusout", renderWhenLeft);
      setTimeout(() => {
        if (!this.host.matches(":hover") && !this.host.contains(document.activeElement)) {
          this.render();
        }
      }, 0);
    };
    this.host.addEventListener("pointerleave", renderWhenLeft);
    this.host.addEventListener("focusout", renderWhenLeft);
  }

  render() {
    const made = [];
    for (const facet of this.facets) {
      if (!facet.values.length || isHighCardinality(facet)) {
        continue;
      }
      const group = element("section", "helm-facets__group");
      group.append(element("h2", "helm-facets__title", TITLES[facet.field] ?? facet.field));
      const all = this.expanded.has(facet.field);
      for (const each of all ? facet.values : facet.values.slice(0, MAX_COLLAPSED)) {
        group.append(this.row(facet.field, each));
      }
      if (!all && facet.values.length > MAX_COLLAPSED) {
        const more = element("button", "helm-facets__more", `${facet.values.length - MAX_COLLAPSED} more`, { type: "button", "aria-label": `${facet.values.length - MAX_COLLAPSED} more values of ${facet.field}` });
        more.addEventListener("click", () => {
          this.expanded.add(facet.field);
          this.render();
        });
        group.append(more);
      }
      made.push(group);
    }
    if (this.note) {
      made.push(element("p", "helm-facets__note", this.note));
    }
    if (!made.length) {
      made.push(element("p", "helm-facets__note", "Values of level, service, source and of the context would be here, with their counts."));
    }
    this.host.replaceChildren(...made);
  }

  row(field, each) {
    const { value, count } = each;
    const text = value === null ? "none" : field === "level" ? String(value).toLowerCase() : field === "source" ? (NAMES[value] ?? value) : String(value);
    const row = element("div", `helm-facet${field === "level" ? ` helm-facet--${String(value).toLowerCase()}` : ""}`, undefined, {
      "data-field": field,
      "data-value": value,
    });
    const act = (how, className, label, shown) => {
      const button = element("button", className, shown, { type: "button", title: label, "aria-label": label });
      button.addEventListener("click", () => this.choose(field, each, how));
      return button;
    };
    const name = act("include", "helm-facet__name", `Include ${field} ${text}`, text);
    name.setAttribute("aria-label", `Include ${field} ${text}, ${count.toLocaleString()} lines`);
    const countElement = element("span", "helm-facet__count", count.toLocaleString());
    const choices = element("span", "helm-facet__do");
    choices.append(
      act("exclude", "helm-choose__do", `Exclude ${field} ${text}`, "\u2212"),
      act("only", "helm-choose__do", `Only ${field} ${text}`, "="),
    );
    row.append(name, choices, countElement);
    return row;
  }
}

// Whether nearly each entry has its own value, as a duration does: a list of values would be useless as a filter.
function isHighCardinality(facet) {
  return facet.field.startsWith("context.") && facet.more && facet.values[0].count * 50 < facet.values.reduce((sum, each) => sum + each.count, 0) * 10;
}
