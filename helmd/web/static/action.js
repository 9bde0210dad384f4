// Actions that change something: a dialog shows the plan and asks for confirmation, then follows the job, then shows
// the result.
import { Problem, api } from "./api.js";
import { HOME, h, icon, printableText, saveFocus, toast } from "./dom.js";
import { duration } from "./format.js";
import { subscribe } from "./live.js";
import { eventsUntilEnd } from "./sse.js";

const ENDED = new Set(["succeeded", "failed", "cancelled", "interrupted"]);
const GLYPHS = {
  done: ["ok", "circle-check"],
  already: ["ok", "check"],
  in_progress: ["info", "loader-circle"],
  failed: ["error", "circle-x"],
  killed: ["error", "circle-x"],
  skipped: ["off", "minus"],
  queued: ["off", "clock"],
};
const VERBS = {
  start: ["Start", "started"],
  stop: ["Stop", "stopped"],
  restart: ["Restart", "restarted"],
  reload: ["Reload", "reloaded"],
};
/** HTTP statuses after which a retry may succeed: unreachable, no session, a conflict (a name in use), unavailable. */
const RETRYABLE = new Set([0, 401, 409, 502, 503, 504]);
const OPPOSITE = { start: "stop", stop: "start" };

/**
 * Runs an action in a dialog. Resolves, when the dialog is closed, to the job as it ended or the reply of `submit`; to
 * null if the action was cancelled, was refused or still runs. Options:
 *
 *   title         the title of the dialog, such as "Restart codex"
 *   plan          async () => [{service, action} | text], the steps; may throw Problem
 *   warning       a sentence about the effect on users, or a function of the plan that returns one
 *   fields        the form, [{name, label, type, value, required, hint, options}], or a function of the plan that
 *                 returns it; by default a field for the reason
 *   confirm       the label of the submit button; `danger` makes it red
 *   submit        async (values) => reply; where the reply has a `job`, the dialog follows that
 *   ended         (job or reply) => the sentence that reports success
 *   undo          the options of the inverse action, or a sentence why there is none
 *   log           true: the job's output is shown while it runs
 *   retry         called by a button that is shown where the action failed
 *   alternatives  [[label, act]]: further buttons, which close the dialog
 *
 * When the dialog is closed, `restoreFocus` is called, see `saveFocus`.
 */
export function runAction(options, restoreFocus = saveFocus()) {
  return new Promise((resolve) => new ActionDialog(options, resolve, restoreFocus).open());
}

class ActionDialog {
  constructor(options, resolve, restoreFocus) {
    this.options = options;
    this.resolve = resolve;
    this.restoreFocus = restoreFocus;
    this.result = null;
    this.closed = false;
    this.body = h("div", { class: "helm-dialog__body" });
    this.foot = h("div", { class: "helm-dialog__do" });
    this.form = h(
      "form",
      { class: "helm-dialog__form", method: "dialog", onsubmit: (event) => this.submit(event) },
      h("h2", { class: "helm-dialog__title", id: "helm-action" }, options.title),
      this.body,
      this.foot,
    );
    this.dialog = h(
      "dialog",
      { class: "helm-dialog", "aria-labelledby": "helm-action", onclose: () => this.close() },
      this.form,
    );
  }

  async open() {
    document.querySelector(".helm-frame").append(this.dialog);
    this.body.replaceChildren(h("div", { class: "helm-skeleton helm-skeleton--lines", "aria-label": "Reading the plan" }));
    this.buttons([["Cancel", () => this.dialog.close()]]);
    this.dialog.showModal();
    try {
      this.plan = (await this.options.plan?.()) ?? [];
    } catch (error) {
      this.showError(error);
      return;
    }
    this.ask();
  }

  ask() {
    const { warning, fields = [{ name: "reason", label: "Reason", hint: "For the audit trail; may stay empty." }] } =
      this.options;
    const effect = typeof warning === "function" ? warning(this.plan) : warning;
    this.inputs = (typeof fields === "function" ? fields(this.plan) : fields).map((field) => inputOf(field));
    this.body.replaceChildren(
      ...[
        effect ? h("p", { class: "helm-notice" }, icon("triangle-alert"), h("span", { class: "helm-notice__text" }, effect)) : "",
        this.plan.length
          ? h(
              "ol",
              { class: "helm-steps" },
              this.plan.map((step) =>
                h(
                  "li",
                  { class: "helm-steps__item" },
                  typeof step === "string"
                    ? step
                    : [h("span", { class: "helm-steps__name" }, step.service), h("span", {}, step.action)],
                ),
              ),
            )
          : "",
        ...this.inputs.map(({ row }) => row),
      ].filter(Boolean),
    );
    const label = this.options.confirm ?? "Do it";
    this.foot.replaceChildren(
      ...(this.options.alternatives ?? []).map(([other, act]) =>
        h("button", { class: "helm-button", type: "button", onclick: () => (this.dialog.close(), act()) }, other),
      ),
      h("button", { class: "helm-button", type: "button", onclick: () => this.dialog.close() }, "Cancel"),
      h(
        "button",
        { class: `helm-button ${this.options.danger ? "helm-button--danger" : "helm-button--primary"}`, type: "submit" },
        label,
      ),
    );
    (this.inputs.find(({ field }) => field.required)?.input ?? this.foot.lastElementChild).focus();
  }

