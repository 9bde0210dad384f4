// What a page hears from helmd: one stream of events for all tabs of a session, held by one of them (the leader).
//
// The leader has the lock of the session's name and passes on what it hears by a channel of that name. A tab that hears
// nothing from its leader (frozen, or gone) takes the lock from it. Parts of the page (data-live-part) are fetched again
// when an event of their topics (data-live-topics) comes, and morphed in; see base.html for one that all tabs share.
// A part with a tag (data-live-tag) comes without the rows that are the same: an empty one (data-live-same) is in each
// one's place. The tag that is sent along is that of what the page shows, not of what was answered: an answer that was
// cut off, or that another tab has fetched meanwhile, is not taken for shown.
import { ASSETS, HOME, ROLE, SESSION, holdFocus, toast } from "./dom.js";
import { clock, localTimes } from "./format.js";
import { hasEnded, onSessionEnd, sessionEnded } from "./session.js";
import { StreamError, events } from "./sse.js";
import { fragment } from "./trusted.js";
import { Idiomorph } from "./vendor/idiomorph.js";

export const STALE_MS = 10000;
const SILENT_MS = 12000;
const LONGEST_MS = 60000;
const LEADER_MS = 6000;
const COLLECT_MS = 150;
const NAME = `helm-${SESSION}`;
const TOPICS = ROLE === "admin" ? "status,jobs,audit" : "status";
const KEPT = new Set(["open", "aria-expanded", "data-selected", "aria-selected", "aria-sort", "tabindex"]);

const channel = new BroadcastChannel(NAME);
const listeners = new Map();
const known = { statuses: {}, jobs: {}, audit: [] };
const parts = new Map();
const failing = new Set();
let heard = Date.now();
let leaderSaid = Date.now();
let leading = null;
let closed = false;

/**
 * Calls `listener` with each event of a topic, first with what is known already: {statuses, removed} of "status",
 * {jobs, removed} of "jobs", {audit, first} of "audit", and {} of "again" after a lost connection.
 */
export function subscribe(topic, listener) {
  listeners.set(topic, (listeners.get(topic) ?? new Set()).add(listener));
  if (topic === "status" && Object.keys(known.statuses).length) {
    listener({ statuses: known.statuses, removed: [] });
  } else if (topic === "jobs" && Object.keys(known.jobs).length) {
    listener({ jobs: Object.values(known.jobs), removed: [] });
  }
  return () => listeners.get(topic).delete(listener);
}

/** The newest status of every service by name, as GET /api/services/status has it. */
export const statuses = () => known.statuses;
/** When anything was last heard from helmd, in milliseconds. */
export const heardAt = () => heard;
const isStale = () => Date.now() - heard > STALE_MS || failing.size > 0;

function take(topic, data) {
  if (topic === "status") {
    Object.assign(known.statuses, data.statuses);
    data.removed.forEach((name) => delete known.statuses[name]);
  } else if (topic === "jobs") {
    data.jobs.forEach((job) => (known.jobs[job.id] = job));
    data.removed.forEach((id) => delete known.jobs[id]);
  }
  for (const listener of listeners.get(topic) ?? []) {
    listener(data);
  }
  for (const element of document.querySelectorAll("[data-live-part]")) {
    if (topic === "again" || (element.dataset.liveTopics ?? "").split(" ").includes(topic)) {
      refresh(element.dataset.livePart);
    }
  }
}

// Parts.

function urlOf(element) {
  const url = new URL(element.dataset.liveUrl ?? location.href, location.href);
  url.searchParams.set("part", element.dataset.livePart);
  url.hash = "";
  return url;
}

const elementOf = (name) => document.querySelector(`[data-live-part="${CSS.escape(name)}"]`);

function partOf(name) {
  if (!parts.has(name)) {
    const given = elementOf(name)?.dataset.liveTag;
    parts.set(name, { busy: false, dirty: false, timer: 0, asked: 0, limit: SILENT_MS, tag: given ? `"${given}"` : "" });
  }
  return parts.get(name);
}

/** Fetches a part again, soon: events that follow one another are taken together. */
export function refresh(name) {
  const part = partOf(name);
  part.dirty = true;
  if (!part.timer && !part.busy) {
    part.timer = setTimeout(() => load(name, part), COLLECT_MS);
  }
}

