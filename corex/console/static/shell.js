import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, get, post, remove } from "./api.js";
import { Commands, curl, zn } from "./commands.js";
import { line, moment, span, words } from "./format.js";
import { Icon } from "./icons.js";
import { may, processes } from "./live.js";
import { Value, useValue } from "./store.js";
import { shownTheme } from "./themes.js";
import { Button, Dialog, Empty, Field, Head, Loading, Table, complain, html, say, sentence, useLoaded, useNow } from "./ui.js";

const KEY = "shells";
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const ENV = { PATH, TERM: "xterm-256color", COLORTERM: "truecolor", LANG: "C.UTF-8" };
const KEEPS = [[60, "a minute"], [600, "10 minutes"], [3600, "an hour"], [86400, "a day"]];
// What fingers cannot type on a phone.
const KEYS = [["Esc", "\x1b"], ["Tab", "\t"], ["^C", "\x03"], ["^D", "\x04"], ["←", "\x1b[D"], ["↓", "\x1b[B"], ["↑", "\x1b[A"], ["→", "\x1b[C"]];

/** Open tabs by session, in order. They outlive the page: their sessions' names are kept in this browser tab. */
const tabs = new Value(new Map());

// What tabs of processes are called: sessions have 16 hexadecimal digits.
const OF_PROCESS = "process-";
// Milliseconds of silence after which a process's old output is over.
const QUIET = 150;

/** Where the tab of a process's own terminal is. */
export const terminalOf = (name) => `#/shell/${OF_PROCESS}${name}`;

/** One tab: a terminal, and its session, or the process that it is of. */
class Tab {
  constructor(id, watching) {
    this.id = id;
    this.process = id.startsWith(OF_PROCESS) ? id.slice(OF_PROCESS.length) : "";
    this.watching = watching;
    this.title = id;
    this.state = new Value({ word: "opening" });
    this.replayed = 0;
    this.ready = this.open();
    this.ready.catch((error) => this.state.set({ word: "gone", reason: error.message }));
  }

  async open() {
    const resource = this.process ? `/v1/processes/${this.process}` : `/v1/sessions/${this.id}`;
    const [found, { makeTerminal, Attachment, THEMES }] = await Promise.all([get(resource), import("./terminal.js")]);
    if (this.process && !found.spec.tty) throw new Error(`${this.process} has no terminal`);
    this.title = this.process || line(found.spec.argv);
    this.hasTerminal = Boolean(this.process || found.spec.window);
    Object.assign(this, await makeTerminal(shownTheme.get()));
    const { terminal } = this;
    this.unwatch = shownTheme.watch(() => (terminal.options.theme = THEMES[shownTheme.get()]));
    terminal.options.convertEol = !this.hasTerminal;
    terminal.options.disableStdin = this.watching;
    // What old output asked the terminal was answered long ago.
    this.replay = this.process ? Infinity : found.written;
    terminal.onData((text) => this.type(new TextEncoder().encode(text)));
    terminal.onBinary((text) => this.type(Uint8Array.from(text, (sign) => sign.charCodeAt(0))));
    terminal.attachCustomKeyEventHandler((event) => this.key(event));
    if (found.spec.window) terminal.resize(found.spec.window.columns, found.spec.window.rows);
    this.attachment = new Attachment(resource, {
      output: (bytes, end, taken) => terminal.write(bytes, () => { this.replayed = end; taken(); this.settle(); }),
      lost: (count) => terminal.write(`\r\n\x1b[7m ${count} bytes of output were overwritten \x1b[0m\r\n`),
      window: ({ rows, columns }) => (rows !== terminal.rows || columns !== terminal.cols) && terminal.resize(columns, rows),
      ended: (exit) => this.state.set({ word: "ended", reason: exit.signal ? `it ended by ${exit.signal}` : `it ended with code ${exit.code}` }),
      state: (word, reason) => { this.state.set({ word, reason }); this.settle(); },
    });
  }

