// The page of log entries. Its complete state is in the URL.
import { bind } from "./keys.js";
import { QueryBox } from "./logs-box.js";
import { Facets } from "./logs-facets.js";
import { LogFeed } from "./logs-feed.js";
import { lineOf } from "./logs-list.js";
import { Menus } from "./logs-menus.js";
import { clausesOf, clause, highlightOf, withClause, withValue } from "./logs-query.js";
import { Rows } from "./logs-rows.js";
import { Problem, Source } from "./logs-source.js";
import { isDefaultRange, isoOf, nowMicros, rangeOf, searchOf, stateOf, Times, withAbsoluteTimes } from "./logs-state.js";
import { element } from "./logs-text.js";
import { Views } from "./logs-views.js";
import { Volume } from "./logs-volume.js";
import { gapMark, itemsOf, markOf, microsOf, rowOf } from "./logs-window.js";
import { sessionEnded } from "./session.js";

const FLUSH_MS = 90;
const REFRESH_MS = 10000;
// So close to an end of the list, in pixels, more lines are loaded.
const EDGE = 600;
// The margin below the list, in pixels.
const BOTTOM_MARGIN = 22;
const FIELDS = [
  { name: "service", note: "of a service" },
  { name: "level", sign: ">=", note: "this level and above" },
  { name: "trace", note: "of a trace" },
  { name: "user", note: "about a user" },
  { name: "source", note: "printed, posted, systemd, Helm" },
  { name: "stream", note: "stdout or stderr" },
  { name: "has", note: "with a field" },
  { name: "host", note: "of a machine" },
  { name: "pid", note: "of a process" },
];

class LogsPage {
  constructor(host) {
    this.host = host;
    this.part = (name) => host.querySelector(`[data-logs-${name}]`);
    this.source = new Source(host.dataset.api);
    this.service = host.dataset.service;
    this.services = host.dataset.services.split(" ").filter(Boolean);
    this.state = stateOf(location.search);
    this.pending = 0;
    this.marks = [];
    this.contextKeys = [];
    this.knownKeys = [];
    this.total = null;
    this.open = new Set();
    this.untruncated = new Set();
    this.ungrouped = new Set();
    this.active = null;
    this.revision = 0;
    this.live = ["", ""];
    this.rows = new Rows(this.part("lines"), this.part("all"), this.part("rows"), {
      make: (item) => lineOf(item, this.view, (...action) => this.perform(...action)),
      stamp: (item) => this.stampOf(item),
      onScrolled: (byUser) => this.onScrolled(byUser),
    });
    this.feed = new LogFeed(this.source, {
      onChange: (why) => this.onChange(why),
      onArrival: (rows) => this.onArrival(rows),
      onState: (...state) => this.showLive(...state),
      onError: (error) => this.fail(error),
      isFollowing: () => this.rows.follows,
    });
    this.box = new QueryBox(
      { form: this.part("form"), chips: this.part("chips"), input: this.part("input"), list: this.part("completions") },
      { run: (query) => this.go({ query, at: "", entry: null }), known: { fields: () => [...FIELDS, ...this.knownKeys.map((key) => ({ name: `context.${key}`, note: "in the context" }))], values: (field) => this.valuesOf(field) } },
    );
    this.volume = new Volume(this.part("volume"), {
      zoom: (from, to) => this.go({ from: isoOf(from), to: isoOf(to), at: "", entry: null }),
      jump: (micros) => this.jump(micros),
      format: (micros, range) => this.times.tick(micros, range),
      offset: () => (this.state.utc ? 0 : -new Date().getTimezoneOffset() * 60e6),
    });
    this.facets = new Facets(this.part("facets"), (field, each, how) => this.go({ query: chosenQuery(this.state.query, field, each, how), at: "", entry: null }));
    this.views = new Views(this.part("views"), this.source, {
      open: (search) => this.goTo(stateOf(search)),
      current: () => searchOf({ ...this.state, at: "", entry: null }),
      onError: (error) => this.fail(error),
    });
    this.menus = new Menus(this);
    this.listen();
    this.applyState();
    this.views.load(host.dataset.views === "yes");
  }

  // ---- state ----

