// The state of the page, which is in its URL, and the format of times.

export const PRESETS = [
  ["-5m", "Last 5 minutes"],
  ["-15m", "Last 15 minutes"],
  ["-1h", "Last hour"],
  ["-6h", "Last 6 hours"],
  ["-24h", "Last 24 hours"],
  ["-7d", "Last 7 days"],
  ["-30d", "Last 30 days"],
  ["-90d", "Last 90 days"],
];
const UNITS = { m: 60e6, h: 3600e6, d: 86400e6 };
const RELATIVE = /^-(\d{1,4})([mhd])$/;
const DEFAULT = "-1h";

export function nowMicros() {
  return Date.now() * 1000;
}

export function isoOf(micros) {
  const text = new Date(Math.floor(micros / 1000)).toISOString();
  return `${text.slice(0, 23)}${String(Math.floor(micros) % 1000).padStart(3, "0")}Z`;
}

export function stateOf(search) {
  const parameters = new URLSearchParams(search);
  const at = /^\d{1,18}-\d{1,18}$/.test(parameters.get("at") ?? "") ? parameters.get("at") : "";
  return {
    query: (parameters.get("query") ?? "").slice(0, 2000),
    from: validTime(parameters.get("from")) || DEFAULT,
    to: validTime(parameters.get("to")),
    at,
    entry: /^\d{1,18}$/.test(parameters.get("entry") ?? "") ? Number(parameters.get("entry")) : null,
    wrap: parameters.get("wrap") === "1",
    utc: parameters.get("zone") === "utc",
    columns: (parameters.get("columns") ?? "").split(",").filter((name) => /^[\w.-]{1,60}$/.test(name)).slice(0, 4),
  };
}

function validTime(text) {
  return text && (RELATIVE.test(text) || !Number.isNaN(Date.parse(text))) ? text : "";
}

export function searchOf(state) {
  const parameters = new URLSearchParams();
  const set = (name, value) => value && parameters.set(name, value);
  set("query", state.query);
  set("from", state.from === DEFAULT && !state.to ? "" : state.from);
  set("to", state.to);
  set("at", state.at);
  set("entry", state.entry);
  set("wrap", state.wrap ? "1" : "");
  set("zone", state.utc ? "utc" : "");
  set("columns", state.columns.join(","));
  const text = parameters.toString();
  return text ? `?${text}` : "";
}

// The range of a state in microseconds; without an end, `to` is null and the range is live.
export function rangeOf(state, now = nowMicros()) {
  const end = state.to ? timeOf(state.to, now) : null;
  return { from: timeOf(state.from, end ?? now), to: end, live: end === null };
}

function timeOf(text, now) {
  const relative = RELATIVE.exec(text);
  return relative ? now - Number(relative[1]) * UNITS[relative[2]] : Date.parse(text) * 1000;
}

// The state with absolute instead of relative times.
export function withAbsoluteTimes(state, now = nowMicros()) {
  const { from, to } = rangeOf(state, now);
  return { ...state, from: isoOf(from), to: isoOf(to ?? now) };
}

export function isDefaultRange(state) {
  return state.from === DEFAULT && !state.to;
}

// Formats times in microseconds, local or UTC, in the browser's locale.
export class Times {
  constructor(utc) {
    const zone = utc ? { timeZone: "UTC" } : {};
    this.utc = utc;
    const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    this.clocks = new Intl.DateTimeFormat(undefined, { ...clock, second: "2-digit", fractionalSecondDigits: 3, ...zone });
    this.minutes = new Intl.DateTimeFormat(undefined, { ...clock, ...zone });
    this.seconds = new Intl.DateTimeFormat(undefined, { ...clock, second: "2-digit", ...zone });
    this.days = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", ...zone });
    this.exacts = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long", ...zone });
  }

  clock(micros) {
    return this.clocks.format(micros / 1000);
  }

  day(micros) {
    return this.days.format(micros / 1000);
  }

  exact(micros) {
    return `${this.exacts.format(micros / 1000)}, .${String(Math.floor(micros % 1e6)).padStart(6, "0")}`;
  }

  /** A label of the time axis, as short as is unambiguous within the range. */
  tick(micros, range) {
    const span = range[1] - range[0];
    const clock = span < 600e6 && span > 1 ? this.seconds.format(micros / 1000) : this.minutes.format(micros / 1000);
    const today = this.day(micros) === this.day(nowMicros());
    return span > 36 * 3600e6 ? `${this.day(micros)} ${clock}` : today || span > 1 ? clock : `${this.day(micros)} ${clock}`;
  }

  range(range, now = nowMicros()) {
    const to = range.to ?? now;
    const both = this.day(range.from) !== this.day(to) || this.day(to) !== this.day(now);
    const text = (micros) => (both ? `${this.day(micros)} ` : "") + this.minutes.format(micros / 1000);
    return `${text(range.from)} \u2013 ${range.live ? "now" : text(to)}`;
  }
}

// Parses the value of a datetime-local field into microseconds; NaN where it is empty.
export function typedTime(text, utc) {
  return text ? Date.parse(utc ? `${text}Z` : text) * 1000 : Number.NaN;
}

// The value of a datetime-local field for a time in microseconds.
export function fieldTime(micros, utc) {
  const offset = utc ? 0 : new Date(micros / 1000).getTimezoneOffset() * 60000;
  return new Date(micros / 1000 - offset).toISOString().slice(0, 19);
}
