// Colours in the lines of a log: SGR sequences (ECMA-48, 8.3.117) are kept, all other escapes are dropped.
// What comes out are text nodes in spans, never markup.

// Control sequences, strings (OSC, DCS, SOS, PM, APC) up to their end, other escapes, and control characters but tabs.
const ESCAPES =
  /\x1b\[([\x30-\x3f]*)[\x20-\x2f]*([\x40-\x7e])|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)|\x1b[\x20-\x2f]*[\x30-\x7e]?|[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;
// Marks that turn the direction of what follows: shown, as they could make a line read otherwise.
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;

// What does not show, or turns what follows.
const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

const PLAIN = { color: null, ground: null, marks: "" };
const MARKS = { 1: "b", 2: "d", 3: "i", 4: "u", 7: "v", 9: "s" };
const CLEARS = { 22: "bd", 23: "i", 24: "u", 27: "v", 29: "s" };

/** A colour of 38 or 48's arguments, and how many there were: a number from 0 to 15, or a CSS colour. */
function extended(codes) {
  if (codes[0] === 5 && codes.length > 1) return [palette(codes[1]), 2];
  if (codes[0] === 2 && codes.length > 3) return [`rgb(${codes.slice(1, 4).map((one) => Math.min(255, one)).join(" ")})`, 4];
  return [null, codes.length];
}

/** A colour of xterm's 256. */
function palette(index) {
  if (index < 16) return index;
  if (index > 231) {
    const grey = 8 + 10 * (Math.min(index, 255) - 232);
    return `rgb(${grey} ${grey} ${grey})`;
  }
  const level = (step) => (step ? 55 + 40 * step : 0);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
}

/** What a style is after a sequence. */
function after(style, parameters) {
  const codes = parameters.split(/[;:]/).map((one) => Number(one) || 0);
  let next = style;
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at];
    if (code === 0) next = PLAIN;
    else if (MARKS[code]) next = { ...next, marks: without(next.marks, MARKS[code]) + MARKS[code] };
    else if (CLEARS[code]) next = { ...next, marks: without(next.marks, CLEARS[code]) };
    else if (code >= 30 && code <= 37) next = { ...next, color: code - 30 };
    else if (code >= 90 && code <= 97) next = { ...next, color: code - 82 };
    else if (code === 39) next = { ...next, color: null };
    else if (code >= 40 && code <= 47) next = { ...next, ground: code - 40 };
    else if (code >= 100 && code <= 107) next = { ...next, ground: code - 92 };
    else if (code === 49) next = { ...next, ground: null };
    else if (code === 38 || code === 48) {
      const [color, used] = extended(codes.slice(at + 1));
      if (color !== null) next = { ...next, [code === 38 ? "color" : "ground"]: color };
      at += used;
    }
  }
  return next;
}

const without = (marks, gone) => [...marks].filter((mark) => !gone.includes(mark)).join("");

/** Text without what only terminals read. */
export function plain(text) {
  return shown(text.replace(ESCAPES, ""));
}

/** Text with what does not show as its number; line ends and tabs stay. */
export function visible(text) {
  return text.replace(UNSEEN, (sign) => {
    const code = sign.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });
}

const shown = (text) => text.replace(TURNS, (mark) => `\\u${mark.charCodeAt(0).toString(16)}`);

/** Append a line's text to an element, in its colours. */
export function paint(text, element) {
  let style = PLAIN;
  let from = 0;
  for (const found of text.matchAll(ESCAPES)) {
    append(element, text.slice(from, found.index), style);
    from = found.index + found[0].length;
    if (found[2] === "m" && /^[\d;:]*$/.test(found[1])) style = after(style, found[1]);
  }
  append(element, text.slice(from), style);
}

function append(element, text, style) {
  if (!text) return;
  if (style === PLAIN) {
    element.append(shown(text));
    return;
  }
  const span = document.createElement("span");
  const classes = [...style.marks].map((mark) => `sgr-${mark}`);
  for (const [name, value] of [["color", style.color], ["ground", style.ground]]) {
    if (typeof value === "number") classes.push(`sgr-${name}-${value}`);
    else if (value) span.style[name === "color" ? "color" : "backgroundColor"] = value;
  }
  span.className = classes.join(" ");
  span.append(shown(text));
  element.append(span);
}
