// The page of users: search while typing, and actions on one or several users.
import { runAction } from "./action.js";
import { Problem, api } from "./api.js";
import { copy, h, icon, toast } from "./dom.js";
import { refresh } from "./live.js";
import "./table.js";

const SEARCH_MS = 250;
const REASON = { name: "reason", label: "Reason", hint: "For the audit trail; may stay empty." };
const GROUPS = JSON.parse(document.querySelector("[data-users-filter]").dataset.groups);
const ADMIN = document.querySelector("[data-admins-note]");
const groupName = (path) => (path.lastIndexOf("/") === 0 ? path.slice(1) : path);
const pathOf = (id, rest = "") => `api/keycloak/users/${encodeURIComponent(id)}${rest}`;

function refreshUsers() {
  refresh("users");
  if (document.querySelector('[data-live-part="user"]')) {
    refresh("user");
  }
}

async function act(options) {
  const reply = await runAction(options);
  if (reply) {
    refreshUsers();
  }
  return reply;
}

// Search.

const filter = document.querySelector("[data-users-filter]");
let timer = 0;

function search() {
  const fields = new FormData(filter);
  const url = new URL(location.href);
  url.searchParams.delete("first");
  for (const name of ["q", "group", "enabled"]) {
    const value = fields.get(name)?.trim() ?? "";
    url.searchParams[value ? "set" : "delete"](name, value);
  }
  if (url.searchParams.has("group")) {
    // Keycloak's API can't filter the members of a group.
    url.searchParams.delete("q");
    url.searchParams.delete("enabled");
  }
  history.replaceState(history.state, "", url);
  const [words, enabled] = [filter.elements.q, filter.elements.enabled];
  words.disabled = enabled.disabled = url.searchParams.has("group");
  refresh("users");
}

for (const kind of ["input", "change"]) {
  filter.addEventListener(kind, () => {
    clearTimeout(timer);
    timer = setTimeout(search, SEARCH_MS);
  });
}
filter.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  search();
});

// One user.

/** Actions on a user that are one request; `back` is the inverse action. */
const SIMPLE = {
  disable: (user) => ({
    title: `Disable ${user.name}`,
    confirm: "Disable",
    danger: true,
    plan: () => [`${user.name} can't log in any more.`, sessionsEnd(user)],
    ended: () => `${user.name} can't log in any more`,
    back: "enable",
  }),
  enable: (user) => ({
    title: `Enable ${user.name}`,
    confirm: "Enable",
    plan: () => [`${user.name} can log in again.`],
    ended: () => `${user.name} can log in`,
    back: "disable",
  }),
  unlock: (user) => ({
    title: `Unlock ${user.name}`,
    confirm: "Unlock",
    plan: () => [`${user.name} can log in again at once; failed logins are counted from 0.`],
    ended: () => `${user.name} is not locked`,
    undo: "A lock is set by failed logins alone; to keep somebody out, disable the account.",
  }),
  logout: (user) => ({
    title: `Log ${user.name} out everywhere`,
    confirm: "Log out",
    danger: true,
    plan: () => [sessionsEnd(user), `${user.name} can log in again.`],
    ended: () => `The sessions of ${user.name} have ended`,
    undo: "Sessions that have ended can't be restored; the user logs in again.",
  }),
};

const sessionsEnd = (user) =>
  user.sessions === undefined
    ? "All sessions end, at Helm and the suite as well."
    : `${user.sessions === 1 ? "1 session ends" : `${user.sessions} sessions end`}, at Helm and the suite as well.`;

function simple(verb, user, isUndo = false) {
  const made = SIMPLE[verb](user);
  return {
    ...made,
    plan: async () => made.plan(),
    fields: [REASON],
    submit: ({ reason }) => api("POST", pathOf(user.id, `/${verb}`), { reason }),
    undo: made.back && !isUndo ? { ...simple(made.back, user, true), label: "Undo" } : (made.undo ?? null),
  };
}

function groupFields(own) {
  return GROUPS.map((path) => ({
    name: `group:${path}`,
    label: `Group ${groupName(path)}`,
    type: "checkbox",
    value: own.includes(groupName(path)),
  }));
}

