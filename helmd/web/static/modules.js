// The page of modules: installing and changing them. A job fetches and checks first and says the plan; another one does
// it.
import { followJob, runAction } from "./action.js";
import { Problem, api } from "./api.js";
import { HOME } from "./dom.js";
import { relative } from "./format.js";
import { refresh } from "./live.js";
import { eventsUntilEnd } from "./sse.js";

/** What a job that has ended has printed. */
async function linesOf(id) {
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
  return linesOf(job.id);
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
    undo: "To take it back, remove it: its database and its files go with it.",
  }).then(() => {
    refresh("modules");
    refresh("available");
  });
}

async function ask() {
  let given = null;
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
      given = values;
      document.querySelector("dialog[open]")?.close();
    },
  });
  if (given) {
    await install(given);
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

/** For how long a plan is used without looking at the repository again. */
const FRESH_MS = 10 * 60_000;

/** The job that plans an update, as it ended, and what it was refused with. */
async function planned(url, ref) {
  const ended = await followJob((await api("POST", `${url}/plan`, { ref })).job);
  const { detail, hint, lines, code } = ended.result ?? {};
  const problem = new Problem(409, { detail: detail || "the plan could not be made", hint, lines, code });
  return { ended, problem };
}

/** The plan of an update to REF, made again where it is old; one that can't be made again says so in `stale`. */
async function updatePlan(url, ref) {
  const plan = `${url}/plan?${new URLSearchParams({ ref })}`;
  const known = await api("GET", plan);
  if (known.plan && !known.stale && Date.now() - Date.parse(known.made_at) < FRESH_MS) {
    return known;
  }
  const { ended, problem } = await planned(url, ref);
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

/** The update of a module: to what it follows, or to the branch, tag or commit REF, which it follows from then on. */
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
    instead: [
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

/** What each button of a module does, by `data-change`. */
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
    undo: "To take it back, update it again. Data that was put back stays as it is.",
  }),
  hold: (name, url, takesBack = false) => ({
    title: `Hold ${name}`,
    confirm: "Hold",
    plan: async () => [`${name} is not updated until it is let go.`],
    submit: ({ reason }) => api("POST", `${url}/hold`, { held: true, reason }),
    ended: () => `${name} is held`,
    undo: takesBack ? null : { ...CHANGES.unhold(name, url, true), label: "Undo" },
  }),
  unhold: (name, url, takesBack = false) => ({
    title: `Let ${name} go`,
    confirm: "Let go",
    plan: async () => [`${name} can be updated again.`],
    submit: ({ reason }) => api("POST", `${url}/hold`, { held: false, reason }),
    ended: () => `${name} can be updated`,
    undo: takesBack ? null : { ...CHANGES.hold(name, url, true), label: "Undo" },
  }),
  remove: (name, url) => ({
    title: `Remove ${name}`,
    confirm: "Remove",
    danger: true,
    log: true,
    plan: async () => [`${name} is stopped and taken out of the suite, with its versions, its database and its files.`],
    warning: "Its data can't be had back, but from a backup.",
    submit: ({ reason }) => api("DELETE", url, { reason }),
    ended: () => `${name} is removed`,
    undo: "It can be installed again; its data comes from a backup alone.",
  }),
};

/** Asks for a branch, a tag or a commit, then shows the plan of the update to it. */
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
      undo: "There is nothing to take back: only what is known of updates is new.",
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
