// The page of charts. Its state is in the URL; points are read from GET /api/metrics/{name}, repeatedly while the range
// is live.
import { api } from "./api.js";
import { Chart, axisTime } from "./chart.js";
import { copy } from "./dom.js";
import { isUtc } from "./format.js";

const TARGET_POINTS = 240;
const STEPS = [30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];
const MAX_SERVICES = 8;
const UPDATE_MS = 15000;
const COARSE_UPDATE_MS = 60000;
const STANDARD = new Map([
  ["cpu_percent", { title: "CPU", unit: "% of one core" }],
  ["memory_mb", { title: "Memory", unit: "MiB" }],
  ["response_ms", { title: "Response time", unit: "ms" }],
  ["log_rate", { title: "Log rate", unit: "lines/s" }],
  ["restarts", { title: "Restarts", unit: "since the unit was loaded" }],
  ["health", { title: "Health", unit: "1 healthy, 0.5 degraded, 0 not working" }],
]);
const UNITS = [
  [/_ms$/, "ms"],
  [/_seconds$/, "s"],
  [/_(mb|mib)$/, "MiB"],
  [/_bytes$/, "bytes"],
  [/_percent$/, "%"],
];

const page = document.querySelector("[data-metrics]");
const charts = page.querySelector("[data-charts]");
const status = page.querySelector("[data-metrics-status]");
const failure = page.querySelector("[data-metrics-failure]");
const liveRegion = page.querySelector("[data-metrics-spoken]");
const period = page.querySelector("[data-metrics-period]");
const known = [...page.querySelectorAll("[data-service]")];
const ranges = new Map([...page.querySelectorAll("[data-range]")].map((each) => [each.dataset.range, Number(each.dataset.seconds)]));
const chartsByMetric = new Map();
const interval = Number(page.dataset.interval);
const now = () => Date.now() / 1000;

const state = { services: [], range: "", from: 0, to: 0 };
let store = null;
let generation = 0;
let timer = 0;

function readUrl() {
  const parameters = new URL(location.href).searchParams;
  const names = new Set(known.map((each) => each.dataset.service));
  const requested = (parameters.get("service") ?? page.dataset.chosen).split(",").filter((name) => names.has(name));
  state.services = [...new Set(requested)].slice(0, MAX_SERVICES);
  const from = Date.parse(parameters.get("from") ?? "") / 1000;
  const to = Date.parse(parameters.get("to") ?? "") / 1000;
  if (from < to) {
    Object.assign(state, { range: "", from, to });
  } else {
    const range = parameters.get("range");
    Object.assign(state, { range: ranges.has(range) ? range : page.dataset.range, from: 0, to: 0 });
  }
}

function urlOfState(absolute = false) {
  const url = new URL(location.href);
  const [from, to] = span();
  url.search = "";
  url.searchParams.set("service", state.services.join(","));
  if (state.range && !absolute) {
    url.searchParams.set("range", state.range);
  } else {
    url.searchParams.set("from", new Date(from * 1000).toISOString());
    url.searchParams.set("to", new Date(to * 1000).toISOString());
  }
  return url.href.replaceAll("%2C", ",").replaceAll("%3A", ":");
}

function span() {
  if (!state.range) {
    return [state.from, state.to];
  }
  const to = now();
  return [to - ranges.get(state.range), to];
}

function change(what, push = true) {
  Object.assign(state, what);
  history[push ? "pushState" : "replaceState"](null, "", urlOfState());
  showChoice();
  return load();
}

function showChoice() {
  for (const each of known) {
    const box = each.querySelector("input");
    box.checked = state.services.includes(each.dataset.service);
    box.disabled = !box.checked && state.services.length >= MAX_SERVICES;
    each.title = box.disabled ? `At most ${MAX_SERVICES} services at once` : "";
    const swatch = each.querySelector("[data-swatch]");
    const at = state.services.indexOf(each.dataset.service);
    swatch.className = `helm-swatch helm-ink--${at < 0 ? "none" : `series-${at}`}`;
  }
  for (const each of page.querySelectorAll("[data-range]")) {
    each.setAttribute("aria-pressed", String(each.dataset.range === state.range));
  }
  page.querySelector("[data-to-now]").hidden = Boolean(state.range);
  page.querySelector("[data-chosen-count]").textContent = state.services.join(", ") || "none";
  showPeriod();
}

