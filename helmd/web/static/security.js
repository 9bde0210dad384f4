// The page of security: findings, which can be accepted, ports, and the firewall's script.
import { runAction } from "./action.js";
import { api } from "./api.js";
import { h, toast } from "./dom.js";
import { day } from "./format.js";
import { refresh } from "./live.js";

const DAY_MS = 86400000;
const limits = document.querySelector("[data-audit]").dataset;
const path = (id) => `api/security/findings/${encodeURIComponent(id)}/accept`;
const dateText = (at) => new Date(at).toISOString().slice(0, 10);

function refreshBoth() {
  refresh("audit");
  refresh("firewall");
}

/** The options of the action that withdraws an acceptance. */
const withdrawal = (id, sentence, label = "Withdraw") => ({
  label,
  title: "Withdraw the acceptance",
  confirm: "Withdraw",
  plan: async () => [`This counts again: ${sentence}`],
  fields: [],
  submit: async () => {
    const ended = await api("DELETE", path(id));
    refreshBoth();
    return ended;
  },
  ended: () => `Counts again: ${sentence}.`,
  undo: label === "Undo" ? null : "To undo this, accept it again, with a reason and a date.",
});

function accept(id, sentence) {
  const latest = dateText(Date.now() + (Number(limits.longestDays) - 1) * DAY_MS);
  return runAction({
    title: "Accept this finding",
    confirm: "Accept",
    plan: async () => [
      sentence,
      "It does not count until the date that you choose. Then, or once it is more severe, it is among the findings again.",
    ],
    fields: [
      { name: "reason", label: "Reason", required: true, maxlength: limits.longestReason, hint: "Shown with the finding, and in the audit trail." },
      { name: "until", label: "Until", type: "date", required: true, value: dateText(Date.now() + 30 * DAY_MS), hint: `At most until ${day(new Date(latest))}.` },
    ],
    submit: async ({ reason, until }) => {
      const made = await api("POST", path(id), { reason, until: new Date(`${until}T00:00:00`).toISOString() });
      refreshBoth();
      return made;
    },
    ended: (made) => `Accepted until ${day(new Date(made.until))}: ${sentence}.`,
    undo: withdrawal(id, sentence, "Undo"),
  });
}

let shownPorts = "all";

function showPorts() {
  for (const each of document.querySelectorAll("[data-ports]")) {
    each.setAttribute("aria-pressed", String(each.dataset.ports === shownPorts));
  }
  const box = document.querySelector("[data-table-box]");
  if (box) {
    box.dataset.showPorts = shownPorts;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button");
  if (!button) {
    return;
  }
  const finding = button.closest("[data-finding]");
  const sentence = finding?.querySelector("[data-sentence]").textContent;
  if ("accept" in button.dataset) {
    accept(finding.dataset.finding, sentence);
  } else if ("withdraw" in button.dataset) {
    runAction(withdrawal(finding.dataset.finding, sentence));
  } else if ("checkAgain" in button.dataset) {
    button.disabled = true;
    api("GET", "api/security/audit?max_age=0").then(refreshBoth, (problem) => {
      button.disabled = false;
      toast(`${problem.message}. ${problem.hint}`, { tone: "error", glyph: "circle-x", stays: true });
    });
    refresh("audit");
  } else if (button.dataset.ports) {
    shownPorts = button.dataset.ports;
    showPorts();
  } else if ("download" in button.dataset) {
    const url = URL.createObjectURL(new Blob([script.script], { type: "text/x-shellscript" }));
    h("a", { href: url, download: script.filename }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
});

// The firewall's script.

const firewall = document.querySelector("[data-firewall]");
const firewallForm = firewall.querySelector("[data-firewall-form]");
const scriptText = firewall.querySelector("[data-script]");
const fault = firewall.querySelector("[data-firewall-fault]");
const NONE = { filename: "", script: "" };
let script = NONE;
let generation = 0;
let timer = 0;

const words = (name) =>
  String(new FormData(firewallForm).get(name) ?? "")
    .split(",")
    .map((word) => word.trim())
    .filter(Boolean);
/** Quotes a word for a shell, if necessary. */
const quoted = (word) => (/^[\w.:/-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function showCommand() {
  const kind = new FormData(firewallForm).get("type");
  const options = [
    ...words("open").map((word) => ` --open ${quoted(word)}`),
    ...words("allow_from").map((word) => ` --allow-from ${quoted(word)}`),
  ];
  const command = `sudo helmctl security apply ${kind}${options.join("")}`;
  firewall.querySelector("[data-apply]").textContent = command;
  firewall.querySelector("[data-copy-apply]").dataset.copy = command;
}

/** Shows the script that was made for the form, or none with what is wrong. */
function showScript(made, wrong = "") {
  script = made;
  fault.textContent = wrong;
  scriptText.textContent = made.script;
  firewall.querySelector("[data-filename]").textContent = made.filename;
  firewall.querySelector("[data-download]").disabled = !made.script;
}

async function load() {
  const current = ++generation;
  showCommand();
  const query = new URLSearchParams({ type: new FormData(firewallForm).get("type") });
  for (const name of ["open", "allow_from"]) {
    if (words(name).length) {
      query.set(name, words(name).join(","));
    }
  }
  try {
    const made = await api("GET", `api/security/firewall-script?${query}`);
    if (current === generation) {
      showScript(made);
    }
  } catch (problem) {
    if (current === generation) {
      showScript(NONE, `${problem.message}. ${problem.hint}`);
    }
  }
}

firewallForm.addEventListener("submit", (event) => event.preventDefault());
firewallForm.addEventListener("change", load);
firewallForm.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(load, 300);
});
load();

// New markup lacks the chosen filter of ports.
document.addEventListener("helm:part", showPorts);
if (location.hash) {
  document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
}
