// The page of one service: its output, and the form for its settings.
import { followJob, runAction } from "./action.js";
import { Problem, api } from "./api.js";
import { HOME, h, icon } from "./dom.js";
import { exact, preciseClock } from "./format.js";

// Output: the last lines, updated by polling.

const MAX_LINES = 500;
const FIRST_LINES = 200;
const POLL_MS = 2000;
// Escape sequences for terminals (ECMA-48), which are removed.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-_])/g;

class Output {
  constructor(box) {
    this.service = box.dataset.output;
    this.lines = box.querySelector("[data-output-lines]");
    this.note = box.querySelector("[data-output-note]");
    this.link = box.querySelector("[data-output-link]");
    this.buttons = [...box.querySelectorAll("[data-stream]")];
    this.generation = 0;
    for (const button of this.buttons) {
      button.addEventListener("click", () => this.choose(button.dataset.stream, true));
    }
    this.choose(new URLSearchParams(location.search).get("stream") ?? "", false);
  }

  choose(stream, keep) {
    this.stream = ["stdout", "stderr"].includes(stream) ? stream : "";
    this.buttons.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.stream === this.stream)));
    if (keep) {
      const url = new URL(location.href);
      url.searchParams[this.stream ? "set" : "delete"]("stream", this.stream);
      history.replaceState(history.state, "", url);
    }
    const words = `service:${this.service}${this.stream ? ` stream:${this.stream}` : ""}`;
    this.link.href = `${HOME}logs?query=${encodeURIComponent(words)}`;
    this.after = "";
    this.lines.replaceChildren();
    this.read(++this.generation);
  }

  async read(generation) {
    if (generation !== this.generation) {
      return;
    }
    if (!document.hidden) {
      try {
        const query = new URLSearchParams({ service: this.service, source: "journal", limit: String(FIRST_LINES) });
        if (this.stream) {
          query.set("stream", this.stream);
        }
        const { after } = this;
        if (after) {
          query.set("after", after);
        }
        const reply = await api("GET", `api/logs?${query}`);
        if (generation !== this.generation) {
          return;
        }
        if (after && reply.logs.length === FIRST_LINES) {
          // More was printed since than one reply has: the newest lines are read instead, so that they are not late.
          this.after = "";
          this.read(generation);
          return;
        }
        this.after = reply.prev_cursor ?? after;
        this.show(reply.logs, !after);
      } catch (error) {
        this.note.textContent = `${error.message}. ${error.hint ?? ""}`;
      }
    }
    setTimeout(() => this.read(generation), POLL_MS);
  }

  /** Shows entries below the others, or in their place if it `replaces` them. */
  show(entries, replaces) {
    const { lines } = this;
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
    if (replaces) {
      lines.replaceChildren();
    }
    lines.append(...entries.toReversed().map(lineOf));
    while (lines.children.length > MAX_LINES) {
      lines.firstElementChild.remove();
    }
    if (atEnd && entries.length) {
      lines.scrollTop = lines.scrollHeight;
    }
    const count = lines.children.length;
    const what = this.stream || "either stream";
    this.note.textContent = count
      ? `The last ${count} lines on ${what}; new ones come by themselves.`
      : `Nothing was printed on ${what} yet. What the service prints from now on comes here.`;
  }
}

function lineOf(entry) {
  const at = new Date(entry.timestamp);
  const level = entry.level.toLowerCase();
  return h(
    "span",
    { class: `helm-tail__line helm-tail__line--${level}` },
    h("time", { class: "helm-tail__time", datetime: entry.timestamp, title: exact(at) }, preciseClock(at)),
    h("span", { class: "helm-tail__stream" }, entry.stream ?? ""),
    h("span", { class: "helm-tail__message" }, entry.message.replace(ESCAPES, "")),
  );
}

const output = document.querySelector("[data-output]");
if (output) {
  new Output(output);
}

// Settings.

const IDLE_POLL_MS = 300;
const NUMBER = /^\d{1,15}$/;
const NUMBERS = new Set(["limits.tasks", "limits.open_files", "limits.cpu_percent"]);

