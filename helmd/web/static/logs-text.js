// Renders the text of log lines: nothing in it is markup, and invisible characters are shown as escape sequences.

import { UNSEEN, escapeCharacter, printableText } from "./dom.js";

// An escape sequence for colours, or an invisible character.
const PART = new RegExp(`\\u001b\\[([0-9;]{0,40})m|(${UNSEEN.source})`, "gu");
const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

export function element(tag, className = "", text = undefined, attributes = {}) {
  const made = document.createElement(tag);
  if (className) {
    made.className = className;
  }
  if (text !== undefined && text !== null) {
    made.textContent = printableText(String(text));
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  return made;
}

// The style after a Select Graphic Rendition sequence (ECMA-48, 8.3.117), of which only colours and weight are used.
function styleAfter(previous, codes) {
  let style = previous;
  const values = codes === "" ? [0] : codes.split(";").map(Number);
  for (let at = 0; at < values.length; at += 1) {
    const code = values[at];
    if (code === 0) {
      style = { colour: "", bold: false };
    } else if (code === 1) {
      style = { ...style, bold: true };
    } else if (code === 22) {
      style = { ...style, bold: false };
    } else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) {
      style = { ...style, colour: COLOURS[code % 10] };
    } else if (code === 39) {
      style = { ...style, colour: "" };
    } else if (code === 38 || code === 48) {
      at += values[at + 1] === 5 ? 2 : 4;
    }
  }
  return style;
}

// Splits text into parts of one style: {text, mark, colour, bold}. A `mark` stands for an invisible character.
export function partsOf(text) {
  if (text.search(UNSEEN) < 0) {
    return [{ text, mark: false, colour: "", bold: false }];
  }
  const parts = [];
  let style = { colour: "", bold: false };
  let from = 0;
  for (const found of text.matchAll(PART)) {
    if (found.index > from) {
      parts.push({ text: text.slice(from, found.index), mark: false, ...style });
    }
    if (found[2] === undefined) {
      style = styleAfter(style, found[1]);
    } else {
      parts.push({ text: escapeCharacter(found[2]), mark: true, ...style });
    }
    from = found.index + found[0].length;
  }
  if (from < text.length) {
    parts.push({ text: text.slice(from), mark: false, ...style });
  }
  return parts;
}

// Appends text to a node; matches of the regular expression `highlight` are marked.
export function appendText(node, text, highlight = null) {
  for (const part of partsOf(text)) {
    if (part.mark) {
      node.append(element("span", "helm-unseen", part.text));
      continue;
    }
    let into = node;
    if (part.colour || part.bold) {
      const colour = part.colour ? ` helm-ansi--${part.colour}` : "";
      into = element("span", `helm-ansi${colour}${part.bold ? " helm-ansi--bold" : ""}`);
      node.append(into);
    }
    appendMarked(into, part.text, highlight);
  }
}

function appendMarked(node, text, highlight) {
  if (!highlight || text.length > 20000) {
    node.append(text);
    return;
  }
  let from = 0;
  for (const found of text.matchAll(highlight)) {
    if (!found[0]) {
      break;
    }
    node.append(text.slice(from, found.index), element("mark", "helm-hit", found[0]));
    from = found.index + found[0].length;
  }
  node.append(text.slice(from));
}

export function bytesText(count) {
  return count < 1024 ? `${count} B` : count < 1048576 ? `${(count / 1024).toFixed(1)} kB` : `${(count / 1048576).toFixed(1)} MB`;
}