  /** Of a process nobody tells how much it has written: what comes without a pause is old. */
  settle() {
    if (this.replay !== Infinity) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (this.replay = 0), QUIET);
  }

  type(data) {
    if (!this.watching && this.replayed >= this.replay) this.attachment.type(data);
  }

  /** Ctrl+F6 leaves the terminal, which takes all other keys. */
  key(event) {
    if (event.key !== "F6" || !event.ctrlKey) return true;
    if (event.type === "keydown") document.querySelector("[role=tab][aria-selected=true]")?.focus();
    event.preventDefault();
    return false;
  }

  /** Be in a place on the page, and as large as it is. */
  show(place) {
    place.append(this.host);
    if (!this.terminal.element) this.terminal.open(this.host);
    this.fits();
    this.terminal.focus();
  }

  fits() {
    const size = this.fit.proposeDimensions();
    if (!size || !(size.cols > 1) || this.watching || !this.hasTerminal) return;
    this.terminal.resize(size.cols, size.rows);
    this.attachment.resize({ rows: size.rows, columns: size.cols });
  }

  end() {
    clearTimeout(this.timer);
    this.attachment?.end();
    this.unwatch?.();
    this.terminal?.dispose();
    this.host?.remove();
  }
}

function keep() {
  const open = [...tabs.get().values()].map(({ id, watching }) => ({ id, watching }));
  if (open.length) sessionStorage.setItem(KEY, JSON.stringify(open));
  else sessionStorage.removeItem(KEY);
}

/** Tabs that this browser tab had before it was loaded anew. */
export function restoreTabs() {
  const known = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  tabs.set(new Map(known.map(({ id, watching }) => [id, new Tab(id, watching)])));
}

/** Forget all tabs: somebody else may come. */
export function dropTabs() {
  for (const tab of tabs.get().values()) tab.end();
  tabs.set(new Map());
  sessionStorage.removeItem(KEY);
}

function openTab(id, watching) {
  if (!tabs.get().has(id)) tabs.set(new Map(tabs.get()).set(id, new Tab(id, watching)));
  keep();
  location.hash = `#/shell/${id}`;
}

function closeTab(id) {
  const left = new Map(tabs.get());
  const names = [...left.keys()];
  left.get(id)?.end();
  left.delete(id);
  tabs.set(left);
  keep();
  const next = names[names.indexOf(id) + 1] ?? names[names.indexOf(id) - 1];
  location.hash = next ? `#/shell/${next}` : "#/shell";
}

/** Run a command in a terminal of its own, and show it. */
export async function openShell({ argv = ["/bin/sh"], user = "0", cwd = "/", keep: seconds = 3600 } = {}) {
  const spec = { argv, env: ENV, user, cwd, window: { rows: 24, columns: 80 }, keep: seconds };
  const { data } = await post("/v1/sessions", spec);
  openTab(data.id, false);
}

export function Shell({ rest }) {
  const open = useValue(tabs);
  const [asking, setAsking] = useState(false);
  const current = open.get(rest[0]);
  useEffect(() => {
    if (!current && rest[0]?.startsWith(OF_PROCESS)) openTab(rest[0], !may("operator"));
  }, [rest[0]]);
  return html`
    <${Head} title="Shell">
      <${Commands} commands=${() => commands(current)} />
      <${Button} icon="add" kind="primary" need="operator" onClick=${() => openShell()}>New shell<//>
      <${Button} need="operator" onClick=${() => setAsking(true)}>Run…<//>
    <//>
    ${open.size > 0 && html`<div class="tabs" role="tablist" aria-label="Open shells" onKeyDown=${(event) => step(event, [...open.keys()], rest[0])}>
      ${[...open.values()].map((tab) => html`<${TabHead} key=${tab.id} tab=${tab} chosen=${tab === current} />`)}
      <a class="button quiet" href="#/shell" aria-current=${rest[0] ? undefined : "page"}>All sessions</a>
    </div>`}
    ${current ? html`<${TabPanel} key=${current.id} tab=${current} />` : html`<${Sessions} asked=${rest[0]} />`}
    ${asking && html`<${RunDialog} onClose=${() => setAsking(false)} />`}`;
}

