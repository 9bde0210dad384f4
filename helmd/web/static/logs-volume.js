// A histogram of lines by level. Dragging selects a range to zoom into; a bar below marks the range visible in the
// list.
import { element } from "./logs-text.js";

const LEVELS = ["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"];
const TONES = { CRITICAL: "error", ERROR: "error", WARNING: "warn", INFO: "quiet", DEBUG: "quiet" };
const HEIGHT = 84;
const FOOT = 18;
const TICKS = [0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 20160];

export class Volume {
  /**
   * Times are in microseconds. Callbacks: `zoom` with the selected range, `jump` with a time that was clicked; `format`
   * returns the text of a time, `offset` the offset of the time zone.
   */
  constructor(host, { zoom, jump, format, offset }) {
    this.host = host;
    this.zoom = zoom;
    this.jump = jump;
    this.format = format;
    this.offset = offset;
    this.canvas = element("canvas", "helm-volume__canvas");
    this.tip = element("div", "helm-volume__tip", "", { hidden: true });
    this.plot = element("div", "helm-volume__plot", undefined, {
      tabindex: 0,
      role: "slider",
      "aria-label": "Lines over time. Arrow keys move, with Shift they select, Enter shows the selection.",
      "aria-valuemin": 0,
      "aria-valuemax": 0,
      "aria-valuenow": 0,
    });
    this.probe = element("span", "helm-volume__probe", "", { hidden: true });
    this.plot.append(this.canvas, this.tip, this.probe);
    this.table = element("details", "helm-volume__table");
    this.table.append(element("summary", "helm-volume__summary", "As a table"));
    this.table.addEventListener("toggle", () => this.fillTable());
    host.append(this.plot, this.table);
    this.colours = {};
    this.buckets = [];
    this.marks = [];
    this.range = [0, 1];
    this.cursor = null;
    this.selection = null;
    this.visible = null;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.plot);
    const recolour = () => {
      this.colours = {};
      this.draw();
    };
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", recolour);
    }
  }

  set(range, stepMicros, buckets, marks, countedBackTo = null) {
    this.range = range;
    this.step = stepMicros;
    this.buckets = buckets;
    this.marks = marks;
    this.countedBackTo = countedBackTo;
    this.plot.setAttribute("aria-valuemax", Math.max(0, buckets.length - 1));
    this.draw();
    this.fillTable();
  }

  /** Counts entries of the live stream, so that the histogram need not be fetched for each. */
  add(rows) {
    if (!this.step) {
      return;
    }
    for (const row of rows) {
      const start = Math.floor(row.micros / this.step) * this.step;
      let bucket = this.buckets[this.buckets.length - 1];
      if (!bucket || bucket.start < start) {
        bucket = { start, counts: {}, total: 0 };
        this.buckets.push(bucket);
      } else if (bucket.start > start) {
        bucket = this.buckets.find((each) => each.start === start);
      }
      if (bucket) {
        bucket.counts[row.entry.level] = (bucket.counts[row.entry.level] ?? 0) + 1;
        bucket.total += 1;
      }
    }
    this.draw();
  }

  slide(range) {
    this.range = range;
    this.draw();
  }

  showVisible(range) {
    this.visible = range;
    this.draw();
  }

  draw() {
    if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.paint();
      });
    }
  }

  /**
   * A colour of the style sheet by name. It is computed by an element: canvas has neither light-dark() nor variables.
   */
  colour(name) {
    if (!this.colours[name]) {
      this.probe.style.color = `var(--helm-${name})`;
      this.colours[name] = getComputedStyle(this.probe).color;
    }
    return this.colours[name];
  }

  x(micros) {
    return ((micros - this.range[0]) / (this.range[1] - this.range[0])) * this.width;
  }

  micros(x) {
    return Math.round(this.range[0] + (x / this.width) * (this.range[1] - this.range[0]));
  }

  paint() {
    const width = this.plot.clientWidth;
    if (!width) {
      return;
    }
    this.width = width;
    const ratio = devicePixelRatio || 1;
    const { canvas } = this;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round((HEIGHT + FOOT) * ratio);
    }
    const colour = (name) => this.colour(name);
    const tones = { error: colour("error"), warn: colour("warn-bar"), quiet: colour("bar") };
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT + FOOT);
    this.paintGaps(context, colour("warn-tint"));
    const max = Math.max(1, ...this.buckets.map((bucket) => bucket.total));
    for (const bucket of this.buckets) {
      const left = this.x(bucket.start);
      const right = this.x(bucket.start + this.step);
      if (right <= 0 || left >= width) {
        continue;
      }
      const barWidth = Math.max(1, right - left - (right - left > 4 ? 1.5 : 0.5));
      let bottom = HEIGHT;
      for (const level of LEVELS) {
        const count = bucket.counts[level] ?? 0;
        if (count) {
          // Errors and warnings stay visible among many other lines.
          const minHeight = TONES[level] === "quiet" ? 1 : 2;
          const barHeight = Math.max(minHeight, (count / max) * (HEIGHT - 10));
          context.fillStyle = tones[TONES[level]];
          context.fillRect(left, bottom - barHeight, barWidth, barHeight);
          bottom -= barHeight;
        }
      }
    }
    this.paintMarks(context, colour);
    this.paintAxis(context, colour);
    if (this.visible) {
      const left = Math.max(0, this.x(this.visible[0]));
      const right = Math.min(width, Math.max(left + 3, this.x(this.visible[1])));
      context.fillStyle = colour("accent");
      context.fillRect(Math.min(left, width - 3), HEIGHT + 1, right - left, 3);
    }
    const chosen = this.selection;
    if (chosen) {
      context.fillStyle = colour("accent");
      context.globalAlpha = 0.22;
      context.fillRect(Math.min(...chosen), 0, Math.abs(chosen[1] - chosen[0]), HEIGHT);
      context.globalAlpha = 1;
    }
    if (this.cursor !== null) {
      context.fillStyle = colour("text");
      context.fillRect(Math.min(width - 1, this.cursor), 0, 1, HEIGHT);
    }
  }

  paintGaps(context, tint) {
    context.fillStyle = tint;
    for (const mark of this.marks.filter((each) => each.kind === "gap")) {
      const left = this.x(mark.since);
      context.fillRect(left, 0, Math.max(3, this.x(mark.until) - left), HEIGHT);
    }
    if (this.countedBackTo) {
      context.fillRect(0, 0, this.x(this.countedBackTo), HEIGHT);
    }
  }

  paintMarks(context, colour) {
    for (const mark of this.marks) {
      const x = Math.round(this.x(mark.micros));
      if (mark.kind === "gap" || x < 0 || x > this.width) {
        continue;
      }
      context.fillStyle = colour(mark.tone === "accent" ? "accent" : mark.tone);
      if (mark.kind === "crash") {
        context.fillRect(x, 6, 1.5, HEIGHT - 6);
        context.beginPath();
        context.moveTo(x - 4, 0);
        context.lineTo(x + 5, 0);
        context.lineTo(x + 0.5, 7);
        context.fill();
      } else {
        context.globalAlpha = 0.75;
        context.fillRect(x, 4, 1.5, HEIGHT - 4);
        context.globalAlpha = 1;
        context.fillRect(x - 2, 0, 5.5, 5.5);
      }
    }
  }

  paintAxis(context, colour) {
    context.fillStyle = colour("line");
    context.fillRect(0, HEIGHT, this.width, 1);
    context.fillStyle = colour("muted");
    context.font = `11px ${getComputedStyle(this.host).fontFamily}`;
    context.textBaseline = "bottom";
    const max = Math.max(2, Math.min(9, Math.floor(this.width / 110)));
    const span = this.range[1] - this.range[0];
    const step = (TICKS.find((minutes) => span / (minutes * 60e6) <= max) ?? TICKS.at(-1)) * 60e6;
    const zone = this.offset();
    context.textAlign = "center";
    for (let at = Math.ceil((this.range[0] + zone) / step) * step - zone; at < this.range[1]; at += step) {
      const x = this.x(at);
      context.fillRect(x, HEIGHT, 1, 3);
      if (x > 22 && x < this.width - 22) {
        context.fillText(this.format(at, this.range), x, HEIGHT + FOOT);
      }
    }
  }

  bucketAt(x) {
    const time = this.micros(x);
    return this.buckets.find((bucket) => bucket.start <= time && time < bucket.start + this.step);
  }

  describe(x) {
    const bucket = this.bucketAt(x);
    const near = this.marks.filter((mark) => Math.abs(this.x(mark.micros) - x) < 5).map((mark) => mark.text);
    const gaps = this.marks.filter((mark) => mark.kind === "gap" && mark.since <= this.micros(x) && this.micros(x) <= mark.until);
    const counts = LEVELS.filter((level) => bucket?.counts[level]).map(
      (level) => `${bucket.counts[level].toLocaleString()} ${level.toLowerCase()}`,
    );
    const when = this.format(bucket?.start ?? this.micros(x), [0, 1]);
    return [`${when}  ${counts.join(" · ") || "no lines"}`, ...new Set([...near, ...gaps.map((mark) => mark.text)])].slice(0, 4);
  }

  showTip(x) {
    const lines = this.describe(x);
    this.tip.replaceChildren(...lines.map((line) => element("div", "helm-volume__line", line)));
    this.tip.hidden = false;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(half, Math.min(this.width - half, x))}px`;
    this.plot.setAttribute("aria-valuenow", Math.max(0, this.buckets.indexOf(this.bucketAt(x))));
    this.plot.setAttribute("aria-valuetext", lines.join(", "));
  }

  listen() {
    const { plot } = this;
    const place = (event) => Math.max(0, Math.min(this.width, event.clientX - plot.getBoundingClientRect().left));
    plot.addEventListener("pointerdown", (event) => {
      if (event.button === 0) {
        plot.setPointerCapture(event.pointerId);
        this.drag = [place(event), place(event)];
      }
    });
    plot.addEventListener("pointermove", (event) => {
      this.cursor = place(event);
      if (this.drag) {
        this.drag[1] = this.cursor;
        this.selection = Math.abs(this.drag[1] - this.drag[0]) > 4 ? [...this.drag] : null;
      }
      this.showTip(this.cursor);
      this.draw();
    });
    plot.addEventListener("pointerup", () => {
      const { drag } = this;
      this.drag = null;
      if (drag) {
        this.choose(drag, this.selection !== null);
      }
    });
    plot.addEventListener("pointercancel", () => {
      this.drag = null;
      this.selection = null;
      this.draw();
    });
    plot.addEventListener("pointerleave", () => {
      if (!this.drag) {
        this.leave();
      }
    });
    plot.addEventListener("blur", () => this.leave());
    plot.addEventListener("keydown", (event) => this.onKey(event));
  }

  leave() {
    this.cursor = null;
    this.tip.hidden = true;
    this.draw();
  }

  choose(drag, zooming) {
    this.selection = null;
    this.draw();
    const [left, right] = [Math.min(...drag), Math.max(...drag)];
    if (zooming) {
      this.zoom(this.micros(left), this.micros(right));
    } else {
      this.jump(this.micros(left));
    }
  }

  onKey(event) {
    const unit = Math.max(1, (this.step / (this.range[1] - this.range[0])) * this.width);
    const by = { ArrowLeft: -unit, ArrowRight: unit, PageUp: -10 * unit, PageDown: 10 * unit }[event.key];
    if (by !== undefined) {
      const from = this.cursor ?? this.width;
      this.cursor = Math.max(0, Math.min(this.width, from + by));
      if (event.shiftKey) {
        this.selection = [this.selection?.[0] ?? from, this.cursor];
      } else {
        this.selection = null;
      }
      this.showTip(Math.min(this.width - 1, this.cursor));
      this.draw();
    } else if (event.key === "Home" || event.key === "End") {
      this.cursor = event.key === "Home" ? 0 : this.width;
      this.showTip(Math.min(this.width - 1, this.cursor));
      this.draw();
    } else if (event.key === "Enter" && this.cursor !== null) {
      const chosen = this.selection ?? [this.cursor, this.cursor];
      this.choose(chosen, this.selection !== null);
    } else if (event.key === "Escape") {
      this.selection = null;
      this.leave();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  fillTable() {
    if (!this.table.open) {
      return;
    }
    const table = element("table", "helm-volume__counts", undefined, { "aria-label": "Lines over time, by level" });
    const head = element("tr");
    head.append(...["From", "Lines", ...LEVELS.map((level) => level.toLowerCase())].map((name) => element("th", "", name, { scope: "col" })));
    table.append(head);
    for (const bucket of this.buckets.filter((each) => each.total).slice(-200)) {
      const row = element("tr");
      row.append(element("td", "", this.format(bucket.start, [0, 1])), element("td", "", bucket.total.toLocaleString()));
      row.append(...LEVELS.map((level) => element("td", "", (bucket.counts[level] ?? 0).toLocaleString())));
      table.append(row);
    }
    this.table.replaceChildren(this.table.firstElementChild, table);
  }
}
