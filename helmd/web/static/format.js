// Times and numbers, in the format of the browser's locale.
import { store, stored } from "./dom.js";

let utc = stored("utc", false);
const UNITS = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];
const relativeFormat = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const numberFormat = new Intl.NumberFormat();
let formats = {};

function format(name, options) {
  formats[name] ??= new Intl.DateTimeFormat(undefined, utc ? { ...options, timeZone: "UTC" } : options);
  return formats[name];
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const DAY = { year: "numeric", month: "short", day: "numeric" };

export const isUtc = () => utc;

/** Switches all times to UTC or local time, and stores the choice. */
export function setUtc(enabled) {
  utc = enabled;
  formats = {};
  store("utc", enabled);
  localTimes(document);
  document.dispatchEvent(new CustomEvent("helm:times"));
}

/** "14:02:11" */
export const clock = (at) => format("clock", CLOCK).format(at);
/** "14:02:11.003" */
export const preciseClock = (at) => format("precise", { ...CLOCK, fractionalSecondDigits: 3 }).format(at);
/** "28 Nov 2026" */
export const day = (at) => format("day", DAY).format(at);
/** "28 Nov 2026, 14:02:11 UTC" */
export const exact = (at) => format("exact", { ...DAY, ...CLOCK, timeZoneName: "short" }).format(at);
/** "28 Nov, 14:02" */
export const short = (at) =>
  format("short", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(at);

/** "2 min ago", "in 3 days" */
export function relative(at, now = Date.now()) {
  const seconds = (at - now) / 1000;
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? UNITS.at(-1);
  return relativeFormat.format(Math.trunc(seconds / size), unit);
}

/** "45 s", "12 min", "3 d 4 h": the same format as the server's. */
export function duration(seconds) {
  const left = Math.max(0, Math.floor(seconds));
  if (left < 60) {
    return `${left} s`;
  }
  if (left < 3600) {
    return `${Math.floor(left / 60)} min`;
  }
  const [size, unit, next, nextUnit] = left < 86400 ? [3600, "h", 60, "min"] : [86400, "d", 3600, "h"];
  const rest = Math.floor((left % size) / next);
  return `${Math.floor(left / size)} ${unit}${rest ? ` ${rest} ${nextUnit}` : ""}`;
}

export const number = (value) => numberFormat.format(value);

/** "812 MiB" */
export function size(bytes) {
  let at = 0;
  let amount = bytes;
  while (amount >= 1024 && at < 4) {
    amount /= 1024;
    at += 1;
  }
  const digits = at > 0 && amount < 10 ? 1 : 0;
  const shown = amount.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${shown} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`;
}

const FORMATS = {
  relative: (at) => relative(at),
  since: (at) => duration((Date.now() - at) / 1000),
  clock,
  day,
  short,
  exact,
};

/** Formats every <time> within a node by its `data-shows`, with the exact time as its title. */
export function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) {
      continue;
    }
    const title = exact(at);
    if (time.title !== title) {
      time.title = title;
    }
    const text = FORMATS[time.dataset.shows]?.(at);
    if (text !== undefined && time.textContent !== text) {
      time.textContent = text;
    }
  }
}

localTimes(document);
setInterval(() => document.hidden || localTimes(document), 5000);