/** Arrow keys go from tab to tab. */
function step(event, ids, current) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || event.target.getAttribute("role") !== "tab") return;
  const next = ids[(ids.indexOf(current) + by + ids.length) % ids.length];
  location.hash = `#/shell/${next}`;
  document.getElementById(`tab-${next}`)?.focus();
}

function TabHead({ tab, chosen }) {
  const { word } = useValue(tab.state);
  return html`<div class="tab" data-chosen=${chosen ? "" : undefined}>
    <a role="tab" id="tab-${tab.id}" href="#/shell/${tab.id}" aria-selected=${String(chosen)} aria-controls="terminal" tabindex=${chosen ? 0 : -1}>
      <${Icon} name=${tab.watching ? "watch" : "shell"} /><span>${tab.title}</span>${word === "ended" && html`<span class="muted">ended</span>`}</a>
    <button class="plain" aria-label=${`Close the tab ${tab.title}`} title="Close this tab; the session goes on" onClick=${() => closeTab(tab.id)}><${Icon} name="close" /></button>
  </div>`;
}

function TabPanel({ tab }) {
  const place = useRef();
  const state = useValue(tab.state);
  useEffect(() => {
    let watcher;
    let over = false;
    tab.ready.then(() => {
      if (over) return;
      tab.show(place.current);
      watcher = new ResizeObserver(() => tab.fits());
      watcher.observe(place.current);
    }, () => {});
    return () => {
      over = true;
      watcher?.disconnect();
      tab.host?.remove();
    };
  }, []);
  return html`<section class="terminal" id="terminal" role="tabpanel" aria-labelledby="tab-${tab.id}">
    <${TabState} tab=${tab} state=${state} />
    <div class="screen" ref=${place} onFocusIn=${() => tab.fit && tab.fits()} />
    <div class="keys" aria-label="Keys" role="group">
      ${KEYS.map(([label, text]) => html`<button type="button" class="button quiet" key=${label} aria-label=${`Key ${label}`}
        onPointerDown=${(event) => event.preventDefault()} onClick=${() => tab.type(new TextEncoder().encode(text))}>${label}</button>`)}
    </div>
    <p class="hint">${tab.watching ? "You watch: what you type goes nowhere." : html`<kbd>Ctrl</kbd> <kbd>F6</kbd> leaves the terminal. It outlives this page: come back and find it as it is.`}</p>
  </section>`;
}

