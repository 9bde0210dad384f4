// The chart of a metric: for each series a line of means in a band from minimum to maximum; a cursor for mouse and
// keyboard, shared by all charts of the page; a summary; and the points as a table.
import { copy, h } from "./dom.js";
import { exact, isUtc } from "./format.js";
import uPlot from "./vendor/uplot.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const SYNC = "helm";
const COLOURS = 8;
// Lines differ in their dashes, too: colour alone would not be accessible.
const DASHES = [[], [8, 3], [2, 2], [8, 3, 2, 3], [14, 4], [4, 4], [14, 3, 2, 3], [1, 3]];
const DAY = 86400;

const valueFormats = new Map();

/** Formats a value with about three significant digits, in the browser's locale, with its unit. */
export function formatValue(value, unit = "") {
  if (value === null || value === undefined) {
    return "–";
  }
  const size = Math.abs(value);
  // Below 1, the grid of a chart may have steps of 0.005.
  const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  let format = valueFormats.get(digits);
  if (!format) {
    format = new Intl.NumberFormat(undefined, digits < 3 ? { maximumFractionDigits: digits } : { maximumSignificantDigits: 3 });
    valueFormats.set(digits, format);
  }
  return format.format(value) + (unit ? `\u00a0${unit}` : "");
}

const timeFormats = new Map();

/** Formats a time in seconds since the epoch; `style` is "time", "seconds" (time with seconds) or "day". */
export function axisTime(seconds, style) {
  const key = `${style} ${isUtc()}`;
  let format = timeFormats.get(key);
  if (!format) {
    const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    const styles = { time, seconds: { ...time, second: "2-digit" }, day: { day: "numeric", month: "short" } };
    format = new Intl.DateTimeFormat(undefined, { ...styles[style], timeZone: isUtc() ? "UTC" : undefined });
    timeFormats.set(key, format);
  }
  return format.format(seconds * 1000);
}

/** The computed text colour of a class, for canvas, which has no CSS variables. */
function colour(name, opacity = 1) {
  const probe = h("span", { class: `helm-ink helm-ink--${name}` });
  document.querySelector(".helm-page").append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return opacity === 1 ? found : `color-mix(in oklab, ${found} ${opacity * 100}%, transparent)`;
}

/** The indices of points without neighbours, which are drawn as dots, since no line reaches them. */
function isolated(u, index) {
  const data = u.data[index];
  const found = [];
  for (let at = 0; at < data.length; at++) {
    if (data[at] != null && data[at - 1] == null && data[at + 1] == null) {
      found.push(at);
    }
  }
  return found;
}

/** Minimum, maximum, mean and last value of a series, over all points that are shown; null where it has none. */
export function summary(one) {
  let [min, max, last] = [null, null, null];
  let [total, count] = [0, 0];
  for (let at = 0; at < one.mean.length; at++) {
    if (one.mean[at] === null) {
      continue;
    }
    min = min === null ? one.min[at] : Math.min(min, one.min[at]);
    max = max === null ? one.max[at] : Math.max(max, one.max[at]);
    total += one.mean[at] * one.count[at];
    count += one.count[at];
    last = one.mean[at];
  }
  return { min, max, mean: count ? total / count : null, last };
}

/** Creates a sample of a series' line, for the legend. */
function sample(number) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", `helm-sample helm-ink--series-${number}`);
  made.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", "M0 5h24");
  line.setAttribute("stroke-dasharray", DASHES[number].join(" "));
  made.append(line);
  return made;
}

const head = (text) => h("th", { class: "helm-table__head", scope: "col" }, text);
const numberHead = (text) => h("th", { class: "helm-table__head helm-table__head--number", scope: "col" }, text);
const cell = (...content) => h("td", { class: "helm-table__cell" }, content);
const numberCell = (...content) => h("td", { class: "helm-table__cell helm-table__cell--number" }, content);
const row = (...cells) => h("tr", { class: "helm-table__row" }, cells);
const table = (label, heads, body) =>
  h("table", { class: "helm-table helm-table--dense", "aria-label": label }, h("thead", { class: "helm-table__top" }, row(...heads)), body);