class Settings {
  constructor(form) {
    this.form = form;
    this.service = form.dataset.settings;
    this.etag = form.dataset.etag;
    this.mode = form.querySelector("[name=mode]:checked")?.value ?? "";
    this.removed = new Map();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.preview();
    });
    form.addEventListener("input", () => this.mark());
    form.addEventListener("reset", () => setTimeout(() => location.reload()));
    form.querySelector("[data-add]").addEventListener("click", () => this.add());
    form.addEventListener("click", (event) => {
      const button = event.target.closest("[data-remove]");
      if (button) {
        this.remove(button.closest("[data-variable]"));
      }
    });
  }

  mark() {
    this.form.toggleAttribute("data-dirty", this.changes().some);
  }

  rows() {
    return [...this.form.querySelectorAll("[data-variable]")];
  }

  add() {
    const remove = h("button", { class: "helm-button helm-button--bare", type: "button", "data-remove": "", title: "Take it out" }, icon("x"), h("span", { class: "helm-hidden" }, "Take it out"));
    const name = h("input", { class: "helm-input helm-input--name", "aria-label": "Variable", placeholder: "NAME", "data-name": "", "data-new": "", autocomplete: "off", spellcheck: "false" });
    const value = h("input", { class: "helm-input", "aria-label": "Value of the new variable", placeholder: "value", "data-value": "", autocomplete: "off", spellcheck: "false" });
    const row = h("div", { class: "helm-form__row", "data-variable": "" }, name, value, remove, h("span", { class: "helm-form__error", "data-error": "", hidden: true }));
    this.form.querySelector("[data-variables]").append(row);
    name.focus();
  }

  remove(row) {
    const name = row.querySelector("[data-name]");
    if (!("new" in name.dataset)) {
      const value = row.querySelector("[data-value]");
      this.removed.set(name.value, "masked" in value.dataset ? null : value.dataset.was);
    }
    row.remove();
    this.mark();
  }

  /**
   * What was changed in the form: `body` of the request and `back`, that of its inverse (null if a masked value is
   * replaced, which the page does not know); whether there are `edits`; `mode` if it differs; and whether `some` is
   * changed.
   */
  changes() {
    const [set, unset, backSet, backUnset] = [{}, [], {}, []];
    let lost = false;
    const put = (key, value, was, known = true) => {
      set[key] = value;
      if (!known) {
        lost = true;
      } else if (was === undefined) {
        backUnset.push(key);
      } else {
        backSet[key] = was;
      }
    };
    const typed = (key, text) => (NUMBERS.has(key) && NUMBER.test(text) ? Number(text) : text);
    for (const input of this.form.querySelectorAll("[name^='limits.']:not(:disabled)")) {
      const [now, was] = [input.value.trim(), input.dataset.was];
      if (now === was) {
        continue;
      }
      if (!now) {
        unset.push(input.name);
        backSet[input.name] = typed(input.name, was);
      } else {
        put(input.name, typed(input.name, now), was ? typed(input.name, was) : undefined);
      }
    }
    for (const row of this.rows().filter((each) => !each.querySelector("[data-value]").disabled)) {
      const [name, value] = [row.querySelector("[data-name]"), row.querySelector("[data-value]")];
      const key = `environment.${name.value.trim()}`;
      if ("new" in name.dataset) {
        if (name.value.trim()) {
          row.querySelector("[data-error]").dataset.error = key;
          put(key, value.value);
        }
      } else if (value.value !== value.dataset.was) {
        put(key, value.value, value.dataset.was, !("masked" in value.dataset));
      }
    }
    for (const [name, was] of this.removed) {
      const key = `environment.${name}`;
      if (key in set) {
        // A variable that was removed and added again is a change.
        backUnset.splice(backUnset.indexOf(key), 1);
      } else {
        unset.push(key);
      }
      if (was === null) {
        lost = true;
      } else {
        backSet[key] = was;
      }
    }
    const mode = this.form.querySelector("[name=mode]:checked")?.value ?? "";
    const edits = Object.keys(set).length > 0 || unset.length > 0;
    const body = { set, unset };
    const back = lost ? null : { set: backSet, unset: backUnset };
    return { body, back, edits, mode: mode === this.mode ? "" : mode, some: edits || mode !== this.mode };
  }

  showErrors(errors) {
    for (const each of this.form.querySelectorAll("[data-error]")) {
      each.hidden = true;
    }
    for (const { pointer, detail } of errors) {
      const key = pointer.replace(/^#\/(set|unset)\//, "").replaceAll("~1", "/").replaceAll("~0", "~");
      const place =
        this.form.querySelector(`[data-error="${CSS.escape(key)}"]`) ?? this.form.querySelector('[data-error="#"]');
      place.textContent = `${detail[0].toUpperCase()}${detail.slice(1)}.`;
      place.hidden = false;
    }
  }

  async put(body, query, reason) {
    const headers = { "If-Match": this.etag };
    try {
      return await api("PUT", `api/services/${this.service}/config${query}`, { ...body, reason }, { headers });
    } catch (error) {
      if (error.code === "precondition_failed") {
        error.hint = "Nothing was written. Press Reset to see them as they are now, then make your change again.";
      }
      throw error;
    }
  }

  /** Reads the current ETag, so that the next request is based on the current settings. Throws Problem. */
  async refreshEtag() {
    const now = await fetch(`${HOME}api/services/${this.service}/config`, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!now?.ok) {
      throw new Problem(now?.status ?? 0, { detail: "the settings can't be read, so nothing was undone", hint: "Try again when Helm answers." });
    }
    this.etag = now.headers.get("ETag") ?? this.etag;
  }

  async preview() {
    const { body, back, edits, mode, some } = this.changes();
    const reason = this.form.querySelector("[name=reason]").value.trim();
    this.showErrors([]);
    if (!some) {
      this.showErrors([{ pointer: "#", detail: "nothing was changed in the form" }]);
      return;
    }
    let plan = null;
    if (edits) {
      try {
        plan = await this.put(body, "?dry_run=true", reason);
      } catch (error) {
        const errors = error instanceof Problem && error.errors.length ? error.errors : null;
        this.showErrors(errors ?? [{ pointer: "#", detail: `${error.message}. ${error.hint ?? ""}`.replace(/\.? *$/, "") }]);
        this.form.querySelector("[data-error]:not([hidden])")?.scrollIntoView({ block: "center" });
        return;
      }
    }
    await runAction({
      title: `Change settings of ${this.service}`,
      confirm: "Apply",
      plan: async () => {
        queueMicrotask(() => plan && showDiffs(plan));
        return stepsOf(this.service, plan, mode);
      },
      fields: [],
      submit: () => (edits ? this.apply(body, reason, mode) : this.switchMode(mode, reason)),
      ended: () => (plan?.next ? `Applied. To take effect: ${plan.next}` : "Applied"),
      undo: this.undo(back, edits, mode, reason),
    });
  }

  /** Disables the form after a change, and reloads the page when the job has ended and no dialog is open. */
  async reloadAfter(reply) {
    this.form.inert = true;
    this.form.removeAttribute("data-dirty");
    if (reply.job) {
      await followJob(reply.job);
    }
    setTimeout(reloadWhenIdle, IDLE_POLL_MS);
  }

  /** Applies changes, then switches the mode, by a restart. Resolves to the last reply. */
  async apply(body, reason, mode) {
    const reply = await this.put(body, "", reason);
    this.written = true;
    if (!mode) {
      this.reloadAfter(reply);
      return reply;
    }
    if (reply.job) {
      const applied = await followJob(reply.job);
      if (applied.state !== "succeeded") {
        this.reloadAfter({});
        return { job: applied };
      }
    }
    return this.switchMode(mode, reason);
  }

  async switchMode(mode, reason) {
    const body = { action: "restart", services: [this.service], mode, reason, confirm: true };
    try {
      const reply = await api("POST", "api/services/actions", body);
      this.reloadAfter(reply);
      return reply;
    } catch (error) {
      if (this.written) {
        this.reloadAfter({});
      }
      throw error;
    }
  }

  undo(back, edits, mode, reason) {
    if (edits && !back) {
      return "This can't be undone here: the value of a secret that was replaced is not known to the page.";
    }
    const why = `undo: ${reason}`.slice(0, 500);
    return {
      label: "Undo",
      title: `Undo the change of ${this.service}`,
      confirm: "Undo",
      fields: [],
      plan: async () => {
        await this.refreshEtag();
        const plan = edits ? await this.put(back, "?dry_run=true", why) : null;
        queueMicrotask(() => plan && showDiffs(plan));
        return stepsOf(this.service, plan, mode && this.mode);
      },
      submit: () => (edits ? this.apply(back, why, mode && this.mode) : this.switchMode(this.mode, why)),
      ended: () => "Undone",
    };
  }
}

