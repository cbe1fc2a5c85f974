// Terminals: xterm.js on one side, the subprotocol of docs/corex.md ("Sessions") on the other. Loaded on first use.

import { get, post } from "./api.js";
import { FitAddon } from "./vendor/xterm-fit.js";
import { Terminal } from "./vendor/xterm.js";

const PROTOCOL = "v1.session.zeronode";
const [INPUT, HEAD] = [0, 9];
const FIRST_CREDIT = 64 * 1024;
const INPUT_AHEAD = 256 * 1024;
const PIECE = 32 * 1024;
const AGAIN = [500, 1000, 2000, 4000];
const [NORMAL, GOING_AWAY, POLICY] = [1000, 1001, 1008];

/** A session's WebSocket, made anew where it breaks: nothing is shown twice, nothing is typed twice. */
export class Attachment {
  /**
   * `resource` is a session's path, or that of a process with a terminal.
   * `listener` has output(data, end, taken), lost(bytes), window(size), ended(exit), state(word, reason).
   */
  constructor(resource, listener) {
    this.resource = resource;
    this.path = `${resource}/attach`;
    this.listener = listener;
    this.client = crypto.randomUUID().replaceAll("-", "");
    this.offset = 0;
    this.sent = 0;
    this.accepted = 0;
    this.waiting = [];
    this.inFlight = [];
    this.failures = 0;
    this.over = false;
    this.socket = null;
    this.size = null;
    this.connect();
  }

  async connect() {
    try {
      // a browser does not tell what a WebSocket was refused for
      if (this.failures) await get(this.resource);
      const { data } = await post("/v1/tickets", { path: this.path });
      if (this.over) return;
      const query = new URLSearchParams({ after: this.offset, client: this.client, ticket: data.ticket });
      this.socket = new WebSocket(`wss://${location.host}${this.path}?${query}`, PROTOCOL);
    } catch (error) {
      if (error.status) this.finish("lost", error.message);
      else this.later();
      return;
    }
    this.socket.binaryType = "arraybuffer";
    this.credit = 0;
    this.socket.onmessage = ({ data }) => (typeof data === "string" ? this.hear(JSON.parse(data)) : this.take(data));
    this.socket.onclose = ({ code, reason }) => this.closed(code, reason);
  }

  hear(said) {
    if (said.kind === "hello") {
      this.failures = 0;
      this.offset = said.after;
      this.note(said.accepted);
      for (const [offset, data] of this.inFlight) this.transmit(offset, data);
      if (said.window) this.listener.window(said.window);
      this.listener.state("open");
      if (this.size) this.say({ kind: "resize", window: this.size });
      this.push();
    } else if (said.kind === "lost") {
      this.offset += said.bytes;
      this.listener.lost(said.bytes);
    } else if (said.kind === "accepted") {
      this.note(said.bytes);
      this.push();
    } else if (said.kind === "resized") {
      this.listener.window(said.window);
    } else if (said.kind === "ended") {
      this.over = true;
      this.listener.ended(said.exit);
    }
  }

  take(data) {
    const bytes = new Uint8Array(data, HEAD);
    this.offset = Number(new DataView(data).getBigUint64(1)) + bytes.length;
    const { socket } = this;
    this.listener.output(bytes, this.offset, () => {
      this.credit += bytes.length;
      if (this.credit < FIRST_CREDIT / 2 || socket !== this.socket) return;
      this.say({ kind: "credit", bytes: this.credit });
      this.credit = 0;
    });
  }

  note(accepted) {
    this.accepted = Math.max(this.accepted, accepted);
    while (this.inFlight.length && this.inFlight[0][0] + this.inFlight[0][1].length <= this.accepted) this.inFlight.shift();
  }

  type(data) {
    for (let at = 0; at < data.length; at += PIECE) this.waiting.push(data.subarray(at, at + PIECE));
    this.push();
  }

  /** Send what waits, as far ahead of what arrived as is allowed. */
  push() {
    while (this.waiting.length && this.sent + this.waiting[0].length - this.accepted <= INPUT_AHEAD) {
      const data = this.waiting.shift();
      this.inFlight.push([this.sent, data]);
      this.transmit(this.sent, data);
      this.sent += data.length;
    }
  }

