// The text of a query as clauses, as far as the page changes it. What a query means is decided by the server alone.

const PLAIN = /^[^\s"'()/\\*,-][^\s"()\\*,]*$/;
const LISTS = new Set(["service", "level", "source", "stream"]);

// The clauses of TEXT, each as it is written; quotes, slashes and parentheses hold spaces together.
export function clausesOf(text) {
  const clauses = [];
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at])) {
      at += 1;
      continue;
    }
    const from = at;
    let closing = "";
    let depth = 0;
    let begins = true;
    for (; at < text.length; at += 1) {
      const character = text[at];
      if (closing) {
        if (character === "\\") {
          at += 1;
        } else if (character === closing) {
          closing = "";
        }
      } else if (/\s/.test(character) && depth === 0) {
        break;
      } else if (character === '"') {
        closing = '"';
      } else if (character === "/" && begins) {
        closing = "/";
      } else if (character === "(" || character === ")") {
        depth = Math.max(0, depth + (character === "(" ? 1 : -1));
      }
      begins = character === "-" || character === "(" || /\s/.test(character);
    }
    clauses.push(text.slice(from, Math.min(at, text.length)));
  }
  return joined(clauses);
}

// What stands between alternatives belongs together: "a OR b" is one clause.
function joined(clauses) {
  return clauses.includes("OR") ? [clauses.join(" ")] : clauses;
}

export function quoted(value) {
  const text = String(value);
  return PLAIN.test(text) ? text : `"${text.replace(/[\\"]/g, "\\$&")}"`;
}

export function clause(field, value, negated = false) {
  return `${negated ? "-" : ""}${field}:${quoted(value)}`;
}

function isAbout(text, field) {
  const bare = text.replace(/^-?\(?/, "");
  return bare.startsWith(`${field}:`) || (field === "level" && /^level\s*(>=|<=|=|>|<)/.test(bare));
}

// Puts a query in parentheses to which something is to be added, if it consists of alternatives.
function closed(text) {
  return clausesOf(text).map((each) => (/^(?!\().* OR /.test(each) ? `(${each})` : each));
}

// TEXT with a value of FIELD included, excluded or as the only one; what was said of the same value before goes.
export function withValue(text, field, value, how) {
  const asked = clause(field, value);
  let clauses = closed(text).filter((each) => each !== asked && each !== `-${asked}`);
  if (how === "only") {
    clauses = clauses.filter((each) => !isAbout(each, field));
  }
  if (how === "include") {
    // Values of one field are alternatives.
    const at = clauses.findIndex((each) => each.startsWith(`${field}:`) || each.startsWith(`(${field}:`));
    if (at >= 0) {
      clauses[at] = alternatives(clauses[at], field, value);
      return clauses.join(" ");
    }
  }
  clauses.push(clause(field, value, how === "exclude"));
  return clauses.join(" ");
}

function alternatives(present, field, value) {
  if (LISTS.has(field)) {
    const values = present.slice(field.length + 1).split(",");
    return values.includes(quoted(value)) ? present : `${present},${quoted(value)}`;
  }
  const inside = present.startsWith("(") ? present.slice(1, -1) : present;
  const each = clause(field, value);
  return inside.split(" OR ").includes(each) ? present : `(${inside} OR ${each})`;
}

export function without(text, removed) {
  return clausesOf(text).filter((each) => each !== removed).join(" ");
}

export function withClause(text, added) {
  return [...closed(text).filter((each) => each !== added), added].join(" ");
}

// A regular expression of what a reader should see highlighted in messages: the plain words and expressions.
export function highlightOf(text) {
  const words = [];
  for (const each of clausesOf(text)) {
    if (each.startsWith("-") || /^[A-Za-z_][\w.]*(:|>=|<=|=|<|>)/.test(each) || each === "OR" || each === "AND") {
      continue;
    }
    const expression = /^\/(.+)\/[a-z]*$/.exec(each);
    const word = each.replace(/^"|"$/g, "").replace(/\\(.)/g, "$1");
    words.push(expression ? expression[1] : word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
  }
  if (!words.length) {
    return null;
  }
  try {
    return new RegExp(words.filter(Boolean).join("|"), "giu");
  } catch {
    return null;
  }
}

// The word at CARET and what completes it: {from, to, choices: [{text, note}]}.
export function completionsFor(text, caret, known) {
  const before = text.slice(0, caret);
  const from = Math.max(before.lastIndexOf(" "), before.lastIndexOf("(")) + 1;
  const to = caret + (/^\S*/.exec(text.slice(caret))?.[0].length ?? 0);
  const word = before.slice(from);
  const negation = word.startsWith("-") ? "-" : "";
  const bare = word.slice(negation.length);
  const split = /^([\w.]+)(:|>=|<=|=|>|<)(.*)$/.exec(bare);
  if (!split) {
    const fields = known.fields().filter((field) => field.name.toLowerCase().startsWith(bare.toLowerCase()) && bare !== "");
    const offered = bare === "" && word === "" ? known.fields().slice(0, 9) : fields.slice(0, 9);
    return { from, to, choices: offered.map((field) => ({ text: `${negation}${field.name}${field.sign ?? ":"}`, note: field.note, goesOn: true })) };
  }
  const [, field, sign, value] = split;
  const start = value.split(",").slice(0, -1).join(",");
  const last = value.split(",").at(-1).replace(/^"/, "").toLowerCase();
  const values = (known.values(field) ?? []).filter((each) => String(each.value).toLowerCase().includes(last));
  const choices = values.slice(0, 9).map((each) => ({
    text: `${negation}${field}${sign}${start ? `${start},` : ""}${quoted(each.value)}`,
    note: each.count === undefined ? "" : each.count.toLocaleString(),
    goesOn: false,
  }));
  return { from, to, choices: choices.length === 1 && choices[0].text === word ? [] : choices };
}