  /** Changes some of the state, with an entry in the browser's history. */
  go(changes, how = "push") {
    this.goTo({ ...this.state, ...changes }, how);
  }

  goTo(state, how = "push") {
    this.state = state;
    history[how === "push" ? "pushState" : "replaceState"](null, "", `${location.pathname}${searchOf(state)}`);
    this.applyState();
  }

  /** Changes how lines are displayed, without loading them again. */
  setDisplay(changes) {
    this.state = { ...this.state, ...changes };
    history.replaceState(null, "", `${location.pathname}${searchOf(this.state)}`);
    this.applyDisplay();
    this.rows.invalidate();
    this.flush();
  }

  applyDisplay() {
    const { state } = this;
    this.times = new Times(state.utc);
    this.range = rangeOf(state);
    this.host.classList.toggle("helm-logs--wrap", state.wrap);
    this.host.classList.toggle("helm-logs--days", this.showsDay);
    this.host.dataset.columns = state.columns.length;
    this.host.style.setProperty("--helm-extra", state.columns.length);
    this.revision += 1;
    this.menus.show();
    this.part("head").replaceChildren(
      ...["Time", "Service", "Level", ...state.columns, "Message"].map((name) => element("span", "helm-logs__column", name)),
    );
  }

  get showsDay() {
    const { from, to } = this.range;
    return this.times.day(from) !== this.times.day(to ?? nowMicros()) || this.times.day(from) !== this.times.day(nowMicros());
  }

  get view() {
    return {
      state: this.state,
      times: this.times,
      highlight: this.highlight,
      open: this.open,
      untruncated: this.untruncated,
      active: this.active,
      here: this.here,
      showsDay: this.showsDay,
    };
  }

  stampOf(item) {
    if (item.kind !== "row") {
      return `${this.revision} ${item.key === this.active} ${item.text ?? ""}`;
    }
    const { id } = item.row;
    return `${this.revision} ${item.rows.length} ${item.key === this.active} ${this.open.has(id)} ${this.untruncated.has(id)} ${id === this.here}`;
  }

  /** Shows the state: loads its lines and updates all controls. */
  async applyState() {
    const { state } = this;
    this.range = rangeOf(state);
    if (state.at) {
      // An entry outside of the range is shown with the hour around it.
      const micros = Number(state.at.split("-")[0]);
      if (micros < this.range.from || micros > (this.range.to ?? nowMicros())) {
        state.from = isoOf(micros - 1800e6);
        state.to = isoOf(Math.min(nowMicros(), micros + 1800e6));
        history.replaceState(null, "", `${location.pathname}${searchOf(state)}`);
        this.range = rangeOf(state);
      }
    }
    this.open = new Set(state.entry ? [state.entry] : []);
    this.here = state.at ? Number(state.at.split("-")[1]) || null : null;
    this.active = state.entry ?? this.here;
    this.untruncated.clear();
    this.ungrouped = new Set(state.entry ? [state.entry] : this.here ? [this.here] : []);
    this.pending = 0;
    this.total = null;
    this.marks = [];
    this.highlight = highlightOf(state.query);
    this.box.set(state.query);
    this.applyDisplay();
    this.fail(null);
    this.views.render();
    this.rows.follows = this.range.live && !state.at;
    this.host.classList.add("helm-logs--loading");
    const loading = this.feed.load(this.parameters(), { at: state.at, live: this.range.live });
    this.showLive(this.range.live ? "connecting" : "stored");
    await loading;
    this.refreshAside();
  }

  parameters() {
    return {
      query: this.state.query,
      service: this.service,
      start_time: isoOf(this.range.from),
      end_time: this.range.to ? isoOf(this.range.to) : "",
    };
  }

  // ---- lines ----

  onChange(why) {
    this.host.classList.remove("helm-logs--loading");
    this.flush();
    if (why === "loaded") {
      if (this.state.at) {
        const index = this.rows.items.findIndex((item) => item.kind === "row" && item.row.micros >= Number(this.state.at.split("-")[0]));
        this.rows.reveal(index < 0 ? this.rows.items.length - 1 : index, true);
      } else if (!this.range.live) {
        this.rows.toEnd();
      }
    }
    this.loadAtEdges();
  }

