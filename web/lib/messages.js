// What the front end says about an error: the message's first part, shortened, in the user's language. It also
// translates the lines of running nodes.
const LONGEST_LIST = 6;
const SHOWN_OF_A_LIST = 4;
const LONGEST_ASIDE = 160;
const COLOURS = /\x1b\[[\d;]*m/g;

/**
 * Returns a message's first line, which says what was met, what is wanted and what to do. Long lists are cut, and so
 * is what stands in parentheses: mostly the message of another library, which may have lines of its own.
 */
export function firstPart(message) {
  const lines = message.replace(COLOURS, "").trim().split("\n");
  const whole = lines.findIndex((_, index) => isClosed(lines.slice(0, index + 1).join(" ")));
  const line = lines.slice(0, whole + 1 || 1).join(" ");
  return shortAsides(line).replace(/[^,;()]{1,60}(?:, [^,;().]{1,60}|, \.\w+){6,}/g, shortList);
}

function isClosed(text) {
  return text.split("(").length <= text.split(")").length;
}

/** Cuts what stands in the outer parentheses where it is long. */
function shortAsides(line) {
  let [depth, start, cut] = [0, 0, ""];
  for (const letter of line) {
    if (letter === "(" && depth++ === 0) start = cut.length;
    cut += letter;
    if (letter !== ")" || depth === 0 || --depth > 0) continue;
    if (cut.length - start > LONGEST_ASIDE) cut = `${cut.slice(0, start + LONGEST_ASIDE).trimEnd()} …)`;
  }
  return cut;
}

function shortList(list) {
  const items = list.split(", ");
  if (items.length <= LONGEST_LIST) return list;
  return `${items.slice(0, SHOWN_OF_A_LIST).join(", ")}, … (+${items.length - SHOWN_OF_A_LIST})`;
}

/** Fills the numbered holes of a template. */
export function filled(template, values) {
  return template.replace(/\{(\d+)\}/g, (hole, index) => values[index] ?? hole);
}

/**
 * Returns a function that translates messages by [English, translation] templates with numbered holes.
 * What fills a hole is translated, too. A text without a template stays as it is.
 */
export function translator(templates) {
  const known = templates.map(([english, other]) => ({ pattern: pattern(english), pieces: pieces(english), other }));
  const translate = (text) => {
    const [, before, inner, after] = text.match(/^(\s*)([^]*?)(\s*)$/);
    for (const { pattern: wanted, pieces: literal, other } of known) {
      const found = literal.every((piece) => inner.includes(piece)) && inner.match(wanted);
      if (found) return before + filled(other, found.slice(1).map(translate)) + after;
    }
    return before + translatedList(inner, translate) + after;
  };
  return translate;
}

/** Translates a line of pieces with a comma between them, each by itself. */
export function translatedLine(line, translate) {
  return line.split(", ").map(translate).join(", ");
}

/** Translates the items of a list, which may be numbered: `1. close other programs; 2. paint fewer views`. */
function translatedList(text, translate) {
  if (text.includes("; ")) return text.split("; ").map(translate).join("; ");
  const [, number, item] = text.match(/^(\d+\. )?([^]*)$/);
  if (number) return number + translate(item);
  return item.includes(", ") ? item.split(", ").map(translate).join(", ") : item;
}

function pieces(template) {
  return template.split(/\{\d+\}/);
}

function pattern(template) {
  const literal = pieces(template).map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${literal.join("([^]*?)")}$`);
}
