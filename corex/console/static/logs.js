import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, events, url } from "./api.js";
import { Commands, curl, zn } from "./commands.js";
import { clock, count, moment } from "./format.js";
import { Icon } from "./icons.js";
import { may, processes } from "./live.js";
import { paint } from "./sgr.js";
import { useValue } from "./store.js";
import { save } from "./transfers.js";
import { Button, Head, html, say, sentence } from "./ui.js";

// Lines that the page keeps, and that a paused page waits with.
const MOST = 5000;
const AGAIN = 1500;
const SPANS = [["", "all that is kept"], ["300", "last 5 minutes"], ["3600", "last hour"], ["86400", "last day"], ["given", "from … to …"]];

/** What the address asks for. */
function asked(query) {
  return {
    process: query.getAll("process"),
    stream: query.get("stream") ?? "",
    match: query.get("match") ?? "",
    span: query.get("span") ?? "",
    since: query.get("since") ?? "",
    until: query.get("until") ?? "",
  };
}

/** The same as parameters of GET /v1/logs. */
function parameters(wanted) {
  const { process, stream, match, span } = wanted;
  const given = span === "given";
  const since = given ? wanted.since && Date.parse(wanted.since) / 1000 : span && Math.floor(Date.now() / 1000 - Number(span));
  const until = given && wanted.until ? Date.parse(wanted.until) / 1000 : "";
  return { process, stream, match, since, until };
}

export function Logs({ query }) {
  const wanted = asked(query);
  const change = (fields) => {
    location.hash = `#${url("/logs", { ...wanted, ...fields })}`;
  };
  const [refused, setRefused] = useState({});
  const asks = query.toString();
  return html`<${Head} title="Logs"><${Commands} commands=${() => commands(wanted)} /><//>
    <${Filters} wanted=${wanted} change=${change} error=${refused.asks === asks ? refused.error : ""} />
    <${Stream} key=${asks} wanted=${wanted} refuse=${(error) => setRefused({ asks, error })} />`;
}