  onArrival(rows) {
    if (!this.rows.follows) {
      this.pending += rows.length;
    }
    this.total = this.total === null ? null : this.total + rows.length;
    for (const row of rows) {
      if (row.entry.source === "systemd" || row.entry.source === "helm") {
        const mark = markOf(row.entry);
        if (mark) {
          this.marks.push(mark);
        }
      }
    }
    this.volume.add(rows);
    if (!this.flushing) {
      this.flushing = setTimeout(() => {
        this.flushing = 0;
        this.flush();
      }, FLUSH_MS);
    }
  }

  flush() {
    this.rows.set(this.items());
    this.showNew();
    this.showCount();
    this.showVisible();
  }

  items() {
    const { window } = this.feed;
    const items = itemsOf(window.rows, window.rows.length ? this.marks : [], this.ungrouped, window.ids);
    const top = this.topNote();
    if (top) {
      items.unshift({ kind: "note", ...top });
    }
    const bottom = this.bottomNote();
    if (bottom) {
      items.push({ kind: "note", ...bottom });
    }
    return items;
  }

  topNote() {
    const { window, loading, skippedLines } = this.feed;
    if (loading) {
      return window.rows.length ? null : { key: "top", text: "Reading …" };
    }
    if (window.searchedBackTo && window.older) {
      const back = this.times.exact(microsOf(window.searchedBackTo)).replace(/, \.\d+$/, "");
      return { key: "top", text: `Searched back to ${back}, then the time limit was reached.`, actions: [{ text: "Search further", act: () => this.feed.loadOlder() }] };
    }
    if (window.older) {
      return { key: "top", text: "Older lines are read when you scroll here." };
    }
    if (!window.rows.length) {
      return this.emptyNote();
    }
    const from = this.times.exact(this.range.from).replace(/, \.\d+$/, "");
    const note = skippedLines ? ` The stream left out ${skippedLines.toLocaleString()} lines, which were read from the store.` : "";
    return { key: "top", text: `Beginning of the range: ${from}.${note}`, actions: [{ text: "Show what is before", act: () => this.widen() }] };
  }

  emptyNote() {
    const actions = [];
    if (!this.part("notice").hidden) {
      return { key: "top", text: "No lines could be read, for the reason above." };
    }
    if (isDefaultRange(this.state) || this.state.from.startsWith("-")) {
      actions.push({ text: "Search the last 7 days", act: () => this.go({ from: "-7d", to: "", at: "" }) });
    } else {
      actions.push({ text: "Show the last hour", act: () => this.go({ from: "-1h", to: "", at: "" }) });
    }
    if (this.state.query) {
      actions.push({ text: "Without the filter", act: () => this.go({ query: "", at: "" }) });
    }
    const where = this.times.range(this.range);
    const what = this.state.query ? "No line matches" : this.service ? `${this.service} has logged nothing` : "Nothing was logged";
    const then = this.range.live ? " New lines appear here as they come." : "";
    return { key: "top", text: `${what} in ${where}.${then}`, actions };
  }

  bottomNote() {
    const { window, loading } = this.feed;
    if (loading || !window.rows.length) {
      return null;
    }
    if (window.newer) {
      return { key: "bottom", text: "Newer lines are read when you scroll here." };
    }
    return this.range.live ? null : { key: "bottom", text: `End of the range: ${this.times.exact(this.range.to).replace(/, \.\d+$/, "")}.` };
  }

  onScrolled(byUser) {
    if (byUser) {
      const follows = this.range.live && !this.feed.window.newer && this.rows.atEnd && !this.feed.loading;
      if (follows !== this.rows.follows) {
        this.rows.follows = follows;
        if (follows) {
          this.pending = 0;
        }
        this.showNew();
        this.showLive(...this.live);
      }
      this.loadAtEdges();
    }
    this.showVisible();
  }

  loadAtEdges() {
    const { scroller, total } = this.rows;
    const { window } = this.feed;
    if (window.older && !window.searchedBackTo && (scroller.scrollTop < EDGE || total < scroller.clientHeight * 2)) {
      this.feed.loadOlder();
    } else if (window.newer && scroller.scrollTop + scroller.clientHeight > total - EDGE) {
      this.feed.loadNewer();
    }
  }