  async submit(event) {
    event.preventDefault();
    const button = event.submitter;
    if (!button || button.disabled) {
      return;
    }
    button.disabled = true;
    const values = Object.fromEntries(this.inputs.map(({ field, value }) => [field.name, value()]));
    try {
      const reply = await this.options.submit(values);
      if (reply?.job?.id) {
        await this.follow(reply.job);
      } else {
        this.end("ok", this.options.ended?.(reply) ?? reply?.message ?? "Done.", reply);
      }
    } catch (error) {
      // The form stays where its values can be sent again: corrected, after a login, or when the service is available.
      const keepForm = error instanceof Problem && (error.errors.length > 0 || (this.inputs.length > 0 && RETRYABLE.has(error.status)));
      this.showError(error, keepForm);
      if (keepForm) {
        button.disabled = false;
        // It lost the focus when it was disabled.
        if (this.dialog.open && !this.form.contains(document.activeElement)) {
          button.focus();
        }
      }
    }
  }

  async follow(job) {
    this.steps = h("ol", { class: "helm-steps", "aria-live": "polite" });
    this.lines = h("pre", { class: "helm-output", tabindex: "0", hidden: !this.options.log });
    this.body.replaceChildren(
      this.steps,
      this.lines,
      h("p", { class: "helm-note" }, "This goes on when the window is closed. ", h("code", { class: "helm-code" }, `helmctl jobs log ${job.id}`)),
    );
    this.buttons([
      ["Cancel the job", () => this.cancel(job.id)],
      ["Close", () => this.dialog.close()],
    ]);
    const stop = this.options.log ? this.followLog(job.id) : () => {};
    const last = await followJob(job, (now) => this.showSteps(now));
    stop();
    this.showSteps(last);
    this.endJob(last);
  }

  followLog(id) {
    const control = new AbortController();
    const read = async () => {
      for await (const { event, data } of eventsUntilEnd(`${HOME}api/jobs/${id}/log`, control.signal)) {
        if (event === "log") {
          const atEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 24;
          this.lines.append(`${printableText(JSON.parse(data).text)}\n`);
          while (this.lines.childNodes.length > 2000) {
            this.lines.firstChild.remove();
          }
          if (atEnd) {
            this.lines.scrollTop = this.lines.scrollHeight;
          }
        }
      }
    };
    read().catch(() => {});
    return () => setTimeout(() => control.abort(), 1500);
  }

  showSteps(job) {
    this.steps.replaceChildren(
      ...latestSteps(job.steps).map((step) => {
        const [tone, glyph] = GLYPHS[step.kind] ?? GLYPHS.in_progress;
        const seconds = step.seconds >= 0.1 ? h("span", { class: "helm-steps__time" }, `${step.seconds.toFixed(1)} s`) : null;
        return h(
          "li",
          { class: "helm-steps__item" },
          h("span", { class: `helm-state helm-state--${tone}` }, icon(glyph)),
          h("span", { class: "helm-steps__name" }, step.service),
          h("span", { class: "helm-steps__text" }, step.sentence, step.lines.length ? outputOf(step.lines) : null),
          seconds,
        );
      }),
    );
    if (!job.steps.length) {
      this.steps.append(h("li", { class: "helm-steps__item" }, job.state === "queued" ? "Waits for another job." : "Begins."));
    }
  }

  async cancel(id) {
    try {
      await api("POST", `api/jobs/${id}/cancel`, {});
    } catch (error) {
      toast(`${error.message}. ${error.hint ?? ""}`, { tone: "error", glyph: "circle-x" });
    }
  }

  endJob(job) {
    const succeeded = job.state === "succeeded";
    const seconds = job.ended_at && job.started_at ? (new Date(job.ended_at) - new Date(job.started_at)) / 1000 : 0;
    const sentence = succeeded
      ? (this.options.ended?.(job) ?? `The ${job.kind} of ${job.target} has succeeded`)
      : job.result?.detail || `The ${job.kind} of ${job.target} has ${job.state === "failed" ? "failed" : `been ${job.state}`}`;
    const text = `${sentence[0].toUpperCase()}${sentence.slice(1).replace(/\.$/, "")}${succeeded && seconds >= 1 ? `, in ${duration(seconds)}` : ""}.`;
    this.end(succeeded ? "ok" : "error", text, job, succeeded ? "" : (job.result?.hint ?? ""), succeeded ? [] : (job.result?.lines ?? []));
  }

