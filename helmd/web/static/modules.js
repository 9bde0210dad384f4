// The page of modules: installs and changes them. One job fetches and checks a repository and makes the plan, another
// one executes it.
import { followJob, runAction } from "./action.js";
import { Problem, api } from "./api.js";
import { HOME } from "./dom.js";
import { relative } from "./format.js";
import { refresh } from "./live.js";
import { eventsUntilEnd } from "./sse.js";

/** Resolves to the lines of a job's log, when the job has ended. */
async function logOf(id) {
  const lines = [];
  for await (const { event, data } of eventsUntilEnd(`${HOME}api/jobs/${id}/log`)) {
    if (event === "log") {
      lines.push(JSON.parse(data).text);
    }
  }
  return lines;
}

async function planOf(body) {
  const { job } = await api("POST", "api/modules/install", { ...body, dry_run: true });
  const ended = await followJob(job);
  if (ended.state !== "succeeded") {
    const { detail, hint, lines, code } = ended.result;
    throw new Problem(409, { detail, hint, lines, code });
  }
  return logOf(job.id);
}

function install(body) {
  const what = body.name || body.source;
  return runAction({
    title: `Install ${what}`,
    confirm: "Install",
    log: true,
    plan: () => planOf(body),
    warning: "It runs as a service of the suite: install what you trust. Other services go on meanwhile.",
    submit: ({ reason }) => api("POST", "api/modules/install", { ...body, reason }),
    ended: () => `${what} is installed and healthy`,
    undo: "To undo this, remove it: its database and its files go with it.",
  }).then(() => {
    refresh("modules");
    refresh("available");
  });
}

async function ask() {
  let body = null;
  await runAction({
    title: "Install from git",
    confirm: "Show the plan",
    plan: async () => ["The repository is fetched and checked. What would be done is shown before anything is."],
    undo: null,
    fields: [
      { name: "source", label: "Repository", required: true, maxlength: 2000, placeholder: "https://git.example.org/suite/module.git" },
      { name: "ref", label: "Branch, tag or commit", maxlength: 250, hint: "Empty for the default branch." },
      { name: "name", label: "Name of the service", maxlength: 50, hint: "Empty: by the URL." },
    ],
    submit: async (values) => {
      body = values;
      document.querySelector("dialog[open]")?.close();
    },
  });
  if (body) {
    await install(body);
  }
}

const REASON = { name: "reason", label: "Reason", hint: "For the audit trail; may stay empty." };
const DATA = {
  name: "data",
  label: "Data",
  type: "select",
  value: "keep",
  options: [
    ["keep", "Keep the data as it is now"],
    ["back", "Go back to the data from when that version ended to serve"],
  ],
};

/** The age to which a plan is used without fetching the repository again. */
const MAX_PLAN_AGE_MS = 10 * 60_000;

/** Runs the job that plans an update. Resolves to the job as it ended, and its result as a Problem. */
async function runPlan(url, ref) {
  const ended = await followJob((await api("POST", `${url}/plan`, { ref })).job);
  const { detail, hint, lines, code } = ended.result ?? {};
  const problem = new Problem(409, { detail: detail || "the plan could not be made", hint, lines, code });
  return { ended, problem };
}

/**
 * Resolves to the plan of an update to `ref`, which is made again if it is old. Where that fails, it is the old plan,
 * with the reason in `stale`. Throws Problem without a plan.
 */
async function updatePlan(url, ref) {
  const plan = `${url}/plan?${new URLSearchParams({ ref })}`;
  const known = await api("GET", plan);
  if (known.plan && !known.stale && Date.now() - Date.parse(known.made_at) < MAX_PLAN_AGE_MS) {
    return known;
  }
  const { ended, problem } = await runPlan(url, ref);
  const now = await api("GET", plan);
  if (!now.plan || (ended.state !== "succeeded" && !now.trouble)) {
    throw problem;
  }
  return now;
}

const DISCARD = {
  name: "discard",
  label: "Leave changed files behind",
  type: "checkbox",
  value: false,
  hint: "They stay with the version before; the new one is as its repository has it.",
};