export class Chart {
  /**
   * `metric` has name, title and unit. `zoom` is called with the selected range in seconds, `announce` with text for
   * screen readers.
   */
  constructor(metric, { zoom, announce }) {
    Object.assign(this, { metric, zoom, announce, plot: null, signature: "", at: null, marked: null });
    this.canvas = h("div", {
      class: "helm-chart__plot",
      tabindex: "0",
      role: "group",
      "aria-label": `${metric.title}: arrow keys read points, Enter twice zooms, Escape leaves`,
      onkeydown: (event) => this.onKeydown(event),
      onblur: () => this.leave(),
    });
    this.body = h("tbody", { class: "helm-table__body" });
    this.nowHead = numberHead("Last");
    this.points = h("div", { class: "helm-chart__points" });
    this.details = h(
      "details",
      { class: "helm-chart__details", ontoggle: () => this.fillTable() },
      h("summary", { class: "helm-chart__summary" }, "All points as a table"),
      this.points,
    );
    this.element = h(
      "section",
      { class: "helm-card helm-chart", "aria-label": metric.title, "data-chart": metric.name },
      h(
        "header",
        { class: "helm-chart__head" },
        h("h2", { class: "helm-chart__title" }, metric.title),
        h("span", { class: "helm-chart__unit" }, metric.unit),
      ),
      this.canvas,
      table(`${metric.title} by series`, [head("Series"), this.nowHead, numberHead("Min"), numberHead("Mean"), numberHead("Max")], this.body),
      this.details,
    );
    new ResizeObserver(() => {
      if (this.plot && this.canvas.clientWidth) {
        this.plot.setSize({ width: this.canvas.clientWidth, height: HEIGHT });
      }
    }).observe(this.canvas);
  }

  /**
   * Draws `data`: times, from, to and step in seconds, and series with key, label, colour, and mean, min, max, count by
   * time.
   */
  show(data) {
    this.data = data;
    const arrays = [data.times];
    for (const one of data.series) {
      arrays.push(one.max, one.min, one.mean);
    }
    const looks = [colour("text"), isUtc(), ...data.series.map((one) => `${one.key}/${one.colour}`)];
    const signature = JSON.stringify(looks);
    if (this.plot && signature === this.signature) {
      this.plot.setData(arrays);
    } else {
      this.signature = signature;
      this.plot?.destroy();
      this.plot = new uPlot(this.options(data), arrays, this.canvas);
    }
    this.legend();
    if (this.details.open) {
      this.fillTable();
    }
  }

