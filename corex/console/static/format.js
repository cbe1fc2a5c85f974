// Figures, times and words as people read them.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** A span of seconds in its two largest units, or its largest alone: "3 h 12 min", "3 h". */
export function span(seconds, most = 2) {
  const whole = Math.max(0, Math.floor(seconds));
  const at = UNITS.findIndex(([size]) => whole >= size);
  if (at < 0) return "0 s";
  const [size, unit] = UNITS[at];
  const first = `${Math.floor(whole / size)} ${unit}`;
  const next = UNITS[at + 1];
  const rest = next && most > 1 ? Math.floor((whole % size) / next[0]) : 0;
  return rest ? `${first} ${rest} ${next[1]}` : first;
}

/** Bytes in binary units: "12.3 MiB". */
export function bytes(count) {
  if (count === undefined || count === null) return "–";
  let value = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") return `${unit === "B" ? value : value.toFixed(value < 10 ? 2 : 1)} ${unit}`;
    value /= 1024;
  }
}

/** A share of one processor: "3.2 %". */
export function percent(share) {
  if (share === undefined || Number.isNaN(share)) return "–";
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}

const two = (number) => String(number).padStart(2, "0");

/** A time of day with milliseconds, local. */
export function clock(seconds) {
  const date = new Date(seconds * 1000);
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** Date and time, local: "2026-11-22 18:05:09". */
export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${clock(seconds).slice(0, 8)}`;
}

/** The same of a time that a container gave a file: any that it likes. */
export function fileTime(seconds) {
  return Math.abs(seconds) < 253_402_300_800 ? moment(seconds) : `${seconds.toFixed(0)} s since 1970`;
}

/** "1 process", "3 processes". */
export function count(number, word, words = `${word}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? word : words}`;
}

/** A word as a POSIX shell reads it back. */
export function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** An argument vector as one line, which `words` reads back. */
export function line(argv) {
  return argv.map((word) => (word === "" ? "''" : quote(word))).join(" ");
}

/**
 * The words of a line as a shell splits it: quotes and backslashes count, nothing is expanded.
 * Throws an Error that says what is wrong.
 */
export function words(text) {
  const found = [];
  let word = null;
  let quoted = "";
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (quoted) {
      if (sign === quoted) quoted = "";
      else if (sign === "\\" && quoted === '"' && /["\\$`]/.test(text[at + 1] ?? "")) word += text[(at += 1)];
      else word += sign;
    } else if (sign === "'" || sign === '"') {
      quoted = sign;
      word ??= "";
    } else if (/\s/.test(sign)) {
      if (word !== null) found.push(word);
      word = null;
    } else if (sign === "\\") {
      at += 1;
      if (at === text.length) throw new Error("it ends with a backslash");
      word = (word ?? "") + text[at];
    } else {
      word = (word ?? "") + sign;
    }
  }
  if (quoted) throw new Error(`a quote ${quoted} is not closed`);
  if (word !== null) found.push(word);
  return found;
}