/** The options of the update of a module: to what it follows, or to a branch, tag or commit, which it then follows. */
function update(name, url, ref = "") {
  let known = null;
  return {
    title: ref ? `Update ${name} to ${ref}` : `Update ${name}`,
    confirm: "Update",
    log: true,
    plan: async () => {
      known = await updatePlan(url, ref);
      const follows = ref ? [`${name} follows ${ref} from then on.`] : [];
      return [...known.text.map((line) => line.trim()), ...follows];
    },
    warning: () =>
      known.stale
        ? `This plan is from ${relative(Date.parse(known.made_at))}. ${known.stale}`
        : known.plan.obstacles[0] ||
          `While ${name} is stopped, its pages are not answered. If anything fails, the version before serves again, with its data.`,
    alternatives: [
      ["Hold it instead", () => change("hold", name)],
      ["Another version", () => askVersion(name, url)],
    ],
    fields: () => (known.plan.obstacles.some((each) => each.includes("--discard-changes")) ? [DISCARD, REASON] : [REASON]),
    submit: ({ discard, reason }) =>
      api("POST", `${url}/update`, { reason, ref, discard_changes: discard === true, planned: known.plan.after }),
    ended: () => `${name} is updated`,
    undo: { ...CHANGES.rollback(name, url), label: "Undo: roll back" },
  };
}

/** The options of each action on a module, by `data-change` of its button. */
const CHANGES = {
  update,
  rollback: (name, url) => ({
    title: `Roll ${name} back`,
    confirm: "Roll back",
    danger: true,
    log: true,
    plan: async () => [`${name} goes back to the version that served before.`],
    fields: [DATA, REASON],
    submit: ({ data, reason }) => api("POST", `${url}/rollback`, { with_data: data === "back", reason }),
    ended: () => `${name} is rolled back`,
    undo: "To undo this, update it again. Data that was restored stays as it is.",
  }),
  hold: (name, url, isUndo = false) => ({
    title: `Hold ${name}`,
    confirm: "Hold",
    plan: async () => [`${name} is not updated until it is unheld.`],
    submit: ({ reason }) => api("POST", `${url}/hold`, { held: true, reason }),
    ended: () => `${name} is held`,
    undo: isUndo ? null : { ...CHANGES.unhold(name, url, true), label: "Undo" },
  }),
  unhold: (name, url, isUndo = false) => ({
    title: `Unhold ${name}`,
    confirm: "Unhold",
    plan: async () => [`${name} can be updated again.`],
    submit: ({ reason }) => api("POST", `${url}/hold`, { held: false, reason }),
    ended: () => `${name} can be updated`,
    undo: isUndo ? null : { ...CHANGES.hold(name, url, true), label: "Undo" },
  }),
  remove: (name, url) => ({
    title: `Remove ${name}`,
    confirm: "Remove",
    danger: true,
    log: true,
    plan: async () => [`${name} is stopped and taken out of the suite, with its versions, its database and its files.`],
    warning: "Its data can only be restored from a backup.",
    submit: ({ reason }) => api("DELETE", url, { reason }),
    ended: () => `${name} is removed`,
    undo: "It can be installed again; its data comes from a backup alone.",
  }),
};

/** Asks for a branch, tag or commit, then runs the action that updates to it. */
async function askVersion(name, url) {
  let ref = "";
  await runAction({
    title: `Another version of ${name}`,
    confirm: "Show the plan",
    plan: async () => ["The repository is fetched and checked. What would be done is shown before anything is."],
    undo: null,
    fields: [{ name: "ref", label: "Branch, tag or commit", required: true, maxlength: 250 }],
    submit: async (values) => {
      ref = values.ref.trim();
      document.querySelector("dialog[open]")?.close();
    },
  });
  if (ref) {
    await act(update(name, url, ref));
  }
}

function act(options) {
  return runAction(options).then(() => {
    refresh("modules");
    refresh("available");
  });
}

const change = (what, name) => act(CHANGES[what](name, `api/modules/${name}`));

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-change]");
  if (button && !button.disabled) {
    change(button.dataset.change, button.dataset.name);
  }
});

document.addEventListener("click", (event) => {
  if (event.target.closest?.("[data-check]:enabled")) {
    runAction({
      title: "Check for updates",
      confirm: "Check",
      log: true,
      plan: async () => ["The repository of each module is fetched. Nothing is changed."],
      fields: [],
      submit: () => api("POST", "api/module-checks", {}),
      ended: () => "The modules were looked at",
      undo: "There is nothing to undo: only what is known of updates is new.",
    }).then(() => refresh("modules"));
  }
});

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-install]");
  if (button && !button.disabled) {
    const name = button.dataset.install;
    if (name) {
      install({ source: name });
    } else {
      ask();
    }
  }
});
