// Renders the items of the list: lines, marks and notes.
import { detailsOf } from "./logs-details.js";
import { appendText, bytesText, element } from "./logs-text.js";

const TONES = { CRITICAL: "error", ERROR: "error", WARNING: "warn", INFO: "info", DEBUG: "debug" };
const MAX_LINE = 2000;

/** A value of an entry's context as text, by its key or a dotted path. */
export function contextValue(entry, name) {
  let value = entry.context;
  if (value && name in value) {
    value = value[name];
  } else {
    for (const part of name.split(".")) {
      value = value !== null && typeof value === "object" ? value[part] : undefined;
    }
  }
  return value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Creates the element of an item of `itemsOf`. `view` is that of LogsPage, `perform` as for `detailsOf`. */
export function lineOf(item, view, perform) {
  if (item.kind === "mark") {
    return markLine(item.mark, view, item.key);
  }
  if (item.kind === "note") {
    return noteLine(item);
  }
  const { row } = item;
  const { entry } = row;
  const open = view.open.has(row.id);
  const tone = TONES[entry.level] ?? "info";
  const classes = ["helm-line", `helm-line--${tone}`];
  if (open) {
    classes.push("helm-line--open");
  }
  if (row.id === view.here) {
    classes.push("helm-line--here");
  }
  const line = element("div", classes.join(" "), undefined, {
    role: "row",
    id: `line-${row.id}`,
    "data-id": row.id,
    "aria-expanded": String(open),
    "aria-selected": String(item.key === view.active),
  });
  const cell = (name, text = undefined) => {
    const made = element("span", `helm-line__${name}`, text, { role: "gridcell" });
    line.append(made);
    return made;
  };
  cell("time", view.showsDay ? `${view.times.day(row.micros)} ${view.times.clock(row.micros)}` : view.times.clock(row.micros)).title = view.times.exact(row.micros);
  cell("service", entry.service_name).title = entry.service_name;
  cell("level", entry.level);
  for (const name of view.state.columns) {
    const value = cell("extra");
    appendText(value, contextValue(entry, name).slice(0, 200));
    value.title = name;
  }
  const message = cell("message");
  appendMessage(message, entry.message, view, open);
  if (item.rows.length > 1) {
    const times = element("button", "helm-line__times", `\u00d7${item.rows.length.toLocaleString()}`, {
      type: "button",
      tabindex: -1,
      title: `${item.rows.length.toLocaleString()} identical lines, the last at ${view.times.clock(item.rows[item.rows.length - 1].micros)}; show each`,
    });
    times.addEventListener("click", (event) => {
      event.stopPropagation();
      perform("ungroup", row, { rows: item.rows });
    });
    message.append(" ", times);
  }
  if (open) {
    const more = element("div", "helm-line__more", undefined, { role: "gridcell" });
    more.append(detailsOf(row, item.rows.length, view.times, perform, view.untruncated.has(row.id)));
    line.append(more);
  }
  return line;
}

function appendMessage(node, message, view, open) {
  const end = message.indexOf("\n");
  const several = end >= 0 && end < message.length - 1;
  const first = end >= 0 ? message.slice(0, end) : message;
  if (view.state.wrap && !open) {
    const shown = message.length > MAX_LINE ? message.slice(0, MAX_LINE) : message;
    appendText(node, shown, view.highlight);
    if (message.length > MAX_LINE) {
      node.append(element("span", "helm-line__cut", ` … ${bytesText(message.length)}`));
    }
    return;
  }
  appendText(node, first.slice(0, MAX_LINE), view.highlight);
  if (first.length > MAX_LINE) {
    node.append(element("span", "helm-line__cut", ` … ${bytesText(message.length)}`));
  } else if (several) {
    let count = 1;
    for (let at = end; at >= 0 && count < 10000; at = message.indexOf("\n", at + 1)) {
      count += 1;
    }
    node.append(element("span", "helm-line__cut", ` +${(count - 1).toLocaleString()} lines`));
  }
}

function markLine(mark, view, key) {
  const line = element("div", `helm-logmark helm-logmark--${mark.tone}`, undefined, { role: "row", "aria-selected": String(key === view.active) });
  const cell = element("span", "helm-logmark__text", undefined, { role: "gridcell" });
  appendText(cell, `${view.times.clock(mark.micros)}  ${mark.text}`);
  line.append(cell);
  return line;
}

function noteLine(item) {
  const line = element("div", "helm-lognote", undefined, { role: "row" });
  const cell = element("span", "helm-lognote__cell", undefined, { role: "gridcell" });
  cell.append(element("span", "helm-lognote__text", item.text));
  for (const { text, act } of item.actions ?? []) {
    const button = element("button", "helm-button helm-button--small", text, { type: "button" });
    button.addEventListener("click", act);
    cell.append(button);
  }
  line.append(cell);
  return line;
}
