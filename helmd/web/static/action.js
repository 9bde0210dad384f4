// What changes something: a dialog says what will be done and to whom, then how it goes, then how it ended.
import { Problem, api } from "./api.js";
import { HOME, h, saveFocus, icon, printableText, toast } from "./dom.js";
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
const WORDS = {
  start: ["Start", "started"],
  stop: ["Stop", "stopped"],
  restart: ["Restart", "restarted"],
  reload: ["Reload", "reloaded"],
};
/**
 * What may be otherwise when it is sent again: no answer, no session, a conflict (a name that is taken), away for now.
 */
const AGAIN = new Set([0, 401, 409, 502, 503, 504]);
const OPPOSITE = { start: "stop", stop: "start" };

/**
 * The whole of an action: plan, question, job, end. Resolves with the job or the reply, null where it was not done.
 *
 *   title      "Restart codex"
 *   plan       async () => [{service, action} | text]: what will be done; may throw Problem
 *   warning    a sentence about whom it touches, or a function of the plan
 *   fields     [{name, label, type, value, required, hint, options}], or a function of the plan: what is asked; "reason"
 *              by default
 *   confirm    the label of the button; `danger` makes it red
 *   submit     async (values) => reply; a reply with `job` is followed
 *   ended      (reply) => the sentence at the end
 *   undo       options of the action that takes it back, or a sentence why there is none
 *   log        true: the job's lines are shown while it runs
 *   again      what begins it again where its job has failed: a button then
 *   instead    [[label, act]]: what else can be done, with the dialog closed
 *
 * At the end `restoreFocus` gives the focus back to what opened the dialog.
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
      this.refused(error);
      return;
    }
    this.ask();
  }

  ask() {
    const { warning, fields = [{ name: "reason", label: "Reason", hint: "For the audit trail; may stay empty." }] } =
      this.options;
    const said = typeof warning === "function" ? warning(this.plan) : warning;
    this.inputs = (typeof fields === "function" ? fields(this.plan) : fields).map((field) => inputOf(field));
    this.body.replaceChildren(
      ...[
        said ? h("p", { class: "helm-notice" }, icon("triangle-alert"), h("span", { class: "helm-notice__text" }, said)) : "",
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
      ...(this.options.instead ?? []).map(([other, act]) =>
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
      // What was written can be sent again: corrected, after another login, or once Helm or Keycloak answers.
      const keeps = error instanceof Problem && (error.errors.length > 0 || (this.inputs.length > 0 && AGAIN.has(error.status)));
      this.refused(error, keeps);
      if (keeps) {
        button.disabled = false;
        // A button that is disabled loses the focus.
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
      ...lastOfEach(job.steps).map((step) => {
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
    const works = job.state === "succeeded";
    const took = job.ended_at && job.started_at ? (new Date(job.ended_at) - new Date(job.started_at)) / 1000 : 0;
    const sentence = works
      ? (this.options.ended?.(job) ?? `The ${job.kind} of ${job.target} has succeeded`)
      : job.result?.detail || `The ${job.kind} of ${job.target} has ${job.state === "failed" ? "failed" : `been ${job.state}`}`;
    const text = `${sentence[0].toUpperCase()}${sentence.slice(1).replace(/\.$/, "")}${works && took >= 1 ? `, in ${duration(took)}` : ""}.`;
    this.end(works ? "ok" : "error", text, job, works ? "" : (job.result?.hint ?? ""), works ? [] : (job.result?.lines ?? []));
  }

  end(tone, text, reply, hint = "", lines = []) {
    this.result = reply;
    const undo = this.options.undo;
    const takesBack = tone === "ok" && undo && typeof undo === "object";
    if (this.closed) {
      toast(hint ? `${text} ${hint}` : text, {
        tone,
        glyph: tone === "ok" ? "circle-check" : "circle-x",
        stays: tone !== "ok",
        actions: takesBack ? [[undo.label ?? "Undo", () => runAction(undo)]] : [],
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
      ...(tone === "error" && this.options.again ? [["Try again", () => (this.dialog.close(), this.options.again())]] : []),
      ...(takesBack ? [[undo.label ?? "Undo", () => (this.dialog.close(), runAction(undo, this.restoreFocus))]] : []),
      ["Close", () => this.dialog.close(), true],
    ]);
  }

  refused(error, keeps = false) {
    if (error.name === "AbortError") {
      return;
    }
    const said = h(
      "div",
      { class: "helm-refusal", role: "alert" },
      h("p", { class: "helm-ending helm-ending--error" }, icon("circle-x"), h("span", { class: "helm-ending__text" }, `${error.message.replace(/\.$/, "")}.`)),
      (error.errors ?? []).map((each) => h("p", { class: "helm-note" }, `${each.pointer}: ${each.detail}`)),
      error.hint ? h("p", { class: "helm-note helm-note--hint" }, error.hint) : null,
      error.lines?.length ? outputOf(error.lines) : null,
      // Behind the gateway there is no login of Helm's own; the hint says where it is.
      error.code === "login_needed" && document.body.classList.contains("helm--direct")
        ? h("a", { class: "helm-button", href: `${HOME}login?fresh=1&next=${encodeURIComponent(location.pathname + location.search)}` }, "Log in again")
        : null,
    );
    if (this.closed) {
      toast(`${error.message}. ${error.hint ?? ""}`, { tone: "error", glyph: "circle-x", stays: true });
    } else if (keeps) {
      this.body.querySelector(".helm-refusal")?.remove();
      this.body.append(said);
    } else {
      this.body.replaceChildren(said);
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

function lastOfEach(steps) {
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

/** Follows a job to its end; `seen` gets it whenever it has changed. Resolves with it as it ended. */
export function followJob(job, seen = () => {}) {
  return new Promise((resolve) => {
    let timer = 0;
    let over = false;
    let stop = () => {};
    const take = (now) => {
      if (over) {
        return;
      }
      seen(now);
      if (ENDED.has(now.state)) {
        over = true;
        clearTimeout(timer);
        stop();
        resolve(now);
      }
    };
    stop = subscribe("jobs", ({ jobs }) => jobs.filter((each) => each.id === job.id).forEach(take));
    if (over) {
      // What is known already comes before there is anything to stop.
      return void stop();
    }
    // Where the stream is away; and at once, since it looks for changes each second.
    const ask = async () => {
      try {
        take(await api("GET", `api/jobs/${job.id}`));
      } catch {
        // It is asked again.
      }
      if (!over) {
        timer = setTimeout(ask, 1000);
      }
    };
    if (ENDED.has(job.state)) {
      queueMicrotask(() => take(job));
    } else {
      seen(job);
      timer = setTimeout(ask, 300);
    }
  });
}