const chosenGroups = (values) => GROUPS.filter((path) => values[`group:${path}`]);

function groups(user, own) {
  const before = GROUPS.filter((path) => own.includes(groupName(path)));
  const put = (wanted, reason) => api("PUT", pathOf(user.id, "/groups"), { groups: wanted, reason });
  const describe = ({ added, removed }) =>
    [...added.map((name) => `added to ${name}`), ...removed.map((name) => `removed from ${name}`)].join(", ");
  return {
    title: `Groups of ${user.name}`,
    confirm: "Change groups",
    plan: async () => ["Groups decide what somebody may do. A change counts from the next login or token on."],
    fields: [...groupFields(own), REASON],
    submit: (values) => put(chosenGroups(values), values.reason),
    ended: (reply) => (describe(reply) ? `${user.name} was ${describe(reply)}` : "Nothing had to be changed"),
    undo: {
      label: "Undo",
      title: `Groups of ${user.name} as before`,
      confirm: "Undo",
      plan: async () => [`Groups: ${before.map(groupName).join(", ") || "none"}`],
      submit: ({ reason }) => put(before, reason),
      ended: () => `${user.name} is in the groups as before`,
    },
  };
}

function edit(user, { email, first, last, verified }) {
  const was = { email, firstName: first, lastName: last, emailVerified: verified === "true" };
  const put = (values, reason) => api("PUT", pathOf(user.id), { ...values, reason });
  const before = {};
  return {
    title: `Edit ${user.name}`,
    confirm: "Save",
    plan: async () => ["What is changed here is written to Keycloak, and counts from the next login or token on."],
    fields: [
      { name: "email", label: "Email", type: "email", value: email, required: true },
      { name: "firstName", label: "First name", value: first, maxlength: 255 },
      { name: "lastName", label: "Last name", value: last, maxlength: 255 },
      { name: "emailVerified", label: "The email address was verified", type: "checkbox", value: was.emailVerified },
      REASON,
    ],
    submit: ({ reason, ...values }) => {
      const changed = Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== was[name]));
      Object.assign(before, Object.fromEntries(Object.keys(changed).map((name) => [name, was[name]])));
      return put(changed, reason);
    },
    ended: () => `${user.name} was changed`,
    undo: {
      label: "Undo",
      title: `${user.name} as before`,
      confirm: "Undo",
      plan: async () => Object.entries(before).map(([name, value]) => `${name}: ${value === "" ? "empty" : value}`),
      submit: ({ reason }) => put(before, reason),
      ended: () => `${user.name} is as before`,
    },
  };
}

function remove(user) {
  return {
    title: `Delete ${user.name}`,
    confirm: "Delete",
    danger: true,
    warning: "What services keep about this person stays there. To keep somebody out for a while, disable the account.",
    plan: async () => [`The account ${user.name} is removed from Keycloak.`, sessionsEnd(user)],
    fields: [],
    submit: () => api("DELETE", pathOf(user.id)),
    ended: () => `${user.name} was deleted`,
    undo: "A deleted account can't be restored: a new one of that name is another one for all services.",
  };
}

function password(user) {
  return {
    title: `Temporary password for ${user.name}`,
    confirm: "Make a password",
    plan: async () => [
      `The present password of ${user.name} stops working.`,
      "The new one is shown once, here, and must be changed at the next login.",
    ],
    fields: [REASON],
    submit: ({ reason }) => api("POST", pathOf(user.id, "/reset-password"), { generate_password: true, reason }),
    ended: (reply) => withPassword(reply, `${user.name} has a new password`),
    undo: "The password before is not known to anybody but its owner.",
  };
}

/** Shows a generated password, in the open dialog or one of its own; returns `text`. It can't be shown again. */
function withPassword(reply, text) {
  if (reply.password) {
    requestAnimationFrame(() => showPassword(reply.password));
  }
  return text;
}