  async resume() {
    this.pending = 0;
    if (this.state.at) {
      this.go({ at: "", entry: null });
      return;
    }
    this.rows.follows = true;
    if (this.feed.window.newer) {
      await this.feed.load(this.parameters(), { live: true });
    }
    this.rows.toEnd();
    this.flush();
    this.showLive(...this.live);
  }

  pause() {
    if (this.rows.follows) {
      this.rows.follows = false;
      this.showNew();
      this.showLive(...this.live);
    }
  }

  // ---- status ----

  showNew() {
    const button = this.part("new");
    const away = this.range.live && !this.rows.follows && !this.feed.loading;
    button.hidden = !away;
    const lines = this.pending === 1 ? "new line" : "new lines";
    button.textContent = this.pending ? `${this.pending.toLocaleString()} ${lines}` : "Go to the newest";
  }

  showCount() {
    const count = this.part("count");
    const parts = [];
    if (this.total !== null) {
      parts.push(`${this.countedBackTo ? "at least " : ""}${this.total.toLocaleString()} ${this.total === 1 ? "line" : "lines"}`);
    }
    if (this.state.at) {
      parts.push(`around ${this.times.clock(Number(this.state.at.split("-")[0]))}`);
    }
    const text = parts.join(" · ");
    if (count.textContent !== text) {
      count.textContent = text;
    }
  }

  showVisible() {
    const { rows } = this;
    if (!rows.items.length) {
      this.volume.showVisible(null);
      return;
    }
    const [first, last] = rows.visibleRange();
    const times = rows.items.slice(first, last + 1).filter((item) => item.kind === "row");
    this.volume.showVisible(times.length ? [times[0].row.micros, times[times.length - 1].row.micros] : null);
  }

  showLive(state, why = "", receivedAt = 0) {
    this.live = [state, why, receivedAt];
    const indicator = this.part("live");
    const known = state === "live" && !this.rows.follows ? "paused" : state;
    const text = {
      connecting: "connecting",
      live: "live",
      paused: "paused",
      stored: "stored lines",
      stale: `stale since ${this.times.seconds.format(receivedAt || Date.now())}`,
      refused: "ended",
    }[known];
    const label = this.part("live-text");
    if (label.textContent !== text) {
      label.textContent = text;
      indicator.dataset.state = known;
      indicator.title = typeof why === "string" ? why : "";
    }
    if (state === "refused") {
      this.fail(why);
    }
  }

  /** Shows an error above the lines; null hides it. */
  fail(error) {
    const notice = this.part("notice");
    const ended = error instanceof Problem && error.status === 401;
    notice.hidden = !error || ended;
    if (ended) {
      sessionEnded();
    }
    if (notice.hidden) {
      return;
    }
    const text = error instanceof Problem ? [error.message, error.hint].filter(Boolean).join(". ") : "Helm can't be reached; it is tried again.";
    notice.replaceChildren(element("span", "helm-notice__text", `${text[0].toUpperCase()}${text.slice(1)}`));
    this.flush();
  }

  // ---- counts beside the lines ----

  async refreshAside() {
    clearTimeout(this.refreshing);
    // What is loaded again by the same parameters, as when the stream has left lines out, has the same counts.
    const asked = this.feed.parameters;
    const range = rangeOf(this.state);
    const end = range.to ?? nowMicros();
    const parameters = { ...this.parameters(), start_time: isoOf(range.from), end_time: isoOf(end) };
    // Requests are not aborted: each abort would be an error in the log of the store's PostgreSQL.
    try {
      const counts = await this.source.get("logs/histogram", parameters);
      if (asked !== this.feed.parameters) {
        return;
      }
      const buckets = counts.buckets.map((bucket) => ({ ...bucket, start: microsOf(bucket.start) }));
      this.total = buckets.reduce((sum, bucket) => sum + bucket.total, 0);
      this.countedBackTo = counts.counted_back_to ? microsOf(counts.counted_back_to) : null;
      this.volume.set([range.from, end], counts.step_seconds * 1e6, buckets, this.marks, this.countedBackTo);
      this.showCount();
      await this.refreshMarks(range.from, end, counts.gaps ?? []);
      if (asked !== this.feed.parameters) {
        return;
      }
      this.volume.set([range.from, end], counts.step_seconds * 1e6, buckets, this.marks, this.countedBackTo);
      await this.refreshFacets(parameters, asked);
    } catch (error) {
      if (error.name === "AbortError" || asked !== this.feed.parameters) {
        return;
      }
      // An invalid query (400) was reported when the lines were loaded.
      if (error.status !== 400) {
        this.fail(error);
      }
    }
    if (this.range.live) {
      clearTimeout(this.refreshing);
      this.refreshing = setTimeout(() => !document.hidden && this.refreshAside(), REFRESH_MS);
    }
  }

