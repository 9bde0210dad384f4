// Live updates. Browsers limit connections per host, so one tab of a session (the leader) has the stream of server-sent
// events, and relays events to the others over a BroadcastChannel.
//
// The leader holds a Web Lock named after the session. A visible tab without messages from the leader (which may be
// frozen) steals the lock. An event of a topic in its data-live-topics has a part of the page (data-live-part) fetched
// again and morphed in; one with data-live-shared is fetched by the leader for all tabs (base.html has one).
//
// Parts are fetched with If-None-Match: of a part with data-live-tag, the response has unchanged rows as empty
// placeholders (data-live-same). The ETag that is sent is that of the part as the page shows it, which need not be that
// of the last response: that may have been cut off, or may have been for another tab.
import { ASSETS, HOME, ROLE, SESSION, saveFocus, toast } from "./dom.js";
import { clock, localTimes } from "./format.js";
import { hasEnded, onSessionEnd, sessionEnded } from "./session.js";
import { StreamError, events } from "./sse.js";
import { fragment } from "./trusted.js";
import { Idiomorph } from "./vendor/idiomorph.js";

/** After this time without data, the page is marked as stale: more than two heartbeats of /api/events (each 4 s). */
const STALE_MS = 10000;
/**
 * After this time without data, the leader reconnects. Unlike the limit of sse.js, which is for streams with rarer
 * heartbeats, it also covers connecting.
 */
const STREAM_TIMEOUT_MS = 12000;
const PART_TIMEOUT_MS = 12000;
const MAX_PART_TIMEOUT_MS = 60000;
const LEADER_TIMEOUT_MS = 6000;
/** Events within this time cause one request for a part. */
const BATCH_MS = 150;
const NAME = `helm-${SESSION}`;
const TOPICS = ROLE === "admin" ? "status,jobs,audit" : "status";
/** Attributes that scripts and users set, which morphing must not reset. */
const CLIENT_ATTRIBUTES = new Set(["open", "aria-expanded", "data-selected", "aria-selected", "aria-sort", "tabindex"]);

const channel = new BroadcastChannel(NAME);
const listeners = new Map();
const known = { statuses: {}, jobs: {} };
const parts = new Map();
const failedParts = new Set();
let lastContactAt = Date.now();
let lastLeaderMessageAt = Date.now();
let leading = null;
let closed = false;

/**
 * Calls `listener` with the data of each event of a topic, first with what is known already: {statuses, removed} of
 * "status", {jobs, removed} of "jobs", {audit, first} of "audit", and {} of "again", which follows each reconnection.
 * Returns a function that unsubscribes.
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

/** The latest status of every service by name, as in GET /api/services/status. */
export const statuses = () => known.statuses;
const isStale = () => Date.now() - lastContactAt > STALE_MS || failedParts.size > 0;

