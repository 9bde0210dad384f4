// The page of modules: installing one. First a job fetches and checks it and says the plan, then another one installs it.
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