  async refreshFacets(parameters, asked) {
    const read = (keys) => {
      const field = ["level", "service", "source", "stream", "context", ...keys].join(",");
      return this.source.get("logs/facets", { ...parameters, field });
    };
    let keys = this.contextKeys;
    let found = await read(keys.map((key) => `context.${key}`));
    const keysFound = found.facets.find((facet) => facet.field === "context")?.values.map((each) => each.value) ?? [];
    this.knownKeys = keysFound.filter((key) => /^[\w-]+$/.test(key) && !key.startsWith("_"));
    const columnKeys = [...new Set([...this.state.columns, ...this.knownKeys])].filter((key) => /^[\w.-]+$/.test(key)).slice(0, 5);
    if (columnKeys.some((key) => !keys.includes(key)) && asked === this.feed.parameters) {
      keys = this.contextKeys = columnKeys;
      found = await read(keys.map((key) => `context.${key}`));
    }
    if (asked === this.feed.parameters) {
      this.facets.set(found.facets.filter((facet) => facet.field !== "context"));
    }
  }

  async refreshMarks(from, to, gaps) {
    const named = clausesOf(this.state.query).find((each) => /^service:[a-z0-9_,-]+$/.test(each));
    const service = this.service || named?.slice(8) || "";
    const query = { source: "systemd,helm", service, start_time: isoOf(from), end_time: isoOf(to), total: "false", limit: 500 };
    const deploys = { ...query, source: "helm", service: "helm", query: "context.action:modules*" };
    const found = await Promise.all([query, ...(service ? [deploys] : [])].map((each) => this.source.get("logs", each)));
    const ofService = service.split(",");
    const marks = found.flatMap(({ logs }) => logs).map(markOf)
      .filter((mark) => mark && mark.kind !== "gap" && (!service || ofService.includes(mark.service)));
    this.marks = [...marks, ...gaps.map((gap) => gapMark(gap, from, to))];
    this.flush();
  }

  valuesOf(field) {
    const found = this.facets.values(field);
    if (found) {
      return found;
    }
    return {
      service: this.services.map((value) => ({ value })),
      level: ["debug", "info", "warning", "error", "critical"].map((value) => ({ value })),
      source: ["journal", "http", "systemd", "helm"].map((value) => ({ value })),
      stream: ["stdout", "stderr"].map((value) => ({ value })),
      has: ["trace", "user", "context.status"].map((value) => ({ value })),
    }[field];
  }

  // ---- navigation ----

  jump(micros) {
    this.go({ at: `${Math.floor(micros)}-0`, entry: null });
  }

  widen() {
    const { from, to } = this.range;
    const span = (to ?? nowMicros()) - from;
    const relative = { "-5m": "-15m", "-15m": "-1h", "-1h": "-6h", "-6h": "-24h", "-24h": "-7d", "-7d": "-30d", "-30d": "-90d" }[this.state.from];
    const cursor = this.feed.window.first?.cursor ?? "";
    this.go({ from: !this.state.to && relative ? relative : isoOf(from - span), at: cursor, entry: null });
  }

  showBeginning() {
    this.pause();
    this.go({ from: isoOf(this.range.from), at: `${Math.floor(this.range.from)}-0`, entry: null });
  }