async function load(name, part) {
  part.timer = 0;
  const element = elementOf(name);
  const shared = element && "liveShared" in element.dataset;
  if (!element || hasEnded() || (shared ? !leading : document.hidden)) {
    // A hidden page catches up when it is looked at; what tabs share, the leader fetches.
    part.dirty = !shared;
    return;
  }
  part.busy = true;
  part.dirty = false;
  try {
    const answer = await fetch(urlOf(element), {
      headers: { Accept: "text/html", ...(part.tag ? { "If-None-Match": part.tag } : {}) },
      redirect: "manual",
      signal: AbortSignal.timeout(part.limit),
    });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      sessionEnded();
    } else if (answer.ok) {
      noteAssets(answer.headers.get("Helm-Assets"));
      const [tag, text] = [answer.headers.get("ETag") ?? "", await answer.text()];
      apply(name, text, tag);
      if (shared) {
        channel.postMessage({ kind: "part", name, text, tag });
      }
    }
    note(name, answer.ok || answer.status === 304);
  } catch (error) {
    if (error.name === "TimeoutError") {
      // What always takes longer than the limit, as on a busy machine, would never be shown.
      part.limit = Math.min(2 * part.limit, LONGEST_MS);
    }
    note(name, false);
  }
  part.busy = false;
  if (part.dirty) {
    refresh(name);
  }
}

function note(name, worked) {
  if (worked) {
    failing.delete(name);
    heard = Date.now();
  } else {
    failing.add(name);
    setTimeout(() => refresh(name), 3000);
  }
  showState();
}

const isSame = (node) => node.dataset?.liveSame !== undefined;
const morphing = {
  beforeNodeMorphed: (old, fresh) => !(isSame(fresh) || old.matches?.("[data-live-keep], dialog[open]") || isOpen(old)),
  beforeNodeRemoved: (old) => !(old.matches?.("[data-live-keep], dialog[open]") || isOpen(old)),
  beforeAttributeUpdated: (attribute) => !KEPT.has(attribute),
};

function isOpen(node) {
  return node.popover && node.matches(":popover-open");
}

/** Morphs a part's new markup in: focus, selection, open dialogs and menus stay, and rows that are the same. */
function apply(name, text, tag) {
  const fresh = fragment(text).querySelector(`[data-live-part="${CSS.escape(name)}"]`);
  const [part, shown] = [partOf(name), elementOf(name)];
  if (!fresh || !shown) {
    return;
  }
  if ([...fresh.querySelectorAll("[data-live-same]")].some((row) => !document.getElementById(row.id))) {
    // A row is missing that was there when the tag was given: all of it is fetched.
    part.tag = "";
    refresh(name);
    return;
  }
  localTimes(fresh);
  document.dispatchEvent(new CustomEvent("helm:fresh", { detail: { fresh } }));
  const restoreFocus = holdFocus();
  part.tag = "";
  Idiomorph.morph(shown, fresh, { morphStyle: "outerHTML", ignoreActiveValue: true, callbacks: morphing });
  part.tag = tag;
  document.dispatchEvent(new CustomEvent("helm:part", { detail: { name } }));
  restoreFocus();
  showTrouble();
}

const title = document.title.replace(/^\(\d+\)[^·]*· /, "");
const icons = document.querySelector('link[rel="icon"]');

/** The tab's title and icon say what is wrong. */
function showTrouble() {
  const health = document.querySelector('[data-live-part="health"]');
  const trouble = health?.dataset.trouble ?? "";
  const said = hasEnded() ? "Session ended" : trouble;
  const text = said ? `${said} · ${title}` : title;
  if (document.title !== text) {
    document.title = text;
  }
  const url = new URL(health?.dataset.tone === "error" ? "helm-error.svg" : "helm.svg", import.meta.url).pathname;
  if (icons && icons.getAttribute("href") !== url) {
    icons.setAttribute("href", url);
  }
}

let reloadOffered = false;

function noteAssets(digest) {
  if (digest && digest !== ASSETS && !reloadOffered) {
    reloadOffered = true;
    toast("Helm was updated. This page is from before.", {
      glyph: "refresh-cw",
      stays: true,
      actions: [["Reload", () => location.reload()]],
    });
  }
}

// The state that the page shows.

function showState() {
  const ended = hasEnded();
  const stale = isStale() || ended;
  // What is no longer known to be true is not shown in green.
  document.body.classList.toggle("helm--stale", stale);
  for (const time of document.querySelectorAll("[data-clock]")) {
    write(time, clock(heard));
  }
  for (const state of document.querySelectorAll("[data-live-state]")) {
    state.hidden = false;
    state.classList.toggle("helm-live--stale", stale);
    const text = ended ? "session ended" : stale ? `stale since ${clock(heard)}` : "live";
    write(state.querySelector("[data-live-text]"), text);
  }
}