function showPeriod() {
  const [from, to] = span();
  const day = (at) => axisTime(at, "day");
  const clock = (at) => axisTime(at, to - from < 7200 ? "seconds" : "time");
  const [first, last] = day(from) === day(to) ? [clock(from), clock(to)] : [`${day(from)} ${clock(from)}`, `${day(to)} ${clock(to)}`];
  const date = day(from) === day(to) ? `${day(from)}, ` : "";
  period.textContent = `${date}${first} – ${last}${isUtc() ? " UTC" : ""}`;
}

function stepFor(seconds) {
  const min = Math.max(seconds / TARGET_POINTS, interval * 2);
  return STEPS.find((step) => step >= min) ?? STEPS.at(-1);
}

function fetchPoints(service, from, to, step) {
  const query = new URLSearchParams({
    start_time: new Date(from * 1000).toISOString(),
    end_time: new Date(to * 1000).toISOString(),
    step: String(step),
  });
  return api("GET", `api/metrics/${encodeURIComponent(service)}?${query}`);
}

/** Adds the points of a reply to the store, by metric, series and time. */
function addPoints(service, reply) {
  store.step = reply.step ?? store.step;
  for (const point of reply.metrics) {
    let series = store.metrics.get(point.metric_name);
    if (!series) {
      store.metrics.set(point.metric_name, (series = new Map()));
    }
    const tags = Object.entries(point.tags ?? {})
      .map(([name, value]) => `${name}=${value}`)
      .sort()
      .join(" ");
    const key = `${service} ${tags}`;
    let points = series.get(key);
    if (!points) {
      series.set(key, (points = { service, label: tags ? `${service} · ${tags}` : service, at: new Map() }));
    }
    points.at.set(Date.parse(point.timestamp) / 1000, point);
  }
}

async function load() {
  const current = ++generation;
  clearTimeout(timer);
  const [from, to] = span();
  store = { metrics: new Map(), step: stepFor(to - from), until: from };
  page.setAttribute("aria-busy", "true");
  await update(current);
}

/** Reads and shows the points since the last update, first those of the whole range. */
async function update(current) {
  const [from, to] = span();
  const since = Math.max(from, store.until - 2 * store.step);
  const { services } = state;
  const step = store.step;
  try {
    const replies = await Promise.all(services.map((service) => fetchPoints(service, since, to, step)));
    if (current !== generation) {
      return;
    }
    replies.forEach((reply, at) => addPoints(services[at], reply));
    store.until = to;
    failure.hidden = true;
    show(from, to);
  } catch (error) {
    if (current !== generation) {
      return;
    }
    failure.hidden = false;
    failure.querySelector("[data-failure-text]").textContent =
      `${error.message}. ${error.hint ?? ""}`;
  }
  page.removeAttribute("aria-busy");
  if (state.range || !failure.hidden) {
    timer = setTimeout(() => (document.hidden ? updateWhenVisible(current) : update(current)), store.step > 600 ? COARSE_UPDATE_MS : UPDATE_MS);
  }
}

function updateWhenVisible(current) {
  timer = setTimeout(() => (document.hidden ? updateWhenVisible(current) : update(current)), UPDATE_MS);
}

function metricOf(name) {
  const standard = STANDARD.get(name);
  const unit = UNITS.find(([pattern]) => pattern.test(name))?.[1] ?? "";
  return { name, title: standard?.title ?? name, unit: standard?.unit ?? unit };
}