  end(tone, text, reply, hint = "", lines = []) {
    this.result = reply;
    const undo = this.options.undo;
    const canUndo = tone === "ok" && undo && typeof undo === "object";
    if (this.closed) {
      toast(hint ? `${text} ${hint}` : text, {
        tone,
        glyph: tone === "ok" ? "circle-check" : "circle-x",
        stays: tone !== "ok",
        actions: canUndo ? [[undo.label ?? "Undo", () => runAction(undo)]] : [],
      });
      return;
    }
    this.lines?.previousElementSibling?.parentElement.querySelector(".helm-note")?.remove();
    const end = [
      h(
        "p",
        { class: `helm-ending helm-ending--${tone}`, role: tone === "ok" ? "status" : "alert" },
        icon(tone === "ok" ? "circle-check" : "circle-x"),
        h("span", { class: "helm-ending__text" }, text),
      ),
      hint ? h("p", { class: "helm-note helm-note--hint" }, hint) : "",
      lines.length ? outputOf(lines) : "",
      tone === "ok" && typeof undo === "string" ? h("p", { class: "helm-note" }, undo) : "",
    ].filter(Boolean);
    if (this.steps) {
      this.body.append(...end);
    } else {
      this.body.replaceChildren(...end);
    }
    this.buttons([
      ...(tone === "error" && this.options.retry ? [["Try again", () => (this.dialog.close(), this.options.retry())]] : []),
      ...(canUndo ? [[undo.label ?? "Undo", () => (this.dialog.close(), runAction(undo, this.restoreFocus))]] : []),
      ["Close", () => this.dialog.close(), true],
    ]);
  }

  showError(error, keepForm = false) {
    if (error.name === "AbortError") {
      return;
    }
    const message = h(
      "div",
      { class: "helm-refusal", role: "alert" },
      h("p", { class: "helm-ending helm-ending--error" }, icon("circle-x"), h("span", { class: "helm-ending__text" }, `${error.message.replace(/\.$/, "")}.`)),
      (error.errors ?? []).map((each) => h("p", { class: "helm-note" }, `${each.pointer}: ${each.detail}`)),
      error.hint ? h("p", { class: "helm-note helm-note--hint" }, error.hint) : null,
      error.lines?.length ? outputOf(error.lines) : null,
      // Behind the gateway, the login is the gateway's; the hint has its place.
      error.code === "login_needed" && document.body.classList.contains("helm--direct")
        ? h("a", { class: "helm-button", href: `${HOME}login?fresh=1&next=${encodeURIComponent(location.pathname + location.search)}` }, "Log in again")
        : null,
    );
    if (this.closed) {
      toast(`${error.message}. ${error.hint ?? ""}`, { tone: "error", glyph: "circle-x", stays: true });
    } else if (keepForm) {
      this.body.querySelector(".helm-refusal")?.remove();
      this.body.append(message);
    } else {
      this.body.replaceChildren(message);
      this.buttons([["Close", () => this.dialog.close(), true]]);
    }
  }

  buttons(list) {
    this.foot.replaceChildren(
      ...list.map(([label, act, focus]) => h("button", { class: "helm-button", type: "button", onclick: act, autofocus: focus }, label)),
    );
    if (list.at(-1)[2]) {
      this.foot.lastElementChild.focus();
    }
  }

  close() {
    this.closed = true;
    this.dialog.remove();
    if (!document.querySelector("dialog[open]")) {
      this.restoreFocus();
    }
    this.resolve(this.result);
  }
}

const outputOf = (lines) => h("pre", { class: "helm-output", tabindex: "0" }, lines.join("\n"));

function latestSteps(steps) {
  return [...new Map(steps.map((step) => [step.service, step])).values()];
}

