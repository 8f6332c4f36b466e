// What the front end says about an error: the message's first part, shortened, in the user's language.
const LONGEST_LIST = 6;
const SHOWN_OF_A_LIST = 4;
const LONGEST_ASIDE = 160; // characters in parentheses: mostly another library's message

/** Returns a message's first line, which says what was met, what is wanted and what to do. Long lists are cut. */
export function firstPart(message) {
  const line = message.trim().split("\n", 1)[0];
  const listed = line.replace(/[^,;()]{1,60}(?:, [^,;().]{1,60}|, \.\w+){6,}/g, shortList);
  return listed.replace(/\(([^()]*)\)/g, (all, aside) =>
    aside.length > LONGEST_ASIDE ? `(${aside.slice(0, LONGEST_ASIDE).trimEnd()} …)` : all,
  );
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
