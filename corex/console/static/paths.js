// Paths of the container's files. Names are bytes: paths are kept percent-encoded, as Core-X says and takes them, and
// become text only to be shown or to be typed into a shell.

import { quote } from "./format.js";
import { visible } from "./sgr.js";

/** The path behind '#/files', with all encoded that Core-X encodes. */
export function hashPath(hash) {
  const [, ...segments] = hash.split("/");
  return `/${segments.filter(Boolean).map((segment) => segment.replace(/%[0-9a-f]{2}|[^]/giu, encoded)).join("/")}`;
}

function encoded(sign) {
  if (sign.length === 3 && sign[0] === "%") return sign.toUpperCase();
  return encode(sign);
}

/** A name that somebody typed, or that a local file has. */
export function encode(name) {
  const whole = name.toWellFormed?.() ?? name;
  return encodeURIComponent(whole).replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** What lies in a folder. */
export const inside = (folder, name) => `${folder === "/" ? "" : folder}/${name}`;

/** The folder that something lies in. */
export const above = (path) => path.slice(0, path.lastIndexOf("/")) || "/";

/** The address of its page. */
export const placeOf = (path) => `#/files${path === "/" ? "" : path}`;

/** The last part of a path for people: what is not UTF-8 or does not show is its number. */
export function nameOf(path) {
  return path === "/" ? "/" : textOf(path.slice(path.lastIndexOf("/") + 1));
}

/** A percent-encoded text for people. */
export function textOf(path) {
  return nameText(path.replace(/(?:%[0-9A-F]{2})+/g, decodeBytes));
}

function decodeBytes(run) {
  const bytes = run.match(/%../g);
  let text = "";
  while (bytes.length) {
    const length = [1, 2, 3, 4].find((most) => isUtf8(bytes.slice(0, most)));
    const taken = bytes.splice(0, length ?? 1).join("");
    text += length ? decodeURIComponent(taken) : taken.toLowerCase().replace("%", "\\x");
  }
  return text;
}

function isUtf8(bytes) {
  try {
    decodeURIComponent(bytes.join(""));
    return true;
  } catch {
    return false;
  }
}

/** A name for people, on one line. */
export function nameText(name) {
  return visible(name).replace(/[\n\t]/g, (sign) => (sign === "\n" ? "\\n" : "\\t"));
}

/** A path, behind what comes before it, as a word of a shell: bash or zsh, if something in it does not show. */
export function shellWord(path, before = "") {
  if (isUtf8([path])) {
    const text = decodeURIComponent(path);
    if (nameText(text) === text) return quote(before + text);
  }
  const word = path.replace(/%([0-9A-F]{2})|\\|'/g, (sign, code) => (code ? `\\x${code.toLowerCase()}` : `\\${sign}`));
  return `$'${before}${word}'`;
}

/** Where a link leads, as far as its text tells: '..' is taken by words. */
export function targetOf(path, target) {
  const found = [];
  const start = target.startsWith("/") ? "" : above(path);
  for (const segment of `${start}/${target.split("/").map(encode).join("/")}`.split("/")) {
    if (segment === "..") found.pop();
    else if (segment && segment !== ".") found.push(segment);
  }
  return `/${found.join("/")}`;
}