function inputOf(field) {
  const id = `helm-field-${field.name}`;
  const common = { id, name: field.name, required: field.required, "aria-describedby": field.hint ? `${id}-hint` : null };
  let input;
  if (field.type === "select") {
    input = h(
      "select",
      { class: "helm-input", ...common },
      field.options.map(([value, label]) => h("option", { value, selected: value === field.value }, label)),
    );
  } else if (field.type === "checkbox") {
    input = h("input", { class: "helm-check", type: "checkbox", checked: field.value, ...common });
  } else if (field.type === "textarea") {
    input = h("textarea", { class: "helm-input", rows: "4", spellcheck: "false", ...common }, field.value ?? "");
  } else {
    const limits = { maxlength: field.maxlength ?? 500, pattern: field.pattern, placeholder: field.placeholder };
    input = h("input", { class: "helm-input", type: field.type ?? "text", value: field.value, autocomplete: "off", ...limits, ...common });
  }
  const checks = field.type === "checkbox";
  const label = h("label", { class: "helm-field__label", for: id }, field.label);
  const row = h(
    "div",
    { class: `helm-field${checks ? " helm-field--check" : ""}` },
    ...(checks ? [input, label] : [label, input]),
    field.hint ? h("span", { class: "helm-field__hint", id: `${id}-hint` }, field.hint) : null,
  );
  return { field, input, row, value: () => (field.type === "checkbox" ? input.checked : input.value) };
}

/** Follows a job; `onChange` is called with each of its states. Resolves to the job when it has ended. */
export function followJob(job, onChange = () => {}) {
  return new Promise((resolve) => {
    let timer = 0;
    let ended = false;
    let unsubscribe = () => {};
    const update = (now) => {
      if (ended) {
        return;
      }
      onChange(now);
      if (ENDED.has(now.state)) {
        ended = true;
        clearTimeout(timer);
        unsubscribe();
        resolve(now);
      }
    };
    unsubscribe = subscribe("jobs", ({ jobs }) => jobs.filter((each) => each.id === job.id).forEach(update));
    if (ended) {
      // `subscribe` called the listener with a known state, before it returned.
      return void unsubscribe();
    }
    // Polls as well: the stream may be interrupted, and reports changes only once a second.
    const poll = async () => {
      try {
        update(await api("GET", `api/jobs/${job.id}`));
      } catch {
        // Retried below.
      }
      if (!ended) {
        timer = setTimeout(poll, 1000);
      }
    };
    if (ENDED.has(job.state)) {
      queueMicrotask(() => update(job));
    } else {
      onChange(job);
      timer = setTimeout(poll, 300);
    }
  });
}

const joinNames = (names) =>
  names.length < 4 ? names.join(", ").replace(/, ([^,]*)$/, " and $1") : `${names.length} services`;

/** Runs the action that starts, stops, restarts or reloads services; ["all"] stands for all of them. */
export const serviceAction = (verb, names) => runAction(serviceOptions(verb, names));

function serviceOptions(verb, names, isUndo = false) {
  const [label, done] = VERBS[verb];
  const what = names.includes("all") ? "all services" : joinNames(names);
  const body = { action: verb, services: names, confirm: true };
  let effect = "";
  let undo = isUndo ? null : "There is no undo: only the processes are new.";
  if (OPPOSITE[verb] && !isUndo) {
    undo = { ...serviceOptions(OPPOSITE[verb], names, true), label: `Undo: ${VERBS[OPPOSITE[verb]][0].toLowerCase()}` };
  }
  return {
    title: `${label} ${what}${isUndo ? " again" : ""}`,
    confirm: label,
    danger: verb === "stop",
    plan: async () => {
      const reply = await api("POST", "api/services/actions", { ...body, dry_run: true });
      effect = reply.effect ?? "";
      return reply.plan;
    },
    warning: () => effect,
    submit: ({ reason }) => api("POST", "api/services/actions", { ...body, reason }),
    ended: () => `${what} ${names.length > 1 || names[0] === "all" ? "have" : "has"} been ${done}`,
    undo,
  };
}

/**
 * Runs the action of a button with data-action. "service" has data-verb and data-services. "request" has data-method,
 * data-url, data-body (JSON), data-title, data-confirm, data-danger, data-warning, data-plan (lines), data-ended,
 * data-undo (why there is none) and data-log. Any other value is dispatched as the event helm:action, for the page's
 * own script.
 */
export function start(button) {
  const options = button.dataset;
  if (options.action === "service") {
    return serviceAction(options.verb, options.services.split(" ").filter(Boolean));
  }
  if (options.action === "request") {
    return runAction({
      title: options.title || button.textContent.trim(),
      confirm: options.confirm || button.textContent.trim(),
      danger: "danger" in options,
      warning: options.warning,
      plan: async () => (options.plan ? options.plan.split("\n") : []),
      fields: [],
      log: "log" in options,
      submit: () => api(options.method || "POST", options.url.replace(HOME, ""), options.body ? JSON.parse(options.body) : {}),
      ended: options.ended ? () => options.ended : undefined,
      undo: options.undo ?? null,
    });
  }
  button.dispatchEvent(new CustomEvent("helm:action", { bubbles: true, detail: options.action }));
  return null;
}
