// Splits and changes the text of a query. Only the server parses queries completely; these functions know as much of
// the syntax as the page needs.

const PLAIN = /^[^\s"'()/\\*,-][^\s"()\\*,]*$/;
const LISTS = new Set(["service", "level", "source", "stream"]);

// Splits a query into its clauses, which may have spaces within quotes, slashes and parentheses.
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
  return joinAlternatives(clauses);
}

// OR binds less tightly than the space between clauses: a query with it is one clause.
function joinAlternatives(clauses) {
  return clauses.includes("OR") ? [clauses.join(" ")] : clauses;
}

export function quoted(value) {
  const text = String(value);
  return PLAIN.test(text) ? text : `"${text.replace(/[\\"]/g, "\\$&")}"`;
}

export function clause(field, value, negated = false) {
  return `${negated ? "-" : ""}${field}:${quoted(value)}`;
}

function isOnField(text, field) {
  const bare = text.replace(/^-?\(?/, "");
  return bare.startsWith(`${field}:`) || (field === "level" && /^level\s*(>=|<=|=|>|<)/.test(bare));
}

// The clauses of a query to which another one can be added: alternatives are put in parentheses.
function parenthesized(text) {
  return clausesOf(text).map((each) => (/^(?!\().* OR /.test(each) ? `(${each})` : each));
}

// The query with a value of a field added; `how` is "include", "exclude" or "only". It replaces a clause on this value.
export function withValue(text, field, value, how) {
  const included = clause(field, value);
  let clauses = parenthesized(text).filter((each) => each !== included && each !== `-${included}`);
  if (how === "only") {
    clauses = clauses.filter((each) => !isOnField(each, field));
  }
  if (how === "include") {
    // Included values of the same field are alternatives.
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
  return [...parenthesized(text).filter((each) => each !== added), added].join(" ");
}

// A regular expression that matches the words and expressions of a query, for highlighting; null if there are none.
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

// The range of the word at the caret, and its completions: {from, to, choices: [{text, note, isPartial}]}. A choice is
// partial where a value must follow.
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
    return { from, to, choices: offered.map((field) => ({ text: `${negation}${field.name}${field.sign ?? ":"}`, note: field.note, isPartial: true })) };
  }
  const [, field, sign, value] = split;
  const start = value.split(",").slice(0, -1).join(",");
  const last = value.split(",").at(-1).replace(/^"/, "").toLowerCase();
  const values = (known.values(field) ?? []).filter((each) => String(each.value).toLowerCase().includes(last));
  const choices = values.slice(0, 9).map((each) => ({
    text: `${negation}${field}${sign}${start ? `${start},` : ""}${quoted(each.value)}`,
    note: each.count === undefined ? "" : each.count.toLocaleString(),
    isPartial: false,
  }));
  return { from, to, choices: choices.length === 1 && choices[0].text === word ? [] : choices };
}
