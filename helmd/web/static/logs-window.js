// The entries in memory: a contiguous range of those that match, ordered by time and id. It does not use the DOM.

export const LIMIT = 4000;

const MICROS = /\.(\d{1,6})/;

// Microseconds since 1970 of an ISO 8601 time; a Date has only milliseconds.
export function microsOf(text) {
  const fraction = MICROS.exec(text);
  const digits = fraction ? fraction[1].padEnd(6, "0") : "000000";
  return Math.floor(Date.parse(text) / 1000) * 1000000 + Number(digits);
}

// An entry with its time in microseconds, and its cursor for the API.
export function rowOf(entry) {
  const micros = microsOf(entry.timestamp);
  return { id: entry.id, micros, cursor: `${micros}-${entry.id}`, entry };
}

function compare(a, b) {
  return a.micros - b.micros || a.id - b.id;
}

export class LogWindow {
  constructor(limit = LIMIT) {
    this.limit = limit;
    this.clear();
  }

  clear() {
    this.rows = [];
    this.ids = new Set();
    // Whether the store may have older or newer entries that match.
    this.older = false;
    this.newer = false;
    this.olderCursor = null;
    this.newerCursor = null;
    this.searchedBackTo = null;
  }

  get first() {
    return this.rows[0];
  }

  get last() {
    return this.rows[this.rows.length - 1];
  }

  /** Adds rows, ignoring those it has already; returns how many are new. */
  merge(rows) {
    const fresh = rows.filter((row) => !this.ids.has(row.id) && this.ids.add(row.id)).sort(compare);
    if (!fresh.length) {
      return 0;
    }
    if (!this.rows.length || compare(this.last, fresh[0]) < 0) {
      for (const row of fresh) {
        this.rows.push(row);
      }
    } else if (compare(fresh[fresh.length - 1], this.first) < 0) {
      this.rows = fresh.concat(this.rows);
    } else {
      this.rows = this.rows.concat(fresh).sort(compare);
    }
    return fresh.length;
  }

  /**
   * Adds rows of the live stream and returns how many are new. Beyond the limit, the oldest rows are dropped if
   * `following`, else the new ones, which are then read from the store on scrolling.
   */
  append(rows, following) {
    let fresh = rows;
    if (this.newer) {
      return 0;
    }
    // Rows before the window are read from the store on scrolling: adding them now would leave a gap.
    if (this.older && this.first) {
      fresh = fresh.filter((row) => compare(row, this.first) > 0);
    }
    if (!following) {
      const free = Math.max(0, this.limit - this.rows.length);
      if (fresh.length > free) {
        fresh = fresh.slice(0, free);
        this.newer = true;
        this.newerCursor = null;
      }
    }
    const added = this.merge(fresh);
    if (following) {
      this.dropOldest();
    }
    return added;
  }

  dropOldest() {
    const excess = this.rows.length - this.limit;
    if (excess > 0) {
      this.forget(this.rows.splice(0, excess));
      this.older = true;
      this.olderCursor = this.first.cursor;
      this.searchedBackTo = null;
    }
  }

  dropNewest() {
    const excess = this.rows.length - this.limit;
    if (excess > 0) {
      this.forget(this.rows.splice(this.limit, excess));
      this.newer = true;
      this.newerCursor = null;
    }
  }

  forget(rows) {
    for (const row of rows) {
      this.ids.delete(row.id);
    }
  }

  find(id) {
    return this.ids.has(id) ? this.rows.find((row) => row.id === id) : undefined;
  }
}

function isIdentical(a, b) {
  return (
    a.entry.message === b.entry.message &&
    a.entry.service_name === b.entry.service_name &&
    a.entry.level === b.entry.level &&
    a.entry.stream === b.entry.stream
  );
}

// The items of the list, the oldest first: {key, kind: "row", row, rows}, with successive identical rows as one item
// unless one of them is in `ungrouped`, and {key, kind: "mark", mark} for `marks` ({id, micros, text, tone}) that are
// not among the rows, by `ids`.
export function itemsOf(rows, marks = [], ungrouped = new Set(), ids = new Set(rows.map((row) => row.id))) {
  const items = [];
  const visibleMarks = marks.filter((mark) => !ids.has(mark.id)).sort((a, b) => a.micros - b.micros);
  let next = 0;
  if (rows.length) {
    while (next < visibleMarks.length && visibleMarks[next].micros < rows[0].micros) {
      next += 1;
    }
  }
  let open = null;
  for (const row of rows) {
    while (next < visibleMarks.length && visibleMarks[next].micros < row.micros) {
      items.push({ key: `m${visibleMarks[next].id}`, kind: "mark", mark: visibleMarks[next] });
      next += 1;
      open = null;
    }
    if (open && isIdentical(open.row, row) && !ungrouped.has(row.id) && !ungrouped.has(open.row.id)) {
      open.rows.push(row);
    } else {
      open = { key: row.id, kind: "row", row, rows: [row] };
      items.push(open);
    }
  }
  return items;
}

// Message ids of systemd (sd-messages.h): a unit started, failed, or was killed by the OOM killer.
const STARTED = "39f53479d3a045ac8e11786248231fbf";
const FAILED = new Set(["d9b373ed55a64feb8242e02dbe79a49c", "fe6faa94e7774663a0da52717891d8ef"]);
const DEPLOYED = {
  "modules install": "installed", "modules update": "updated", "modules rollback": "rolled back", "modules remove": "removed",
};

// The mark of an entry of systemd or Helm that explains other lines: start or failure of a unit, a change of a module,
// a gap. Null for other entries. Only fields are used, not the message.
export function markOf(entry) {
  const { message, source, context, service_name: service } = entry;
  const base = { id: entry.id, micros: microsOf(entry.timestamp), service };
  if (context?.gap) {
    return { ...base, kind: "gap", tone: "warn", since: base.micros, until: base.micros, text: message.split("\n", 1)[0].slice(0, 200) };
  }
  if (source === "systemd" && context?.message_id === STARTED) {
    return { ...base, kind: "start", tone: "info", text: `${service} started` };
  }
  if (source === "systemd" && FAILED.has(context?.message_id)) {
    return { ...base, kind: "crash", tone: "error", text: `${service} failed` };
  }
  if (source === "helm" && context?.result === "done" && Object.hasOwn(DEPLOYED, context.action)) {
    const module = context.detail || "a module";
    return { ...base, kind: "deploy", tone: "accent", service: module, text: `${module.slice(0, 60)} ${DEPLOYED[context.action]}` };
  }
  return null;
}

// The mark of a gap of the histogram, limited to a range. Lines may be missing in a gap.
export function gapMark(gap, from, to) {
  const since = gap.since ? microsOf(gap.since) : from;
  const until = gap.until ? microsOf(gap.until) : to;
  const count = gap.at_most === null || gap.at_most === undefined ? "" : `, at most ${gap.at_most.toLocaleString()}`;
  return { id: `gap-${until}`, micros: until, kind: "gap", tone: "warn", since, until, text: `lines may be missing here (${gap.why}${count})` };
}