  transmit(offset, data) {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const message = new Uint8Array(HEAD + data.length);
    message[0] = INPUT;
    new DataView(message.buffer).setBigUint64(1, BigInt(offset));
    message.set(data, HEAD);
    this.socket.send(message);
  }

  resize(size) {
    this.size = size;
    this.say({ kind: "resize", window: size });
  }

  say(what) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(what));
  }

  closed(code, reason) {
    if (this.over) return;
    if ([NORMAL, GOING_AWAY, POLICY].includes(code)) this.finish("gone", reason);
    else this.later();
  }

  later() {
    if (this.over) return;
    this.listener.state("broken");
    this.timer = setTimeout(() => this.connect(), AGAIN[Math.min(this.failures, AGAIN.length - 1)]);
    this.failures += 1;
  }

  finish(word, reason) {
    this.over = true;
    this.listener.state(word, reason);
  }

  end() {
    this.over = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }
}

// What xterm.js writes into the page as style sheets and style attributes, the page's policy forbids, and rightly: it
// cannot tell them from injected ones. Both are allowed as objects, constructed sheets and an element's `style`, so
// the page's elements are made with these in their place. Nobody else here makes sheets, or sets that attribute.

const create = document.createElement.bind(document);

function sheet() {
  const element = create("x-sheet");
  element.hidden = true;
  const rules = new CSSStyleSheet();
  document.adoptedStyleSheets.push(rules);
  Object.defineProperty(element, "textContent", { set: (text) => rules.replaceSync(text) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== rules);
    Element.prototype.remove.call(element);
  };
  return element;
}

function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

document.createElement = (name, options) => {
  if (name === "style") return sheet();
  const element = create(name, options);
  if (name === "span") element.setAttribute = setAttribute;
  return element;
};

const DARK = {
  background: "#0f1216", foreground: "#e5e8ed", cursor: "#86a8ff", cursorAccent: "#0f1216", selectionBackground: "#33456f",
  black: "#3b4350", red: "#ff8178", green: "#4fc98d", yellow: "#f2b744", blue: "#6fa8ff", magenta: "#d59bf6", cyan: "#56c8d8", white: "#c8ced8",
  brightBlack: "#8490a0", brightRed: "#ffa39c", brightGreen: "#7fe0b0", brightYellow: "#ffd277", brightBlue: "#9cc2ff", brightMagenta: "#e5bdff", brightCyan: "#8be3ee", brightWhite: "#ffffff",
};
const LIGHT = {
  background: "#ffffff", foreground: "#1a1e26", cursor: "#2f5bd7", cursorAccent: "#ffffff", selectionBackground: "#c9d8fb",
  black: "#1a1e26", red: "#c22f2b", green: "#17794a", yellow: "#8a5200", blue: "#2355c4", magenta: "#8a35b5", cyan: "#0b7285", white: "#7b8494",
  brightBlack: "#5f6877", brightRed: "#d9453f", brightGreen: "#1f8f58", brightYellow: "#a36500", brightBlue: "#3c6ee0", brightMagenta: "#a14fcb", brightCyan: "#12879c", brightWhite: "#4a5261",
};
export const THEMES = { dark: DARK, light: LIGHT };

let styled = null;

/** The terminal's style sheet, before the first terminal. */
function style() {
  styled ??= new Promise((done, fail) => {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: "vendor/xterm.css", onload: done, onerror: fail });
    document.head.append(link);
  });
  return styled;
}

/** A terminal in an element of its own, and how it fits there. */
export async function makeTerminal(theme) {
  await style();
  const host = document.createElement("div");
  host.className = "host";
  const terminal = new Terminal({
    theme: THEMES[theme], scrollback: 10_000, fontSize: 13, lineHeight: 1.15, macOptionIsMeta: true,
    fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"), minimumContrastRatio: 4.5, cursorBlink: false,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  return { host, terminal, fit };
}
