import { useState } from "preact/hooks";
import { post, remove } from "./api.js";
import { Chart } from "./chart.js";
import { Commands, curl, zn } from "./commands.js";
import { EventTable } from "./events.js";
import { bytes, line, moment, percent, span } from "./format.js";
import { Icon, State } from "./icons.js";
import { forget, happened, may, processes, system } from "./live.js";
import { Why, act, isIdle } from "./processes.js";
import { useValue } from "./store.js";
import { Button, Dialog, Empty, Field, Head, html, say, useNow } from "./ui.js";

const SIGNALS = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGTERM", "SIGQUIT", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGWINCH"];

/** One process: what it is, what it uses, and what can be done with it. */
export function Process({ name }) {
  const info = useValue(processes, (all) => all.get(name));
  const known = useValue(system);
  if (!info && !known) return html`<${Head} title=${name} back="#/processes" /><p class="loading">Reading…</p>`;
  if (!info) {
    return html`<${Head} title=${name} back="#/processes" />
      <${Empty} title=${`There is no process ${name}.`}><a href="#/processes">See all processes</a><//>`;
  }
  return html`<${Known} info=${info} />`;
}

function Known({ info }) {
  const now = useNow();
  const [asked, setAsked] = useState("");
  const { name } = info;
  const close = () => setAsked("");
  const events = useValue(happened).filter((event) => event.process === name).slice(-8);
  return html`
    <${Head} title=${name} back="#/processes">
      <${Commands} commands=${() => commands(info)} />
      <a class="button" href="#/logs?process=${name}"><${Icon} name="logs" /><span>Logs</span></a>
      ${may("operator")
        ? html`<a class="button" href="#/processes/${name}/edit"><${Icon} name="edit" /><span>Edit</span></a>`
        : html`<${Button} icon="edit" need="operator">Edit<//>`}
    <//>
    <section class="card state-card" aria-label="State">
      <div>
        <p class="big"><${State} state=${info.state} />${info.health && html`<${State} state=${info.health} />`}
          <span class="muted">wanted ${info.wanted}, for ${span(now - info.since)}</span></p>
        <p class="sentence"><${Why} info=${info} now=${now} /></p>
        ${info.status && html`<p class="muted">It says: ${info.status}</p>`}
      </div>
      <div class="actions">
        ${isIdle(info)
          ? html`<${Button} icon="start" need="operator" kind="primary" onClick=${() => act(name, "start")}>Start<//>`
          : html`<${Button} icon="stop" need="operator" onClick=${() => act(name, "stop")}>Stop<//>`}
        <${Button} icon="restart" need="operator" onClick=${() => act(name, "restart")}>Restart<//>
        <${Button} icon="reset" need="operator" title="Forget its failures; it starts now if it is meant to run" onClick=${() => act(name, "reset")}>Reset<//>
        <${Button} icon="signal" need="operator" why=${info.pid ? "" : `${name} does not run.`} onClick=${() => setAsked("signal")}>Signal…<//>
        <${Button} icon="remove" need="operator" why=${isIdle(info) ? "" : "Stop it first."} onClick=${() => setAsked("remove")}>Delete…<//>
      </div>
    </section>
    <section class="card" aria-label="Figures">
      ${info.usage && html`<div class="charts">
        <${Chart} name=${name} title="CPU" at=${1} least=${0.05} show=${percent} />
        <${Chart} name=${name} title="Memory" at=${2} least=${1 << 20} show=${bytes} />
      </div>`}
      <dl class="figures">
        <${Figure} what="CPU">${percent(info.cpu)}<//>
        <${Figure} what="CPU time">${info.usage ? `${info.usage.cpu_seconds.toFixed(2)} s` : "–"}<//>
        <${Figure} what="Memory">${bytes(info.usage?.memory_bytes)}<//>
        ${info.usage?.tasks !== undefined && html`<${Figure} what="Tasks">${info.usage.tasks}<//>`}
        ${info.usage?.read_bytes !== undefined && html`<${Figure} what="Read">${bytes(info.usage.read_bytes)}<//>`}
        ${info.usage?.written_bytes !== undefined && html`<${Figure} what="Written">${bytes(info.usage.written_bytes)}<//>`}
        <${Figure} what="PID">${info.pid ?? "–"}<//>
        <${Figure} what="Restarts">${info.restarts ?? 0}<//>
        <${Figure} what="Last start">${info.last_start ? moment(info.last_start) : "never"}<//>
        <${Figure} what="Last end">${ending(info.exit)}<//>
      </dl>
    </section>
    ${events.length > 0 && html`<section class="card" aria-label="What happened"><h2>What happened</h2><${EventTable} events=${events} brief /></section>`}
    <${Specification} spec=${info.spec} />
    ${asked === "signal" && html`<${SignalDialog} name=${name} onClose=${close} />`}
    ${asked === "remove" && html`<${RemoveDialog} name=${name} onClose=${close} />`}`;
}

function Figure({ what, children }) {
  return html`<div><dt>${what}</dt><dd>${children}</dd></div>`;
}

function ending(exit) {
  if (!exit) return "–";
  return exit.signal ? `signal ${exit.signal}` : `code ${exit.code}`;
}

/** A value of a specification for people. */
function shown(value) {
  if (Array.isArray(value)) return line(value.map(String));
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).map(([key, inner]) => `${key}=${shown(inner)}`).join("\n");
  }
  return String(value);
}

function Specification({ spec }) {
  const rows = Object.entries(spec).filter(([, value]) => value !== null);
  return html`<section class="card" aria-label="Specification">
    <h2>Specification</h2>
    <dl class="spec">${rows.map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd><pre>${shown(value)}</pre></dd></div>`)}</dl>
    <p class="muted">All else is as docs/corex.md says.</p>
  </section>`;
}

function SignalDialog({ name, onClose }) {
  const [signal, setSignal] = useState("SIGHUP");
  const send = async () => {
    await post(`/v1/processes/${name}/signal`, { signal });
    say(`Sent ${signal} to ${name}`);
    onClose();
  };
  return html`<${Dialog} title=${`Send a signal to ${name}`} onClose=${onClose}>
    <${Field} label="Signal" hint="By name or number, as in signal(7).">
      ${(given) => html`<input ...${given} list="signals" value=${signal} autofocus onInput=${(event) => setSignal(event.target.value)} />`}
    <//>
    <datalist id="signals">${SIGNALS.map((one) => html`<option key=${one} value=${one} />`)}</datalist>
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" need="operator" onClick=${send}>Send<//></footer>
  <//>`;
}

function RemoveDialog({ name, onClose }) {
  const sure = async () => {
    await remove(`/v1/processes/${name}`);
    location.hash = "#/processes";
    forget(name);
    say(`${name} is forgotten`);
  };
  return html`<${Dialog} title=${`Delete ${name}?`} onClose=${onClose}>
    <p>Its specification and its logs are forgotten.</p>
    <footer><${Button} onClick=${onClose} autofocus>Cancel<//><${Button} kind="danger" need="operator" onClick=${sure}>Delete<//></footer>
  <//>`;
}

function commands({ name }) {
  const path = `/v1/processes/${name}`;
  const verb = (word, wait) => ({ title: word, curl: curl("POST", `${path}/${word.toLowerCase()}?wait=${wait}`), zn: zn(`process ${word.toLowerCase()}`, name) });
  return [
    { title: "This process", curl: curl("GET", path), zn: zn("process show", name) },
    verb("Start", 30),
    verb("Stop", 60),
    verb("Restart", 60),
    verb("Reset", 30),
    { title: "Send a signal", curl: curl("POST", `${path}/signal`, { body: { signal: "SIGHUP" } }), zn: zn("process signal", name, "SIGHUP") },
    { title: "Delete", curl: curl("DELETE", path) },
  ];
}
