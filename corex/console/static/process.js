import { useState } from "preact/hooks";
import { ask, post, put, remove } from "./api.js";
import { Chart } from "./chart.js";
import { Commands, curl, zn } from "./commands.js";
import { EventTable } from "./events.js";
import { bytes, line, moment, percent, span } from "./format.js";
import { Icon, State } from "./icons.js";
import { forget, happened, may, processes, refresh, system } from "./live.js";
import { Changes } from "./plan.js";
import { Why, act, isIdle } from "./processes.js";
import { terminalOf } from "./shell.js";
import { useValue } from "./store.js";
import { Button, Dialog, Empty, Field, Head, html, say, sentence, useLoaded, useNow } from "./ui.js";

const SIGNALS = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGTERM", "SIGQUIT", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGWINCH"];

// The layer of what was added and edited one by one.
const EDITS = "edits";

/** The layers that declare a process, but that of edits: it is theirs. Edits of it lie over what they say. */
export const owners = ({ layers = [] }) => layers.filter((name) => name !== EDITS);
export const isEdited = ({ layers = [] }) => layers.includes(EDITS);

/** "layer container declares", "layers container and shop declare". */
export function declared(names) {
  const listed = names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];
  return names.length > 1 ? `layers ${listed} declare` : `layer ${listed} declares`;
}

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
      ${info.spec.tty && html`<a class="button" href=${terminalOf(name)}><${Icon} name="shell" /><span>Terminal</span></a>`}
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
        ${owners(info).length > 0 && isEdited(info)
          ? html`<${Button} icon="undo" need="operator" onClick=${() => setAsked("back")}>Take edits back…<//>`
          : html`<${Button} icon="remove" need="operator" why=${keeps(info)} onClick=${() => setAsked("remove")}>Delete…<//>`}
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
    <${Specification} info=${info} />
    ${asked === "signal" && html`<${SignalDialog} name=${name} onClose=${close} />`}
    ${asked === "remove" && html`<${RemoveDialog} name=${name} onClose=${close} />`}
    ${asked === "back" && html`<${BackDialog} info=${info} onClose=${close} />`}`;
}

/** Why Core-X would not delete it now, or nothing. */
function keeps(info) {
  if (owners(info).length) return sentence(`${declared(owners(info))} it: change that under Plan`);
  return isIdle(info) ? "" : "Stop it first.";
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

/** Who says what it is. */
function Origin({ info }) {
  const names = owners(info);
  const plan = html`<a href="#/plan">Plan</a>`;
  if (!names.length && isEdited(info)) return html`<p class="muted">It was added by itself, in layer edits.</p>`;
  if (!names.length) return html`<p class="muted">No layer declares it any more: applying the plan stops and forgets it (see ${plan}).</p>`;
  return html`<p class="muted">${sentence(`${declared(names)} it${isEdited(info) ? "; edits of it lie over that" : ""}`)} See ${plan}.</p>`;
}

function Specification({ info }) {
  const { spec } = info;
  const rows = Object.entries(spec).filter(([, value]) => value !== null);
  return html`<section class="card" aria-label="Specification">
    <div><h2>Specification</h2><${Origin} info=${info} /></div>
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

/** Edits of one process as their layer has them, and what taking them back would do. */
async function edits(name) {
  const { data, etag } = await ask("GET", `/v1/layers/${EDITS}`);
  const { [name]: gone, ...processes } = data.layer.processes ?? {};
  const layer = { ...data.layer, processes };
  const headers = { "If-Match": etag };
  const { data: would } = await put(`/v1/layers/${EDITS}?dry_run=true`, layer, { headers });
  return { layer, headers, changes: would.changes };
}

function BackDialog({ info, onClose }) {
  const { name } = info;
  const { data, error } = useLoaded(() => edits(name));
  const back = async (isApplied) => {
    const { data: saved } = await put(`/v1/layers/${EDITS}`, data.layer, { headers: data.headers });
    if (isApplied) await post("/v1/plan/apply", undefined, { headers: { "If-Match": saved.etag } });
    say(isApplied ? `${name} is as ${declared(owners(info))} it` : `Edits of ${name} are taken back; apply the plan to have it so`);
    onClose();
    await refresh();
  };
  return html`<${Dialog} title=${`Take edits of ${name} back?`} onClose=${onClose}>
    <p>${sentence(`it becomes what ${declared(owners(info))}`)}</p>
    ${error && html`<p class="wrong">${sentence(error.message)}</p>`}
    ${!data && !error && html`<p class="muted">Reading…</p>`}
    ${data && html`<div class="would"><h3>Applying the plan would do then</h3><${Changes} changes=${data.changes} /></div>`}
    <footer>
      <${Button} onClick=${onClose} autofocus>Cancel<//>
      <${Button} need="operator" why=${data ? "" : "It is being read."} onClick=${() => back(false)}>Take back<//>
      <${Button} kind="primary" need="operator" why=${data ? "" : "It is being read."} onClick=${() => back(true)}>Take back and apply<//>
    </footer>
  <//>`;
}

function commands(info) {
  const { name } = info;
  const path = `/v1/processes/${name}`;
  const verb = (word, wait) => ({ title: word, curl: curl("POST", `${path}/${word.toLowerCase()}?wait=${wait}`), zn: zn(`process ${word.toLowerCase()}`, name) });
  return [
    { title: "This process", curl: curl("GET", path), zn: zn("process show", name) },
    verb("Start", 30),
    verb("Stop", 60),
    verb("Restart", 60),
    verb("Reset", 30),
    { title: "Send a signal", curl: curl("POST", `${path}/signal`, { body: { signal: "SIGHUP" } }), zn: zn("process signal", name, "SIGHUP") },
    ...removal(info, path),
  ];
}

/** How it is deleted, or edits of it are, where that would be done. */
function removal(info, path) {
  const { name } = info;
  if (!owners(info).length) return [{ title: "Delete", curl: curl("DELETE", path), zn: zn("process rm", name) }];
  if (!isEdited(info)) return [];
  const layer = `/v1/layers/${EDITS}`;
  const send = curl("PUT", layer, { headers: ["Content-Type: application/json"] });
  return [{ title: "Take edits back; then apply the plan", curl: `${curl("GET", layer)} |\n jq '.layer | del(.processes["${name}"])' | ${send} -d @-` }];
}
