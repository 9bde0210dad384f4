// The page of modules: installing and changing them. A job fetches and checks first and says the plan; another one does it.
import { followJob, runAction } from "./action.js";
import { Problem, api } from "./api.js";
import { HOME } from "./dom.js";
import { refresh } from "./live.js";
import { events } from "./sse.js";

/** What a job that has ended has printed. */
async function linesOf(id) {
  const lines = [];
  for await (const { event, data } of events(`${HOME}api/jobs/${id}/log`)) {
    if (event === "log") {
      lines.push(JSON.parse(data).text);
    } else if (event === "end") {
      break;
    }
  }
  return lines;
}

async function planOf(body, url = "api/modules/install") {
  const { job } = await api("POST", url, { ...body, dry_run: true });
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

/** What each button of a module does, by `data-change`. */
const CHANGES = {
  update: (name, url) => ({
    title: `Update ${name}`,
    confirm: "Update",
    log: true,
    plan: () => planOf({}, `${url}/update`),
    warning: `While ${name} is stopped, its pages are not answered. If anything fails, the version before serves again, with its data.`,
    submit: ({ reason }) => api("POST", `${url}/update`, { reason }),
    ended: () => `${name} is updated`,
  }),
  rollback: (name, url) => ({
    title: `Roll ${name} back`,
    confirm: "Roll back",
    danger: true,
    log: true,
    plan: async () => [`${name} goes back to the version that served before.`],
    fields: [DATA, REASON],
    submit: ({ data, reason }) => api("POST", `${url}/rollback`, { with_data: data === "back", reason }),
    ended: () => `${name} is rolled back`,
  }),
  hold: (name, url) => ({
    title: `Hold ${name}`,
    confirm: "Hold",
    plan: async () => [`${name} is not updated until it is let go.`],
    submit: ({ reason }) => api("POST", `${url}/hold`, { held: true, reason }),
    ended: () => `${name} is held`,
  }),
  unhold: (name, url) => ({
    title: `Let ${name} go`,
    confirm: "Let go",
    plan: async () => [`${name} can be updated again.`],
    submit: ({ reason }) => api("POST", `${url}/hold`, { held: false, reason }),
    ended: () => `${name} can be updated`,
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
  }),
};

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-change]");
  if (button && !button.disabled) {
    const { change, name } = button.dataset;
    runAction(CHANGES[change](name, `api/modules/${name}`)).then(() => {
      refresh("modules");
      refresh("available");
    });
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