function showPassword(secret) {
  const box = h(
    "div",
    { class: "helm-secret" },
    h("p", { class: "helm-note" }, "It is stored nowhere: copy it now. It must be changed at the next login."),
    h(
      "span",
      { class: "helm-command" },
      h("code", { class: "helm-code helm-secret__text", "data-secret": "" }, secret),
      h("button", { class: "helm-button", type: "button", onclick: () => copy(secret, "The password was copied") }, icon("copy"), "Copy"),
    ),
  );
  const body = [...document.querySelectorAll("dialog[open] .helm-dialog__body")].at(-1);
  if (body) {
    body.append(box);
    return;
  }
  const close = h("button", { class: "helm-button", type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { class: "helm-dialog", "aria-label": "Password", onclose: () => dialog.remove() }, h("div", { class: "helm-dialog__form" }, h("div", { class: "helm-dialog__body" }, box), h("div", { class: "helm-dialog__do" }, close)));
  document.querySelector(".helm-frame").append(dialog);
  dialog.showModal();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-user-do]");
  const panel = button?.closest("[data-user]");
  if (!panel || button.disabled) {
    return;
  }
  const options = button.dataset;
  const user = { id: panel.dataset.user, name: panel.dataset.username };
  if (options.sessions !== undefined) {
    user.sessions = Number(options.sessions);
  }
  const verb = options.userDo;
  if (verb === "groups") {
    await act(groups(user, JSON.parse(options.groups)));
  } else if (verb === "edit") {
    await act(edit(user, options));
  } else if (verb === "password") {
    await act(password(user));
  } else if (verb === "delete") {
    if (await act(remove(user))) {
      const url = new URL(location.href);
      url.searchParams.delete("user");
      location.replace(url);
    }
  } else {
    await act(simple(verb, user));
  }
});

document.querySelector("[data-user-new]").addEventListener("click", async () => {
  const reply = await runAction({
    title: "New user",
    confirm: "Create",
    plan: async () => ["An account is made in Keycloak. Its first password is shown once, and must be changed at the first login."],
    fields: [
      { name: "username", label: "Username", required: true, maxlength: 255, hint: "3 characters or more, without spaces." },
      { name: "email", label: "Email", type: "email", required: true, maxlength: 255 },
      { name: "firstName", label: "First name", maxlength: 255 },
      { name: "lastName", label: "Last name", maxlength: 255 },
      ...groupFields(["client"]),
      REASON,
    ],
    submit: (values) =>
      api("POST", "api/keycloak/users", {
        username: values.username.trim(),
        email: values.email.trim(),
        firstName: values.firstName,
        lastName: values.lastName,
        groups: chosenGroups(values),
        generate_password: true,
        reason: values.reason,
      }),
    ended: (made) => withPassword(made, `${made.user.username} was created, with a password for the first login`),
    undo: "To undo this, delete the account: it is open now.",
  });
  if (reply) {
    const url = new URL(location.href);
    url.searchParams.set("user", reply.user.id);
    location.assign(url);
  }
});

// Several users.

let selected = [];

document.addEventListener("helm:selected", (event) => {
  if (event.target.matches("[data-users-table]")) {
    selected = event.detail.map((id) => [id, document.getElementById(`user-${id}`)?.dataset.username ?? id]);
  }
});

/** HTTP statuses that do not depend on the user: the requests for the other users would fail, too. */
const FAILS_ALL = new Set([0, 401, 429, 502, 503, 504]);
const BULK = {
  disable: ["Disable", "can't log in any more, and their sessions end", "disabled"],
  enable: ["Enable", "can log in again", "enabled"],
  logout: ["Log out", "are logged out everywhere, and can log in again", "logged out"],
};

/**
 * Sends the requests for users one after another; they are idempotent. Throws Problem with the reason for each refused.
 */
