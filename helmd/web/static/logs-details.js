// The details of an entry: message, fields, context and actions.
import { appendText, bytesText, element } from "./logs-text.js";

const MAX_MESSAGE = 20000;

/**
 * Creates the details of a row, which stands for `count` identical entries. `perform` is called with an action's name,
 * the row and the action's parameters, see `LogsPage.perform`; `untruncated` shows a long message completely.
 */
export function detailsOf(row, count, times, perform, untruncated = false) {
  const { entry } = row;
  const made = element("div", "helm-entry");
  const lines = entry.message.split("\n");
  if (lines.length > 1 || entry.message.length > 300) {
    made.append(messageOf(entry.message, untruncated, perform, row));
  }
  const list = element("dl", "helm-entry__facts");
  const fact = (name, value, field = "") => {
    if (value === null || value === undefined || value === "") {
      return;
    }
    const pair = element("div", `helm-entry__fact${name === "time" || name === "repeated" ? " helm-entry__fact--wide" : ""}`);
    pair.append(element("dt", "helm-entry__name", name));
    const shown = element("dd", "helm-entry__value");
    appendText(shown, String(value));
    if (field) {
      shown.append(valueButtons(field, value, perform, row));
    }
    pair.append(shown);
    list.append(pair);
  };
  fact("time", `${times.exact(row.micros)}`);
  if (count > 1) {
    fact("repeated", `${count.toLocaleString()} identical lines one after the other; this is the first`);
  }
  fact("trace", entry.trace_id, "trace");
  fact("user", entry.user_id, "user");
  fact("source", { journal: "printed", http: "posted", systemd: "systemd", helm: "Helm" }[entry.source] ?? entry.source);
  fact("stream", entry.stream, "stream");
  fact("process", entry.process_id);
  fact("host", entry.hostname);
  fact("unit", entry.unit);
  fact("boot", entry.boot_id);
  fact("same line as", entry.duplicate_of);
  fact("id", entry.id);
  made.append(list);
  if (entry.context && Object.keys(entry.context).length) {
    const tree = element("div", "helm-entry__context");
    tree.append(element("h3", "helm-entry__title", "Context"), treeOf(entry.context, [], perform, row, 0));
    made.append(tree);
  }
  made.append(actionsOf(row, perform));
  return made;
}

function messageOf(text, untruncated, perform, row) {
  const wrap = element("div", "helm-entry__text");
  const pre = element("pre", "helm-entry__message", undefined, { tabindex: 0, "aria-label": "Message" });
  appendText(pre, untruncated || text.length <= MAX_MESSAGE ? text : text.slice(0, MAX_MESSAGE));
  wrap.append(pre);
  if (!untruncated && text.length > MAX_MESSAGE) {
    const all = element("button", "helm-button helm-button--small", `Show all (${bytesText(text.length)})`, { type: "button" });
    all.addEventListener("click", () => perform("untruncate", row));
    wrap.append(all);
  }
  return wrap;
}

function valueButtons(field, value, perform, row) {
  const made = element("span", "helm-choose");
  for (const [how, sign, word] of [["include", "+", "Include"], ["exclude", "\u2212", "Exclude"], ["only", "=", "Only"]]) {
    const button = element("button", "helm-choose__do", sign, {
      type: "button",
      title: `${word} ${field}`,
      "aria-label": `${word} ${field} ${String(value).slice(0, 60)}`,
    });
    button.addEventListener("click", () => perform("value", row, { field, value, how }));
    made.append(button);
  }
  return made;
}

function treeOf(value, path, perform, row, depth) {
  const list = element("ul", "helm-tree");
  const entries = Array.isArray(value) ? value.map((each, at) => [String(at), each]) : Object.entries(value);
  for (const [key, each] of entries.slice(0, 200)) {
    const item = element("li", "helm-tree__item");
    const name = element("span", "helm-tree__key");
    appendText(name, key.slice(0, 200));
    item.append(name);
    const here = [...path, key];
    const plain = !Array.isArray(value) && here.every((part) => /^[\w-]+$/.test(part));
    if (each !== null && typeof each === "object") {
      if (depth < 6 && Object.keys(each).length) {
        item.append(treeOf(each, here, perform, row, depth + 1));
      } else {
        item.append(element("span", "helm-tree__value", JSON.stringify(each).slice(0, 2000)));
      }
    } else {
      const shown = element("span", `helm-tree__value helm-tree__value--${each === null ? "null" : typeof each}`);
      appendText(shown, String(each).slice(0, 4000));
      item.append(shown);
      if (plain && each !== null && String(each).length <= 200) {
        const field = `context.${here.join(".")}`;
        item.append(valueButtons(field, each, perform, row));
        const column = element("button", "helm-choose__do", "\u25a5", {
          type: "button",
          title: `Show ${field} as a column`,
          "aria-label": `Show ${field} as a column`,
        });
        column.addEventListener("click", () => perform("column", row, { name: here.join(".") }));
        item.lastChild.append(column);
      }
    }
    list.append(item);
  }
  if (entries.length > 200) {
    list.append(element("li", "helm-tree__item", `… and ${(entries.length - 200).toLocaleString()} more; copy as JSON has all`));
  }
  return list;
}

function actionsOf(row, perform) {
  const made = element("div", "helm-entry__do", undefined, { role: "group", "aria-label": "With this line" });
  const actions = [
    ["around", "Around this line"],
    ...(row.entry.trace_id ? [["trace", "Same trace"]] : []),
    ["hide", "Hide lines like this"],
    ["copy-text", "Copy text"],
    ["copy-json", "Copy JSON"],
    ["copy-command", "Copy helmctl command"],
    ["copy-link", "Copy link"],
  ];
  for (const [name, text] of actions) {
    const button = element("button", "helm-button helm-button--small", text, { type: "button", "data-entry-do": name });
    button.addEventListener("click", () => perform(name, row));
    made.append(button);
  }
  return made;
}