  async nextError(direction) {
    const { rows } = this;
    const index = this.active === null ? -1 : rows.indexOf(this.active);
    const [first, last] = rows.visibleRange();
    const edge = direction > 0 ? first - 1 : last + 1;
    const start = index >= 0 && index >= first - 1 && index <= last + 1 ? index : edge;
    for (let at = start + direction; at >= 0 && at < rows.items.length; at += direction) {
      const item = rows.items[at];
      if (item.kind === "row" && /ERROR|CRITICAL/.test(item.row.entry.level)) {
        this.pause();
        this.activate(item.key);
        return;
      }
    }
    const { window } = this.feed;
    const beyond = direction > 0 ? window.newer && window.last?.cursor : window.older && window.olderCursor;
    if (beyond) {
      const place = direction > 0 ? { after: beyond } : { cursor: beyond };
      const { logs } = await this.source.get("logs", { ...this.parameters(), min_level: "ERROR", total: "false", limit: 1, ...place });
      if (logs.length) {
        this.go({ at: rowOf(logs[0]).cursor, entry: null });
        return;
      }
    }
    this.menus.announce(direction > 0 ? "No later error in this range" : "No earlier error in this range");
  }

  activate(key, reveal = true) {
    const before = this.active;
    this.active = key;
    if (key !== null && before !== key) {
      this.part("lines").setAttribute("aria-activedescendant", `line-${key}`);
    }
    if (reveal) {
      this.rows.reveal(this.rows.indexOf(key));
    }
    this.rows.draw();
  }

  step(by) {
    const { rows } = this;
    const [first, last] = rows.visibleRange();
    let at = this.active === null ? -1 : rows.indexOf(this.active);
    at = at < 0 ? (by > 0 ? first : last) : at + by;
    while (rows.items[at] && rows.items[at].kind !== "row") {
      at += by;
    }
    if (rows.items[at]) {
      this.pause();
      this.activate(rows.items[at].key);
      this.loadAtEdges();
    }
  }

  toggle(id) {
    const opens = !this.open.has(id);
    if (opens) {
      this.pause();
      this.open.add(id);
      const item = this.rows.items[this.rows.indexOf(id)];
      if (item?.kind === "row") {
        this.ungrouped.delete(id);
      }
    } else {
      this.open.delete(id);
      this.untruncated.delete(id);
    }
    this.state = { ...this.state, entry: opens ? id : null };
    history.replaceState(null, "", `${location.pathname}${searchOf(this.state)}`);
    this.activate(id, false);
    this.rows.drawNow();
    this.rows.reveal(this.rows.indexOf(id));
  }

  // ---- actions ----

  perform(action, row, more = {}) {
    const { entry } = row;
    const { state } = this;
    switch (action) {
      case "around":
        this.go({ at: row.cursor, entry: row.id, query: this.service ? "" : clause("service", entry.service_name) });
        break;
      case "trace":
        this.go({ query: clause("trace", entry.trace_id), at: "", entry: null });
        break;
      case "value":
        this.go({ query: withValue(state.query, more.field, more.value, more.how), at: "", entry: null });
        break;
      case "hide":
        this.hideLike(row);
        break;
      case "column":
        this.menus.column(more.name);
        break;
      case "untruncate":
        this.untruncated.add(row.id);
        this.rows.draw();
        break;
      case "ungroup":
        this.pause();
        for (const each of more.rows) {
          this.ungrouped.add(each.id);
        }
        this.flush();
        break;
      case "copy-text":
        this.menus.copy(`${isoOf(row.micros)} ${entry.service_name} ${entry.level} ${entry.message}`, "Text copied");
        break;
      case "copy-json":
        this.menus.copy(JSON.stringify(entry, null, 2), "JSON copied");
        break;
      case "copy-command":
        this.menus.copy(`helmctl logs ${entry.service_name} --since '${isoOf(row.micros)}' --until '${isoOf(row.micros + 1e6)}'`, "Command copied");
        break;
      case "copy-link":
        this.menus.copy(this.link({ at: row.cursor, entry: row.id }), "Link copied");
        break;
      default:
    }
  }