  options(data) {
    const [line, muted] = [colour("line"), colour("muted")];
    const series = [{}];
    const bands = [];
    for (const [index, one] of data.series.entries()) {
      const name = `series-${one.colour % COLOURS}`;
      const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: false };
      const mean = { stroke: colour(name), dash: DASHES[one.colour % COLOURS], width: 1.5, spanGaps: false };
      mean.points = { show: true, size: 5, fill: mean.stroke, filter: isolated };
      series.push({ ...edge }, { ...edge }, mean);
      bands.push({ series: [index * 3 + 1, index * 3 + 2], fill: colour(name, 0.22) });
    }
    const axis = { stroke: muted, gap: 4, font: "12px system-ui, sans-serif" };
    return {
      width: Math.max(this.canvas.clientWidth, 200),
      height: HEIGHT,
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false, dist: 5 },
        sync: { key: SYNC, setSeries: false, scales: ["x", null] },
        bind: { dblclick: () => () => null },
      },
      hooks: {
        setCursor: [(u) => this.onCursor(u.cursor.left >= 0 ? (u.cursor.idx ?? null) : null)],
        setSelect: [(u) => this.onSelect(u)],
      },
      scales: { x: { time: true, range: () => [this.data.from, this.data.to] }, y: { range: limits } },
      axes: [
        {
          ...axis,
          grid: { show: false },
          ticks: { stroke: line, width: 1, size: 4 },
          size: 28,
          space: 72,
          values: (u, splits, index, space, increment) => splits.map((at) => this.tick(at, increment)),
        },
        {
          ...axis,
          grid: { stroke: line, width: 1 },
          ticks: { show: false },
          size: 52,
          values: (u, splits) => splits.map((value) => formatValue(value)),
        },
      ],
      series,
      bands,
      tzDate: (at) => (isUtc() ? uPlot.tzDate(new Date(at * 1000), "Etc/UTC") : new Date(at * 1000)),
    };
  }

  tick(at, increment) {
    if (increment >= DAY) {
      return axisTime(at, "day");
    }
    const clock = axisTime(at, increment < 60 ? "seconds" : "time");
    return clock === "00:00" && this.data.to - this.data.from > DAY / 2 ? axisTime(at, "day") : clock;
  }

  legend() {
    const at = this.at;
    const rows = this.data.series.map((one) => {
      const all = summary(one);
      const spread = at !== null && one.max[at] !== null && one.max[at] !== one.min[at];
      return row(
        h(
          "th",
          { class: "helm-table__cell helm-table__cell--name", scope: "row" },
          sample(one.colour % COLOURS),
          one.label,
        ),
        numberCell(
          formatValue(at === null ? all.last : one.mean[at]),
          spread ? h("span", { class: "helm-sub" }, `${formatValue(one.min[at])} to ${formatValue(one.max[at])}`) : null,
        ),
        numberCell(formatValue(all.min)),
        numberCell(formatValue(all.mean)),
        numberCell(formatValue(all.max)),
      );
    });
    this.nowHead.textContent = at === null ? "Last" : axisTime(this.data.times[at], "seconds");
    this.body.replaceChildren(...rows);
  }

  onCursor(index) {
    if (index !== this.at && this.data) {
      this.at = index;
      this.legend();
    }
  }

  onSelect(u) {
    const { left, width } = u.select;
    if (!width) {
      return;
    }
    // Charts that share the cursor get the selection, too; only the one under the pointer zooms.
    const own = width >= 5 && u.cursor.event;
    const [from, to] = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (own) {
      this.zoom(from, to);
    }
  }

  onKeydown(event) {
    const size = this.data?.times.length ?? 0;
    if (!size || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const jump = event.shiftKey ? 10 : 1;
    const at = this.at;
    const moves = {
      ArrowLeft: at === null ? size - 1 : Math.max(0, at - jump),
      ArrowRight: at === null ? 0 : Math.min(size - 1, at + jump),
      Home: 0,
      End: size - 1,
    };
    if (event.key in moves) {
      this.moveTo(moves[event.key]);
    } else if (event.key === "Enter" && at !== null) {
      this.mark(this.data.times[at]);
    } else if (event.key === "Escape" && at !== null) {
      this.leave();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  mark(time) {
    if (this.marked === null || this.marked === time) {
      this.marked = time;
      this.announce(`Zoom from ${axisTime(time, "seconds")}: move, then press Enter again`);
      return;
    }
    const [from, to] = [Math.min(this.marked, time), Math.max(this.marked, time) + this.data.step];
    this.marked = null;
    this.zoom(from, to);
  }

  moveTo(index) {
    const time = this.data.times[index];
    this.plot.setCursor({ left: this.plot.valToPos(time, "x"), top: 10 }, true, true);
    this.onCursor(index);
    const parts = this.data.series.map((one) => {
      if (one.mean[index] === null) {
        return `${one.label} nothing measured`;
      }
      const spread = one.min[index] === one.max[index] ? "" : `, ${formatValue(one.min[index])} to ${formatValue(one.max[index])}`;
      return `${one.label} ${formatValue(one.mean[index], this.metric.unit)}${spread}`;
    });
    this.announce(`${axisTime(time, "seconds")}: ${parts.join("; ")}`);
  }

  leave() {
    this.marked = null;
    this.plot?.setCursor({ left: -10, top: -10 }, true, true);
    this.onCursor(null);
  }

  /** The rows of the table: one for each time and series, the newest first. */
  rows() {
    const rows = [];
    for (let at = this.data.times.length - 1; at >= 0; at--) {
      for (const one of this.data.series.filter((each) => each.mean[at] !== null)) {
        const time = new Date(this.data.times[at] * 1000).toISOString();
        const figures = { mean: one.mean[at], min: one.min[at], max: one.max[at], count: one.count[at] };
        rows.push({ time, series: one.label, ...figures });
      }
    }
    return rows;
  }

  fillTable() {
    if (!this.details.open || !this.data) {
      return;
    }
    const rows = this.rows();
    const csv = () =>
      [Object.keys(rows[0] ?? {}), ...rows.map(Object.values)]
        .map((line) => line.map((value) => `"${String(value).replaceAll('"', '""')}"`).join(","))
        .join("\r\n");
    const copies = (label, make) =>
      h(
        "button",
        { class: "helm-button helm-button--small", type: "button", onclick: () => copy(make(), `${rows.length} rows copied`) },
        label,
      );
    const heads = [head("Time"), head("Series"), ...["Mean", "Min", "Max", "Measurements"].map(numberHead)];
    const body = h(
      "tbody",
      { class: "helm-table__body" },
      rows.map((each) =>
        row(
          cell(h("time", { class: "helm-time", datetime: each.time }, exact(Date.parse(each.time)))),
          cell(each.series),
          ...[each.mean, each.min, each.max, each.count].map((value) => numberCell(formatValue(value))),
        ),
      ),
    );
    this.points.replaceChildren(
      h(
        "p",
        { class: "helm-chart__copy" },
        copies("Copy as CSV", csv),
        copies("Copy as JSON", () => JSON.stringify(rows, null, 1)),
      ),
      h(
        "div",
        { class: "helm-table-box helm-chart__all", tabindex: "0", role: "region", "aria-label": `Points of ${this.metric.title}` },
        table(`Points of ${this.metric.title}`, heads, body),
      ),
    );
  }
}

/** The range of the y axis. It includes 0, so that a small change does not look large. */
function limits(u, min, max) {
  if (min === null || min === undefined) {
    return [0, 1];
  }
  const [bottom, top] = [min < 0 ? min * 1.08 : 0, max > 0 ? max * 1.08 : 0];
  return bottom === top ? [bottom, bottom + 1] : [bottom, top];
}