const listed = (names) =>
  names.length < 4 ? names.join(", ").replace(/, ([^,]*)$/, " and $1") : `${names.length} services`;

/** Starts, stops, restarts or reloads services ("all" for every one). */
export const serviceAction = (verb, names) => runAction(serviceOptions(verb, names));

function serviceOptions(verb, names, takesBack = false) {
  const [label, done] = WORDS[verb];
  const what = names.includes("all") ? "all services" : listed(names);
  const body = { action: verb, services: names, confirm: true };
  let effect = "";
  let undo = takesBack ? null : "There is no undo: only the processes are new.";
  if (OPPOSITE[verb] && !takesBack) {
    undo = { ...serviceOptions(OPPOSITE[verb], names, true), label: `Undo: ${WORDS[OPPOSITE[verb]][0].toLowerCase()}` };
  }
  return {
    title: `${label} ${what}${takesBack ? " again" : ""}`,
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
 * What a button with `data-action` does. "service": data-verb, data-services. "request": data-method, data-url,
 * data-body (JSON), data-title, data-confirm, data-danger, data-warning, data-plan (lines), data-ended, data-undo (why
 * none), data-log.
 */
export function start(button) {
  const given = button.dataset;
  if (given.action === "service") {
    return serviceAction(given.verb, given.services.split(" ").filter(Boolean));
  }
  if (given.action === "request") {
    return runAction({
      title: given.title || button.textContent.trim(),
      confirm: given.confirm || button.textContent.trim(),
      danger: "danger" in given,
      warning: given.warning,
      plan: async () => (given.plan ? given.plan.split("\n") : []),
      fields: [],
      log: "log" in given,
      submit: () => api(given.method || "POST", given.url.replace(HOME, ""), given.body ? JSON.parse(given.body) : {}),
      ended: given.ended ? () => given.ended : undefined,
      undo: given.undo ?? null,
    });
  }
  // An action of the page's own script.
  button.dispatchEvent(new CustomEvent("helm:action", { bubbles: true, detail: given.action }));
  return null;
}