function show(from, to) {
  showPeriod();
  const { step } = store;
  const first = Math.floor(from / step) * step;
  const times = [];
  for (let at = first; at < to; at += step) {
    times.push(at);
  }
  const found = [...store.metrics.keys()].filter((name) => !STANDARD.has(name)).sort();
  const names = [...STANDARD.keys()].filter((name) => store.metrics.has(name)).concat(found);
  const shown = [];
  for (const name of names) {
    const series = [];
    for (const [key, one] of [...store.metrics.get(name)].sort(([a], [b]) => a.localeCompare(b))) {
      for (const at of one.at.keys()) {
        if (at < first) {
          one.at.delete(at);
        }
      }
      if (!one.at.size || !state.services.includes(one.service)) {
        continue;
      }
      const points = times.map((at) => one.at.get(at));
      const column = (of) => points.map((point) => (point === undefined ? null : of(point)));
      series.push({
        key,
        label: one.label,
        service: one.service,
        mean: column((point) => point.metric_value),
        min: column((point) => point.minimum ?? point.metric_value),
        max: column((point) => point.maximum ?? point.metric_value),
        count: column((point) => point.count ?? 1),
      });
    }
    if (!series.length) {
      continue;
    }
    // Each service has a colour; where a service has several series, each of them has one.
    const several = new Set(series.map((one) => one.service)).size < series.length;
    series.forEach((one, at) => (one.colour = several ? at : state.services.indexOf(one.service)));
    let chart = chartsByMetric.get(name);
    if (!chart) {
      chart = new Chart(metricOf(name), { zoom, announce });
      chartsByMetric.set(name, chart);
    }
    shown.push([chart, { times, from, to, step, series }]);
  }
  const wanted = shown.map(([chart]) => chart.element);
  if (wanted.length !== charts.children.length || wanted.some((each, at) => each !== charts.children[at])) {
    charts.replaceChildren(...wanted);
  }
  for (const [chart, data] of shown) {
    chart.show(data);
  }
  const empty = page.querySelector("[data-metrics-empty]");
  empty.hidden = wanted.length > 0;
  empty.querySelector("[data-empty-text]").textContent = state.services.length
    ? `Nothing was measured of ${state.services.join(", ")} in this time. Helm measures every ${interval} s while helmd runs.`
    : "Choose a service to see what it used: CPU, memory, response time, log rate, restarts, and the metrics that it posts.";
  const length = step < 120 ? `${step} s` : step < 7200 ? `${step / 60} min` : step < 172800 ? `${step / 3600} h` : `${step / 86400} d`;
  status.textContent = wanted.length ? `Each point: ${length}, its mean as a line, minimum to maximum as a band.` : "";
}

function announce(text) {
  liveRegion.textContent = text;
}

function zoom(from, to) {
  const min = interval * 4;
  const middle = (from + to) / 2;
  const half = Math.max(to - from, min) / 2;
  return change({ range: "", from: middle - half, to: middle + half });
}

function moveBy(share) {
  const [from, to] = span();
  const by = (to - from) * share;
  return change({ range: "", from: from + by, to: to + by });
}

page.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) {
    return;
  }
  if (button.dataset.range) {
    change({ range: button.dataset.range });
  } else if ("earlier" in button.dataset) {
    moveBy(-0.5);
  } else if ("later" in button.dataset) {
    moveBy(0.5);
  } else if ("zoomOut" in button.dataset) {
    const [from, to] = span();
    const most = Math.max(...ranges.values());
    const half = Math.min(to - from, most / 2);
    const middle = (from + to) / 2;
    change({ range: "", from: middle - half, to: Math.min(middle + half, Math.max(to, now())) });
  } else if ("toNow" in button.dataset) {
    change({ range: page.dataset.range });
  } else if ("copyLink" in button.dataset) {
    copy(urlOfState(true), "Link to exactly this time copied");
  }
});

page.addEventListener("change", (event) => {
  const box = event.target.closest("[data-service] input");
  if (box) {
    const name = box.closest("[data-service]").dataset.service;
    const services = box.checked ? [...state.services, name] : state.services.filter((each) => each !== name);
    change({ services });
  }
});

const search = page.querySelector("[data-metrics-search]");
search?.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase();
  for (const each of known) {
    each.hidden = !each.dataset.service.includes(wanted);
  }
});

const custom = page.querySelector("[data-metrics-custom]");
custom.addEventListener("toggle", () => {
  if (custom.open) {
    const [from, to] = span();
    const local = (at) => new Date((at - (isUtc() ? 0 : new Date(at * 1000).getTimezoneOffset() * 60)) * 1000).toISOString().slice(0, 16);
    custom.querySelector("[name=from]").value = local(from);
    custom.querySelector("[name=to]").value = local(to);
  }
});
custom.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = new FormData(event.target);
  const at = (name) => Date.parse(fields.get(name) + (isUtc() ? "Z" : "")) / 1000;
  const [from, to] = [at("from"), at("to")];
  const fault = event.target.querySelector("[data-fault]");
  fault.textContent = from < to ? "" : "The beginning must be before the end.";
  if (from < to) {
    custom.open = false;
    change({ range: "", from, to });
  }
});

addEventListener("popstate", () => {
  readUrl();
  showChoice();
  load();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && state.range && store) {
    clearTimeout(timer);
    update(generation);
  }
});
const redraw = () => {
  if (store?.metrics.size) {
    show(...span());
  }
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
document.addEventListener("helm:times", redraw);

if (matchMedia("(max-width: 900px)").matches) {
  page.querySelector("[data-metrics-pick]").open = false;
}
readUrl();
showChoice();
load();