function TabState({ tab, state }) {
  if (["open", "opening"].includes(state.word)) return null;
  if (state.word === "broken") return html`<p class="note" role="status">The connection broke; coming back…</p>`;
  return html`<div class="note row" role="status"><p>${sentence(state.reason || "the session is gone")}</p>
    <div class="row">
      ${tab.process && html`<${Button} onClick=${() => { closeTab(tab.id); openTab(tab.id, tab.watching); }}>Attach again<//>`}
      <${Button} onClick=${() => closeTab(tab.id)}>Close the tab<//>
    </div></div>`;
}

/** All sessions of the container, also those of others. */
function Sessions({ asked }) {
  const { data, error, reload } = useLoaded(() => get("/v1/sessions"), [], 5000);
  const own = [...useValue(processes).values()].filter((info) => info.spec.tty);
  const now = useNow();
  const end = async (session) => {
    await remove(`/v1/sessions/${session.id}`);
    if (tabs.get().has(session.id)) closeTab(session.id);
    await reload();
    say("The session is hung up");
  };
  if (error || !data) return html`<${Loading} data=${data} error=${error} />`;
  return html`
    ${own.length > 0 && html`<p>Terminals of processes: ${own.map(({ name }, at) => html`${at > 0 && ", "}<a key=${name} href=${terminalOf(name)}>${name}</a>`)}</p>`}
    ${asked && html`<p class="note">There is no tab of session ${asked}${data.sessions.some(({ id }) => id === asked) ? ": attach to it below" : " any more"}.</p>`}
    ${!data.sessions.length && html`<${Empty} title="Nobody has a shell here."><p>A shell outlives its tab for as long as you like, and several people may watch and type.</p><//>`}
    ${data.sessions.length > 0 && html`<${Table} columns=${["Command", "User", "State", "Since", "Viewers", ""]} numbers=${["Viewers"]}>${data.sessions.map((session) => html`<tr key=${session.id}>
        <th scope="row"><strong class="mono">${line(session.spec.argv)}</strong><span class="detail">${session.id}</span></th>
        <td><span class="what">User</span>${session.spec.user ?? "0"}</td>
        <td>${session.state === "ended" ? `ended with ${session.exit?.signal ?? session.exit?.code}` : "running"}</td>
        <td title=${moment(session.since)}><span class="what">Since</span>${span(now - session.since)}</td>
        <td class="number"><span class="what">Viewers</span>${session.viewers}</td>
        <td class="do"><div class="row">
          <${Button} label=${`Attach to ${line(session.spec.argv)}`} need="operator" onClick=${() => openTab(session.id, false)}>Attach<//>
          <${Button} icon="watch" label=${`Watch ${line(session.spec.argv)}`} kind="quiet" onClick=${() => openTab(session.id, true)} />
          <${Button} icon="remove" label=${`Hang up ${line(session.spec.argv)}`} kind="quiet" need="operator" onClick=${() => end(session)} />
        </div></td>
      </tr>`)}<//>`}`;
}

function RunDialog({ onClose }) {
  const [form, setForm] = useState({ command: "/bin/sh", user: "0", cwd: "/", keep: "3600" });
  const [wrong, setWrong] = useState({});
  const change = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const run = async (event) => {
    event.preventDefault();
    let argv;
    try {
      argv = words(form.command);
    } catch (error) {
      setWrong({ command: sentence(error.message) });
      return;
    }
    try {
      await openShell({ argv, user: form.user, cwd: form.cwd, keep: Number(form.keep) });
      onClose();
    } catch (error) {
      if (!(error instanceof Problem)) complain(error);
      else setWrong({ [{ "/user": "user", "/cwd": "cwd" }[error.pointer] ?? "command"]: sentence(error.message) });
    }
  };
  return html`<${Dialog} title="Run a command in a terminal" onClose=${onClose}>
    <form class="stack" onSubmit=${run} novalidate>
      <${Field} label="Command" hint="Words as in a shell; nothing is expanded." error=${wrong.command}>
        ${(given) => html`<input ...${given} class="mono" value=${form.command} onInput=${change("command")} autofocus spellcheck=${false} autocapitalize="off" />`}<//>
      <div class="pair">
        <${Field} label="User" error=${wrong.user}>${(given) => html`<input ...${given} value=${form.user} onInput=${change("user")} />`}<//>
        <${Field} label="Working directory" error=${wrong.cwd}>${(given) => html`<input ...${given} value=${form.cwd} onInput=${change("cwd")} />`}<//>
      </div>
      <${Field} label="Outlives its last viewer for">
        ${(given) => html`<select ...${given} value=${form.keep} onChange=${change("keep")}>${KEEPS.map(([value, text]) => html`<option key=${value} value=${String(value)}>${text}</option>`)}</select>`}<//>
      <footer><${Button} onClick=${onClose}>Cancel<//><button class="button primary" type="submit">Run</button></footer>
    </form>
  <//>`;
}

function commands(tab) {
  const body = { argv: ["/bin/sh"], env: { TERM: "xterm-256color" }, window: { rows: 40, columns: 120 }, keep: 600 };
  const rows = [
    { title: "All sessions", curl: curl("GET", "/v1/sessions"), zn: zn("process sessions") },
    { title: "A new shell", curl: curl("POST", "/v1/sessions", { body }), zn: `${zn("exec -it")} -- sh` },
  ];
  if (!tab) return rows;
  if (tab.process) {
    return [{ title: "Attach to this process", curl: curl("GET", `/v1/processes/${tab.process}/attach`), zn: zn("attach", tab.process) }, ...rows];
  }
  const path = `/v1/sessions/${tab.id}`;
  return [
    { title: "Attach to this session", curl: curl("GET", path), zn: zn("attach", tab.id) },
    { title: "Hang it up", curl: curl("DELETE", path), zn: zn("process hangup", tab.id) },
    ...rows,
  ];
}