function Filters({ wanted, change, error }) {
  const names = [...useValue(processes).keys()];
  const [pattern, setPattern] = useState(wanted.match);
  useEffect(() => setPattern(wanted.match), [wanted.match]);
  const choose = (name) => change({ process: wanted.process.includes(name) ? wanted.process.filter((one) => one !== name) : [...wanted.process, name] });
  const chosen = wanted.process.length;
  return html`<form class="filters" onSubmit=${(event) => { event.preventDefault(); change({ match: pattern }); }}>
    <details class="menu" onKeyDown=${closeMenu} onFocusOut=${leaveMenu}>
      <summary class="button"><${Icon} name="processes" /><span>${chosen === 1 ? wanted.process[0] : chosen ? count(chosen, "process", "processes") : "All processes"}</span></summary>
      <div role="group" aria-label="Processes">
        ${chosen > 0 && html`<${Button} kind="quiet" onClick=${() => change({ process: [] })}>All processes<//>`}
        ${names.map((name) => html`<label key=${name}><input type="checkbox" checked=${wanted.process.includes(name)} onChange=${() => choose(name)} />${name}</label>`)}
      </div>
    </details>
    <select aria-label="Stream" value=${wanted.stream} onChange=${(event) => change({ stream: event.target.value })}>
      <option value="">both streams</option><option value="stdout">stdout</option><option value="stderr">stderr</option>
    </select>
    <select aria-label="Time" value=${wanted.span} onChange=${(event) => change({ span: event.target.value })}>
      ${SPANS.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}
    </select>
    ${wanted.span === "given" && ["since", "until"].map(
      (name) => html`<input key=${name} type="datetime-local" step="1" aria-label=${name} value=${wanted[name]} onChange=${(event) => change({ [name]: event.target.value })} />`,
    )}
    <input class="pattern mono" type="search" aria-label="Pattern" placeholder="Pattern, as time-?out" value=${pattern}
      aria-invalid=${error ? "true" : undefined} aria-describedby=${error ? "no-pattern" : undefined} disabled=${!may("operator")}
      title=${may("operator") ? "A regular expression of Python's" : "Patterns need the role operator."}
      onInput=${(event) => setPattern(event.target.value)} onChange=${() => change({ match: pattern })} />
    ${error && html`<p class="wrong" id="no-pattern" role="alert">${error}</p>`}
  </form>`;
}

function closeMenu(event) {
  if (event.key !== "Escape") return;
  event.currentTarget.open = false;
  event.currentTarget.querySelector("summary").focus();
}

function leaveMenu(event) {
  if (event.relatedTarget && !event.currentTarget.contains(event.relatedTarget)) event.currentTarget.open = false;
}

function Stream({ wanted, refuse }) {
  const element = useRef();
  const view = useRef(null);
  const [status, setStatus] = useState({ shown: 0, waiting: 0, paused: false, broken: false });
  const [wrap, setWrap] = useState(localStorage.getItem("wrap") !== "no");
  useEffect(() => {
    const made = new View(element.current, setStatus);
    view.current = made;
    const over = new AbortController();
    follow(made, wanted, over.signal).catch((problem) => {
      if (problem.name !== "AbortError") refuse(sentence(problem.message));
    });
    return () => {
      over.abort();
      made.end();
    };
  }, []);
  const turnWrap = () => {
    localStorage.setItem("wrap", wrap ? "no" : "yes");
    setWrap(!wrap);
  };
  return html`<section class="card log-card" aria-label="Lines">
      <div class="log ${wrap ? "wrap" : ""}" ref=${element} role="log" aria-live="off" aria-label="Log" tabindex="0" onScroll=${() => view.current?.scrolled()} />
      ${!status.shown && !status.waiting && html`<p class="none muted">No line yet that fits.</p>`}
      ${status.paused && html`<button type="button" class="button primary resume" onClick=${() => view.current.resume()}>
        <${Icon} name="down" /><span>${status.waiting ? `${count(status.waiting, "new line")}` : "Newest line"}</span></button>`}
    </section>
    <footer class="log-foot">
      <p class="muted" role="status">${status.broken ? "The connection broke; trying again…" : status.paused ? "Paused" : "Live"} · ${count(status.shown, "line")} shown${status.shown >= MOST ? ", older ones left the page" : ""}</p>
      <div class="actions">
        <${Button} kind="quiet" aria-pressed=${String(status.paused)} onClick=${() => (status.paused ? view.current.resume() : view.current.pause())}>Pause<//>
        <${Button} kind="quiet" aria-pressed=${String(wrap)} onClick=${turnWrap}>Wrap lines<//>
        <${Button} kind="quiet" onClick=${() => view.current.save()}>Save as text<//>
      </div>
    </footer>`;
}

/** Read lines as they come, and come back where the connection broke; nobody reads for a page that is not seen. */
async function follow(view, wanted, signal) {
  let after = 0;
  while (!signal.aborted) {
    const turn = new AbortController();
    const hide = () => document.hidden && turn.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const path = url("/v1/logs", { ...parameters(wanted), after, tail: after ? "" : MOST });
      for await (const found of events(path, AbortSignal.any([signal, turn.signal]))) {
        view.broken(false);
        view.add(found);
        for (const record of found) after = Math.max(after, record.order ?? 0);
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Problem && error.status !== 503)) throw error;
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    if (document.hidden) await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
    else {
      view.broken(true);
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }
}

/** The lines on the page: at most MOST, drawn once a frame; scrolling up pauses. */
class View {
  constructor(element, tell) {
    this.element = element;
    this.tell = tell;
    this.pending = [];
    this.dropped = 0;
    this.paused = false;
    this.isBroken = false;
    this.frame = 0;
    this.top = 0;
    this.hues = new Map();
  }

  end() {
    cancelAnimationFrame(this.frame);
  }

  add(records) {
    if (!records.length) return;
    this.pending.push(...records);
    if (this.pending.length > MOST) {
      const gone = this.pending.splice(0, this.pending.length - MOST);
      this.dropped += gone.reduce((sum, one) => sum + (one.lost ?? 1), 0);
    }
    this.draw();
  }

  broken(is) {
    if (is === this.isBroken) return;
    this.isBroken = is;
    this.draw();
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.paused) this.append();
      this.report();
    });
  }

  append() {
    const { element, pending } = this;
    if (pending.length) {
      const fragment = document.createDocumentFragment();
      if (this.dropped) fragment.append(gap(`${count(this.dropped, "line")} came while this page was paused, and were too many for it`));
      for (const record of pending) fragment.append(this.row(record));
      element.append(fragment);
      this.pending = [];
      this.dropped = 0;
      const over = element.childElementCount - MOST;
      if (over > 0) {
        const range = document.createRange();
        range.setStart(element, 0);
        range.setEnd(element, over);
        range.deleteContents();
      }
    }
    element.scrollTop = element.scrollHeight;
    this.top = element.scrollTop;
  }

  row(record) {
    if (record.kind === "gap") return gap(`${count(record.lost, "line")} were overwritten before they were read`);
    const row = document.createElement("div");
    row.className = "line";
    row.dataset.stream = record.stream;
    const time = document.createElement("time");
    time.textContent = clock(record.time);
    time.title = moment(record.time);
    const name = document.createElement("span");
    name.className = `name hue-${this.hue(record.process)}`;
    name.textContent = record.process;
    const text = document.createElement("span");
    text.className = "text";
    if (record.stream === "stderr") {
      const mark = document.createElement("span");
      mark.className = "mark";
      mark.textContent = "err ";
      text.append(mark);
    }
    paint(record.text, text);
    if (record.partial) text.append(" ⏎ goes on");
    row.append(time, name, text);
    return row;
  }

  /** Processes get colours in the order of their coming. */
  hue(process) {
    if (!this.hues.has(process)) this.hues.set(process, this.hues.size % 6);
    return this.hues.get(process);
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 24;
    const isUp = scrollTop < this.top;
    this.top = scrollTop;
    if (this.paused && isAtEnd) this.resume();
    else if (!this.paused && isUp && !isAtEnd) this.pause();
  }

  pause() {
    this.paused = true;
    this.report();
  }

  resume() {
    this.paused = false;
    this.append();
    this.report();
  }

  report() {
    this.tell({ shown: this.element.childElementCount, waiting: this.pending.length, paused: this.paused, broken: this.isBroken });
  }

  save() {
    const lines = [...this.element.children].map((row) =>
      row.className === "gap" ? `[${row.textContent}]` : `${row.firstChild.title} ${row.children[1].textContent}: ${row.lastChild.textContent}`,
    );
    save(new Blob([lines.map((line) => `${line}\n`).join("")], { type: "text/plain" }), "log.txt");
    say(`Saved ${count(lines.length, "line")}`);
  }
}

function gap(text) {
  const row = document.createElement("div");
  row.className = "gap";
  row.textContent = text;
  return row;
}

function commands(wanted) {
  const path = url("/v1/logs", parameters(wanted));
  const { stream, match, span, process } = wanted;
  const time = (moment) => moment && new Date(moment).toISOString();
  const given = { stream, match, since: span === "given" ? time(wanted.since) : span && `${span}s`, until: span === "given" && time(wanted.until) };
  const words = [...process, ...Object.entries(given).filter(([, value]) => value).map(([name, value]) => `--${name}=${value}`)];
  return [
    { title: "These lines", curl: curl("GET", path, { headers: ["Accept: text/plain"] }), zn: zn("process logs", ...words) },
    { title: "As they come", curl: curl("GET", path, { headers: ["Accept: text/event-stream"], options: "-kN" }), zn: zn("process logs", ...words, "--follow") },
  ];
}