/** Reloads the page when no dialog or notification is shown: they offer to undo the change, and show its result. */
function reloadWhenIdle() {
  if (document.querySelector("dialog[open], .helm-toast")) {
    setTimeout(reloadWhenIdle, IDLE_POLL_MS);
  } else {
    location.reload();
  }
}

function stepsOf(service, plan, mode) {
  const steps = [];
  if (plan) {
    steps.push(plan.changed ? `Write ${plan.file}; its comments stay.` : `Leave ${plan.file} as it is.`);
    const units = plan.units.filter((each) => each.applied).map((each) => each.unit);
    steps.push(units.length ? `Install ${units.join(", ")}.` : "No unit changes.");
  }
  if (mode) {
    steps.push(`Restart ${service} in ${mode} mode.`);
  } else if (plan?.next) {
    steps.push(`${service} goes on as it is until it is restarted: ${plan.next}`);
  }
  return steps;
}

/** Adds the differences of files to the dialog of the action, once it shows the plan. */
function showDiffs(plan) {
  const show = () => {
    const body = [...document.querySelectorAll("dialog[open] .helm-dialog__body")].at(-1);
    if (!body?.querySelector(".helm-steps")) {
      requestAnimationFrame(show);
      return;
    }
    const diffs = [[plan.file, plan.diff], ...plan.units.map((each) => [each.unit, each.diff])];
    for (const [name, diff] of diffs) {
      if (diff) {
        body.append(h("p", { class: "helm-note" }, name), diffOf(diff, name));
      }
    }
  };
  show();
}

const KINDS = { "+": "new", "-": "old", "@": "place" };

function diffOf(text, name) {
  const lines = text.trimEnd().split("\n").map((line) => {
    const kind = /^(---|\+\+\+) /.test(line) ? "place" : KINDS[line[0]];
    return h("span", { class: `helm-diff__line${kind ? ` helm-diff__line--${kind}` : ""}` }, `${line}\n`);
  });
  return h("pre", { class: "helm-diff", tabindex: "0", "aria-label": `Difference of ${name}` }, lines);
}

const form = document.querySelector("[data-settings]");
if (form) {
  new Settings(form);
}