  /** Excludes lines of the same pattern as a row's: they differ only in numbers, ids and quoted parts. */
  async hideLike(row) {
    let term = "";
    try {
      const times = { start_time: isoOf(row.micros), end_time: isoOf(row.micros + 1) };
      const found = await this.source.get("logs/patterns", { query: `id:${row.id}`, ...times });
      term = found.patterns.length ? `-${found.patterns[0].term}` : "";
    } catch (error) {
      this.fail(error);
    }
    if (term) {
      this.go({ query: withClause(this.state.query, term), at: "", entry: null });
    }
  }

  /** A permanent link to what is shown: its times are absolute. */
  link(changes = {}) {
    return `${location.origin}${location.pathname}${searchOf(withAbsoluteTimes({ ...this.state, ...changes }))}`;
  }

  // ---- events ----

  listen() {
    const lines = this.part("lines");
    this.part("new").addEventListener("click", () => this.resume());
    lines.addEventListener("click", (event) => {
      const line = event.target.closest(".helm-line");
      if (!line || event.target.closest("button, a, .helm-line__more") || String(getSelection())) {
        return;
      }
      this.toggle(Number(line.dataset.id));
    });
    lines.addEventListener("wheel", (event) => event.deltaY < 0 && this.pause(), { passive: true });
    addEventListener("popstate", () => {
      // A link to a fragment also fires popstate, without a change of the state.
      if (searchOf(stateOf(location.search)) !== searchOf(this.state)) {
        this.state = stateOf(location.search);
        this.applyState();
      }
    });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.feed.suspend() : this.onVisible()));
    document.addEventListener("keydown", (event) => this.onKey(event), true);
    bind("e", "Next error", () => this.nextError(1));
    bind("E", "Error before", () => this.nextError(-1));
    bind("w", "Wrap long lines", () => this.setDisplay({ wrap: !this.state.wrap }));
    bind("u", "Times in UTC, or local", () => this.setDisplay({ utc: !this.state.utc }));
    addEventListener("resize", () => this.fit());
    const above = new ResizeObserver(() => this.fit());
    for (const name of ["views", "form", "notice", "head", "patterns"]) {
      above.observe(this.part(name));
    }
    setInterval(() => this.slide(), 1000);
  }

  async onVisible() {
    await this.feed.resume();
    this.flush();
    this.refreshAside();
  }

  /** Moves the histogram of a live range to the current time. */
  slide() {
    if (this.range.live && !document.hidden && !this.volume.drag) {
      const { from } = rangeOf(this.state);
      this.volume.slide([from, nowMicros()]);
    }
  }

  /** Fits the list into the window, by script: the height of the gateway's frame is not known to the style sheet. */
  fit() {
    const lines = this.part("lines");
    const { top } = lines.getBoundingClientRect();
    const rail = document.querySelector(".helm-rail");
    const bar = rail && getComputedStyle(rail).flexDirection === "row" ? rail.offsetHeight : 0;
    lines.style.height = `${Math.max(320, innerHeight - top - scrollY - BOTTOM_MARGIN - bar)}px`;
    const body = this.part("facets").nextElementSibling;
    this.part("facets").style.setProperty("--helm-facets", `${body.offsetHeight}px`);
  }

  onKey(event) {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) {
      return;
    }
    const inList = event.target === this.part("lines") || event.target === document.body || event.target.closest(".helm-line");
    const listKeys = {
      j: () => this.step(1),
      k: () => this.step(-1),
      ArrowDown: () => this.step(1),
      ArrowUp: () => this.step(-1),
      Enter: () => this.rows.indexOf(this.active) >= 0 && this.toggle(this.active),
      Escape: () => this.open.size && [...this.open].forEach((id) => this.toggle(id)),
      Home: () => this.showBeginning(),
      End: () => this.resume(),
    };
    const act = inList && !event.target.closest("button, a, summary") ? listKeys[event.key] : undefined;
    if (act && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      event.stopPropagation();
      act();
    }
  }
}

// The query with a value of a facet; the value null is for entries without the field.
function chosenQuery(query, field, { value, term }, how) {
  if (value !== null) {
    return withValue(query, field, value, how);
  }
  return withClause(query, how === "exclude" ? (term.startsWith("-") ? term.slice(1) : `-${term}`) : term);
}

const host = document.querySelector("[data-logs]");
if (host) {
  host.logs = new LogsPage(host);
}
