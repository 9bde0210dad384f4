// The query field, with a chip for each clause. Enter runs the query; a click on a chip moves its text into the field.
import { clausesOf, completionsFor, without } from "./logs-query.js";
import { element } from "./logs-text.js";

export class QueryBox {
  /** `run` is called with the complete query; `known`, {fields(), values(field)}, is what can be completed. */
  constructor({ form, chips, input, list }, { run, known }) {
    this.form = form;
    this.chips = chips;
    this.input = input;
    this.list = list;
    this.run = run;
    this.known = known;
    this.query = "";
    this.chosen = -1;
    this.choices = [];
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.commit();
    });
    input.addEventListener("input", () => this.complete());
    input.addEventListener("focus", () => input.value && this.complete());
    input.addEventListener("blur", () => setTimeout(() => this.close(), 150));
    input.addEventListener("keydown", (event) => this.onKey(event));
    form.addEventListener("click", (event) => event.target === form && input.focus());
  }

  set(query) {
    this.query = query;
    this.input.value = "";
    this.render();
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  render() {
    this.chips.replaceChildren(
      ...clausesOf(this.query).map((clause) => {
        const chip = element("span", `helm-clause${clause.startsWith("-") ? " helm-clause--not" : ""}`);
        const edit = element("button", "helm-clause__text", clause.length > 60 ? `${clause.slice(0, 58)}…` : clause, {
          type: "button",
          title: `Change: ${clause}`,
        });
        edit.addEventListener("click", () => {
          this.query = without(this.query, clause);
          this.render();
          this.input.value = clause;
          this.input.focus();
        });
        const remove = element("button", "helm-clause__remove", "\u00d7", { type: "button", "aria-label": `Remove ${clause}` });
        remove.addEventListener("click", () => {
          this.run(without(this.query, clause));
          this.input.focus();
        });
        chip.append(edit, remove);
        return chip;
      }),
    );
    this.input.placeholder = this.query ? "and …" : "words, service:, level>=, trace:, context.KEY:, /regex/";
  }

  commit() {
    this.close();
    const typed = this.input.value.trim();
    const query = [this.query, typed].filter(Boolean).join(" ");
    this.input.value = "";
    this.run(query);
  }

  complete() {
    const { from, to, choices } = completionsFor(this.input.value, this.input.selectionStart ?? 0, this.known);
    this.choices = choices.map((choice) => ({ ...choice, from, to }));
    this.chosen = -1;
    this.input.removeAttribute("aria-activedescendant");
    this.list.replaceChildren(
      ...this.choices.map((choice, at) => {
        const option = element("li", "helm-query__choice", undefined, { role: "option", id: `logs-choice-${at}`, "aria-selected": "false" });
        option.append(element("span", "helm-query__word", choice.text), element("span", "helm-query__note", choice.note));
        option.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          this.take(choice);
        });
        return option;
      }),
    );
    this.list.hidden = this.choices.length === 0;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
  }

  close() {
    this.list.hidden = true;
    this.choices = [];
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  choose(at) {
    this.list.children[this.chosen]?.setAttribute("aria-selected", "false");
    this.chosen = (at + this.choices.length) % this.choices.length;
    const option = this.list.children[this.chosen];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", option.id);
  }

  take(choice) {
    const { value } = this.input;
    const space = choice.isPartial ? "" : " ";
    this.input.value = `${value.slice(0, choice.from)}${choice.text}${space}${value.slice(choice.to)}`;
    const caret = choice.from + choice.text.length + space.length;
    this.input.setSelectionRange(caret, caret);
    this.input.focus();
    if (choice.isPartial) {
      this.complete();
    } else {
      this.close();
    }
  }

  onKey(event) {
    const open = !this.list.hidden;
    if (event.key === "ArrowDown" && !open) {
      this.complete();
    } else if (open && event.key === "ArrowDown") {
      this.choose(this.chosen + 1);
    } else if (open && event.key === "ArrowUp") {
      this.choose(this.chosen < 0 ? this.choices.length - 1 : this.chosen - 1);
    } else if (open && (event.key === "Tab" || event.key === "Enter") && this.chosen >= 0) {
      this.take(this.choices[this.chosen]);
    } else if (open && event.key === "Tab" && this.choices.length === 1) {
      this.take(this.choices[0]);
    } else if (event.key === "Escape") {
      if (open) {
        this.close();
      } else {
        this.input.blur();
      }
    } else if (event.key === "Backspace" && this.input.value === "" && this.query) {
      const last = clausesOf(this.query).at(-1);
      this.query = without(this.query, last);
      this.render();
      this.input.value = last;
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