function handleEvent(topic, data) {
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

// Parts of the page.

function urlOf(element) {
  const url = new URL(element.dataset.liveUrl ?? location.href, location.href);
  url.searchParams.set("part", element.dataset.livePart);
  url.hash = "";
  return url;
}

const elementOf = (name) => document.querySelector(`[data-live-part="${CSS.escape(name)}"]`);

function partOf(name) {
  if (!parts.has(name)) {
    const rendered = elementOf(name)?.dataset.liveTag;
    const tag = rendered ? `"${rendered}"` : "";
    parts.set(name, { busy: false, dirty: false, timer: 0, refreshedAt: 0, timeout: PART_TIMEOUT_MS, tag });
  }
  return parts.get(name);
}

/** Schedules a new fetch of a part; calls in quick succession cause one. */
export function refresh(name) {
  const part = partOf(name);
  part.dirty = true;
  if (!part.timer && !part.busy) {
    part.timer = setTimeout(() => load(name, part), BATCH_MS);
  }
}

async function load(name, part) {
  part.timer = 0;
  const element = elementOf(name);
  const shared = element && "liveShared" in element.dataset;
  if (!element || hasEnded() || (shared ? !leading : document.hidden)) {
    // A hidden page fetches when it becomes visible; a shared part comes from the leader.
    part.dirty = !shared;
    return;
  }
  part.busy = true;
  part.dirty = false;
  try {
    const response = await fetch(urlOf(element), {
      headers: { Accept: "text/html", ...(part.tag ? { "If-None-Match": part.tag } : {}) },
      redirect: "manual",
      signal: AbortSignal.timeout(part.timeout),
    });
    if (response.type === "opaqueredirect" || response.status === 401) {
      sessionEnded();
    } else if (response.ok) {
      offerReload(response.headers.get("Helm-Assets"));
      const [tag, text] = [response.headers.get("ETag") ?? "", await response.text()];
      apply(name, text, tag);
      if (shared) {
        channel.postMessage({ kind: "part", name, text, tag });
      }
    }
    recordResult(name, response.ok || response.status === 304);
  } catch (error) {
    if (error.name === "TimeoutError") {
      // On a busy machine, a part that always takes longer than a fixed timeout would never be updated.
      part.timeout = Math.min(2 * part.timeout, MAX_PART_TIMEOUT_MS);
    }
    recordResult(name, false);
  }
  part.busy = false;
  if (part.dirty) {
    refresh(name);
  }
}

function recordResult(name, succeeded) {
  if (succeeded) {
    failedParts.delete(name);
    lastContactAt = Date.now();
  } else {
    failedParts.add(name);
    setTimeout(() => refresh(name), 3000);
  }
  showState();
}

const isSame = (node) => node.dataset?.liveSame !== undefined;
const morphCallbacks = {
  beforeNodeMorphed: (old, fresh) => !(isSame(fresh) || old.matches?.("[data-live-keep], dialog[open]") || isOpen(old)),
  beforeNodeRemoved: (old) => !(old.matches?.("[data-live-keep], dialog[open]") || isOpen(old)),
  beforeAttributeUpdated: (attribute) => !CLIENT_ATTRIBUTES.has(attribute),
};

function isOpen(node) {
  return node.popover && node.matches(":popover-open");
}

/** Morphs a part's new markup in; focus, selection, open dialogs, open menus and unchanged rows stay. */
function apply(name, text, tag) {
  const fresh = fragment(text).querySelector(`[data-live-part="${CSS.escape(name)}"]`);
  const [part, shown] = [partOf(name), elementOf(name)];
  if (!fresh || !shown) {
    return;
  }
  if ([...fresh.querySelectorAll("[data-live-same]")].some((row) => !document.getElementById(row.id))) {
    // The page lacks a row for which the response has a placeholder: without a tag, the whole part is sent.
    part.tag = "";
    refresh(name);
    return;
  }
  localTimes(fresh);
  document.dispatchEvent(new CustomEvent("helm:fresh", { detail: { fresh } }));
  const restoreFocus = saveFocus();
  part.tag = "";
  Idiomorph.morph(shown, fresh, { morphStyle: "outerHTML", ignoreActiveValue: true, callbacks: morphCallbacks });
  part.tag = tag;
  document.dispatchEvent(new CustomEvent("helm:part", { detail: { name } }));
  restoreFocus();
  showTrouble();
}

const title = document.title.replace(/^\(\d+\)[^·]*· /, "");
const favicon = document.querySelector('link[rel="icon"]');

/** Shows problems in the document's title and its favicon. */
function showTrouble() {
  const health = document.querySelector('[data-live-part="health"]');
  const trouble = health?.dataset.trouble ?? "";
  const prefix = hasEnded() ? "Session ended" : trouble;
  const text = prefix ? `${prefix} · ${title}` : title;
  if (document.title !== text) {
    document.title = text;
  }
  const url = new URL(health?.dataset.tone === "error" ? "helm-error.svg" : "helm.svg", import.meta.url).pathname;
  if (favicon && favicon.getAttribute("href") !== url) {
    favicon.setAttribute("href", url);
  }
}

let reloadOffered = false;

/** Offers to reload the page where the server has other scripts; `digest` is that of its assets. */
function offerReload(digest) {
  if (digest && digest !== ASSETS && !reloadOffered) {
    reloadOffered = true;
    toast("Helm was updated. Reload the page to use the new version.", {
      glyph: "refresh-cw",
      stays: true,
      actions: [["Reload", () => location.reload()]],
    });
  }
}

// The state of the connection.

function showState() {
  const ended = hasEnded();
  const stale = isStale() || ended;
  // A stale page must not show healthy services in green.
  document.body.classList.toggle("helm--stale", stale);
  for (const time of document.querySelectorAll("[data-clock]")) {
    write(time, clock(lastContactAt));
  }
  for (const state of document.querySelectorAll("[data-live-state]")) {
    state.hidden = false;
    state.classList.toggle("helm-live--stale", stale);
    const text = ended ? "session ended" : stale ? `stale since ${clock(lastContactAt)}` : "live";
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

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

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
    const watch = setInterval(() => Date.now() - last > STREAM_TIMEOUT_MS && attempt.abort(), 1000);
    try {
      const stream = events(`${HOME}api/events?topics=${TOPICS}`, {
        signal: attempt.signal,
        lastId,
        onData: () => {
          last = lastContactAt = lastLeaderMessageAt = Date.now();
          relayContact();
        },
      });
      for await (const { event, id, data } of stream) {
        lastId = id ?? lastId;
        wait = 500;
        if (event === "status" || event === "jobs" || event === "audit") {
          relay(event, JSON.parse(data));
        }
        if (lost) {
          lost = false;
          relay("again", {});
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
    await sleep(wait);
    wait = Math.min(wait * 2, 8000);
  }
  leading = leading === control ? null : leading;
}

function relay(topic, data) {
  handleEvent(topic, data);
  channel.postMessage({ kind: "event", topic, data });
}

/** Reports to the other tabs that helmd is reachable, and that this tab leads. */
function relayContact() {
  channel.postMessage({ kind: "contact", at: lastContactAt });
}

let generation = 0;
let waiting = null;

/** Leads once the lock is free, or at once with `steal`. Resolves when this tab leads no longer. */
async function compete(steal = false) {
  if (!navigator.locks) {
    return lead();
  }
  generation += 1;
  const current = generation;
  waiting?.abort();
  waiting = new AbortController();
  try {
    await navigator.locks.request(NAME, steal ? { steal: true } : { signal: waiting.signal }, lead);
  } catch {
    // Another tab stole the lock, or a newer call replaced this one.
  }
  if (current !== generation) {
    return;
  }
  leading?.abort();
  if (!closed && !hasEnded()) {
    // The former holder of a stolen lock queues up again.
    lastLeaderMessageAt = Date.now();
    setTimeout(compete, 100);
  }
}

channel.addEventListener("message", ({ data: message }) => {
  lastLeaderMessageAt = Date.now();
  if ("at" in message) {
    lastContactAt = Math.max(lastContactAt, message.at);
    showState();
  } else if (message.kind === "event") {
    handleEvent(message.topic, message.data);
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
    // Logged out in another tab: leave the page at once, although the session may not have ended yet.
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
    relayContact();
  } else if (!document.hidden && Date.now() - lastLeaderMessageAt > LEADER_TIMEOUT_MS + Math.random() * 2000) {
    // The random part keeps tabs from stealing the lock from one another.
    lastLeaderMessageAt = Date.now();
    compete(true);
  }
  showState();
}

function refreshPeriodically() {
  for (const element of document.querySelectorAll("[data-live-every]")) {
    const part = partOf(element.dataset.livePart);
    const every = Number(element.dataset.liveEvery) * 1000;
    if (!document.hidden && every && Date.now() - part.refreshedAt > every) {
      refresh(element.dataset.livePart);
      part.refreshedAt = Date.now();
    }
  }
}

if (SESSION) {
  compete();
  channel.postMessage({ kind: "hello" });
  setInterval(tick, 1000);
  setInterval(refreshPeriodically, 1000);
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