function write(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

onSessionEnd(() => {
  leading?.abort();
  channel.postMessage({ kind: "ended" });
  showState();
  showTrouble();
});

// The leader.

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function lead() {
  const control = new AbortController();
  leading = control;
  let wait = 500;
  let lastId = "";
  let lost = false;
  while (!control.signal.aborted && !closed && !hasEnded()) {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    control.signal.addEventListener("abort", abort);
    let last = Date.now();
    const watch = setInterval(() => Date.now() - last > SILENT_MS && attempt.abort(), 1000);
    try {
      const stream = events(`${HOME}api/events?topics=${TOPICS}`, {
        signal: attempt.signal,
        lastId,
        heard: () => {
          last = heard = leaderSaid = Date.now();
          channel.postMessage({ kind: "heard", at: heard });
        },
      });
      for await (const { event, id, data } of stream) {
        lastId = id ?? lastId;
        wait = 500;
        if (event === "status" || event === "jobs" || event === "audit") {
          pass(event, JSON.parse(data));
        }
        if (lost) {
          lost = false;
          pass("again", {});
        }
      }
    } catch (error) {
      if (error instanceof StreamError && error.status === 401) {
        sessionEnded();
      }
    }
    lost = true;
    clearInterval(watch);
    control.signal.removeEventListener("abort", abort);
    attempt.abort();
    await pause(wait);
    wait = Math.min(wait * 2, 8000);
  }
  leading = leading === control ? null : leading;
}

function pass(topic, data) {
  take(topic, data);
  channel.postMessage({ kind: "event", topic, data });
}

let turn = 0;
let waiting = null;

async function follow(steal = false) {
  if (!navigator.locks) {
    return lead();
  }
  turn += 1;
  const mine = turn;
  waiting?.abort();
  waiting = new AbortController();
  try {
    await navigator.locks.request(NAME, steal ? { steal: true } : { signal: waiting.signal }, lead);
  } catch {
    // Another tab has taken the lock: this one had been frozen.
  }
  if (mine !== turn) {
    return;
  }
  leading?.abort();
  if (!closed && !hasEnded()) {
    // A stolen lock's holder queues up again.
    leaderSaid = Date.now();
    setTimeout(follow, 100);
  }
}

channel.addEventListener("message", ({ data: message }) => {
  leaderSaid = Date.now();
  if (message.kind === "heard") {
    heard = Math.max(heard, message.at);
    showState();
  } else if (message.kind === "event") {
    take(message.topic, message.data);
  } else if (message.kind === "part") {
    apply(message.name, message.text, message.tag);
  } else if (message.kind === "hello" && leading) {
    channel.postMessage({ kind: "event", topic: "status", data: { statuses: known.statuses, removed: [] } });
    channel.postMessage({ kind: "event", topic: "jobs", data: { jobs: Object.values(known.jobs), removed: [] } });
  } else if (message.kind === "ended") {
    if (!hasEnded()) {
      sessionEnded();
    }
  } else if (message.kind === "closed") {
    // The session may still be ending; what is shown is gone anyway.
    close();
    location.replace(`${HOME}logout`);
  }
});

function close() {
  closed = true;
  leading?.abort();
  channel.close();
}

function tick() {
  if (closed || hasEnded()) {
    return;
  }
  if (leading) {
    channel.postMessage({ kind: "heard", at: heard });
  } else if (!document.hidden && Date.now() - leaderSaid > LEADER_MS + Math.random() * 2000) {
    leaderSaid = Date.now();
    follow(true);
  }
  showState();
}

function everySoOften() {
  for (const element of document.querySelectorAll("[data-live-every]")) {
    const part = partOf(element.dataset.livePart);
    const every = Number(element.dataset.liveEvery) * 1000;
    if (!document.hidden && every && Date.now() - part.asked > every) {
      refresh(element.dataset.livePart);
      part.asked = Date.now();
    }
  }
}

if (SESSION) {
  follow();
  channel.postMessage({ kind: "hello" });
  setInterval(tick, 1000);
  setInterval(everySoOften, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      showState();
      for (const [name, part] of parts) {
        if (part.dirty) {
          refresh(name);
        }
      }
      localTimes(document);
    }
  });
  document.addEventListener("submit", (event) => {
    if (event.target.matches("[data-log-out]")) {
      channel.postMessage({ kind: "closed" });
      close();
    }
  });
  showState();
}