async function applyToEach(verb, users, done, reason) {
  const refused = [];
  let worked = 0;
  for (const [id, name] of users) {
    try {
      await api("POST", pathOf(id, `/${verb}`), { reason });
      worked += 1;
    } catch (error) {
      if (FAILS_ALL.has(error.status)) {
        const detail = `${error.message}: ${worked} of ${users.length} ${done}, the others were not tried`;
        throw new Problem(error.status, { detail, hint: `${error.hint} Then do it again: who is ${done} stays so.`.trim(), lines: refused });
      }
      refused.push(`${name}: ${error.message}. ${error.hint}`.trim());
    }
  }
  if (refused.length) {
    const detail = `${worked} of ${users.length} ${done}; ${refused.length} ${refused.length === 1 ? "was" : "were"} refused`;
    throw new Problem(400, { detail, hint: "The reason stands with each name. Those who are left are still selected.", lines: refused });
  }
}

document.addEventListener("click", async (event) => {
  if (event.target.closest?.("[data-bulk-clear]")) {
    for (const box of document.querySelectorAll("[data-users-table] [data-select]:checked")) {
      box.checked = false;
      box.dispatchEvent(new Event("change", { bubbles: true }));
    }
    return;
  }
  const verb = event.target.closest?.("[data-bulk-do]")?.dataset.bulkDo;
  if (!verb || !selected.length) {
    return;
  }
  const [label, effect, done] = BULK[verb];
  const users = [...selected];
  const count = users.length === 1 ? users[0][1] : `${users.length} users`;
  await act({
    title: `${label} ${count}`,
    confirm: label,
    danger: verb !== "enable",
    warning: `These ${effect}.`,
    plan: async () => users.map(([, name]) => name),
    fields: [REASON],
    submit: ({ reason }) => applyToEach(verb, users, done, reason).finally(refreshUsers),
    ended: () => `${users.length} of ${users.length} ${done}`,
    undo:
      verb === "logout"
        ? "Sessions that have ended can't be restored; the users log in again."
        : `To undo this, ${verb === "disable" ? "enable" : "disable"} them: they are still selected.`,
  });
});

// CSV.

const HINT = "A row with the names of columns: username, email, firstName, lastName, enabled, groups (separated by |), password.";

async function importFile(content, name, dryRun) {
  return api("POST", "api/keycloak/users/import", { csv: content, dry_run: dryRun, reason: `import of ${name}`.slice(0, 500) });
}

/**
 * The options of an import of users. Its job's log is the report: each invalid row, and the number of created users.
 */
function importAction(content, name, dryRun) {
  return {
    title: dryRun ? `Check ${name}` : `Import ${name}`,
    confirm: dryRun ? "Check" : "Import",
    warning: ADMIN ? `${ADMIN.textContent} Rows that would make an admin are refused.` : "",
    plan: async () => [
      dryRun ? "Each row is checked; nobody is made." : "Users who are not there yet are made; all others stay as they are.",
    ],
    fields: [],
    log: true,
    retry: () => act(importAction(content, name, dryRun)),
    submit: () => importFile(content, name, dryRun),
    ended: () => (dryRun ? "All rows can be imported" : "The file was imported"),
    undo: dryRun
      ? { ...importAction(content, name, false), label: "Import them" }
      : "Users who were made stay; select them in the list to disable them.",
  };
}

document.querySelector("[data-user-import]").addEventListener("click", async () => {
  const choose = h("input", { type: "file", accept: ".csv,text/csv", hidden: true, "data-csv": "" });
  choose.addEventListener("change", async () => {
    const file = choose.files[0];
    choose.remove();
    if (!file) {
      return;
    }
    if (file.size > 8 << 20) {
      toast("That file is too large for an import in the browser. Use: helmctl users import FILE", { tone: "warn" });
      return;
    }
    let content;
    try {
      content = await file.text();
    } catch {
      const text = `${file.name} can't be read, so nothing was sent: it was moved, or this account may not read it. Choose it again, or use: helmctl users import FILE`;
      toast(text, { tone: "error", glyph: "circle-x", stays: true });
      return;
    }
    if (!content.trim()) {
      toast(`${file.name} is empty, so nothing was sent. It needs ${HINT[0].toLowerCase()}${HINT.slice(1)}`, { tone: "error", glyph: "circle-x", stays: true });
      return;
    }
    await act(importAction(content, file.name, true));
  });
  document.body.append(choose);
  choose.click();
});
document.querySelector("[data-user-import]").title = HINT;
