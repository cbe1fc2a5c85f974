// Processes: all of them, and the page of one.

import { useMemo, useState } from "preact/hooks";
import { ask, post, put, remove } from "./api.js";
import { Chart } from "./chart.js";
import { Commands, curl, zn } from "./commands.js";
import { EventTable } from "./events.js";
import { bytes, count, line, moment, percent, span } from "./format.js";
import { Icon, State } from "./icons.js";
import { forget, happened, histories, may, processes, refresh, system, take } from "./live.js";
import { Changes } from "./plan.js";
import { terminalOf } from "./shell.js";
import { useValue } from "./store.js";
import { Button, Dialog, Empty, Field, Head, html, say, sentence, useLoaded, useNow } from "./ui.js";

const IDLE = ["stopped", "exited", "failed", "scheduled"];

/** Have Core-X start, stop, restart or reset a process. */
export async function act(name, verb) {
  const { data } = await post(`/v1/processes/${name}/${verb}`);
  take(data);
  say(`${name} is ${data.state}`);
}

/** Whether a process is at rest, so that it can be started. */
export const isIdle = (info) => IDLE.includes(info.state);

export function Processes() {
  const all = useValue(processes);
  const known = useValue(system);
  const [wanted, setWanted] = useState("");
  const [most, setMost] = useState(PAGE);
  const now = useNow();
  const shown = [...all.values()].filter((info) => `${info.name} ${info.state} ${info.spec.argv.join(" ")}`.includes(wanted));
  return html`
    <${Head} title="Processes">
      ${all.size > 6 && html`<input class="filter" type="search" aria-label="Filter processes" placeholder="Filter" value=${wanted} onInput=${(event) => setWanted(event.target.value)} />`}
      <${Commands} commands=${listCommands} />
      ${may("operator")
        ? html`<a class="button primary" href="#/new"><${Icon} name="add" /><span>Add process</span></a>`
        : html`<${Button} icon="add" need="operator">Add process<//>`}
    <//>
    ${!known && html`<p class="loading">Reading…</p>`}
    ${known && !all.size && html`<${Empty} title="No process is declared."><p>Add one, or apply a layer of a plan.</p><//>`}
    ${shown.length > 0 && html`<div class="scroll"><table class="processes">
      <thead><tr>
        <th scope="col">Process</th><th scope="col">State</th><th scope="col">Why</th><th scope="col" class="number">CPU</th>
        <th scope="col" class="number">Memory</th><th scope="col" class="number">Since</th><th scope="col" class="number">Restarts</th>
        <th scope="col"><span class="hidden">Actions</span></th>
      </tr></thead>
      <tbody>${shown.slice(0, most).map((info) => html`<${Row} key=${info.name} info=${info} now=${now} />`)}</tbody>
    </table></div>`}
    ${shown.length > most && html`<p><${Button} onClick=${() => setMost(most + PAGE)}>Show more of ${count(shown.length, "process", "processes")}<//></p>`}
    ${all.size > 0 && !shown.length && html`<${Empty} title=${`No process fits “${wanted}”.`} />`}`;
}

/** A process; drawn anew only when it shows something else. */
function Row({ info, now }) {
  const since = span(now - info.since, 1);
  const spark = points(info.name);
  const next = info.next_start ? Math.ceil(info.next_start - now) : 0;
  const { state, why, health, outdated, wanted, restarts, usage, spec, cpu } = info;
  const figures = [percent(cpu), bytes(usage?.memory_bytes), since, next, spark];
  return useMemo(() => row(info, now, since, spark), [state, why, health, outdated, wanted, restarts, spec.argv.join(" "), ...figures]);
}

function row(info, now, since, spark) {
  return html`<tr>
    <th scope="row"><a href="#/processes/${info.name}">${info.name}</a>
      <span class="detail" title=${info.spec.argv.join(" ")}>${info.spec.argv.join(" ")}</span></th>
    <td class="is"><${State} state=${info.state} />${info.health && html` <${State} state=${info.health} />`}
      <span class="detail">wanted ${info.wanted}</span></td>
    <td class="why"><${Why} info=${info} now=${now} /></td>
    <td class="number cpu"><span class="what">CPU</span><svg class="spark" viewBox="0 0 ${WIDTH} ${HEIGHT}" aria-hidden="true"><polyline points=${spark} /></svg><span>${percent(info.cpu)}</span></td>
    <td class="number"><span class="what">Memory</span>${bytes(info.usage?.memory_bytes)}</td>
    <td class="number" title=${moment(info.since)}><span class="what">Since</span>${since}</td>
    <td class="number"><span class="what">Restarts</span>${info.restarts ?? 0}</td>
    <td class="do"><div class="row">
      ${isIdle(info)
        ? html`<${Button} icon="start" label=${`Start ${info.name}`} need="operator" kind="quiet" onClick=${() => act(info.name, "start")} />`
        : html`<${Button} icon="stop" label=${`Stop ${info.name}`} need="operator" kind="quiet" onClick=${() => act(info.name, "stop")} />`}
      <${Button} icon="restart" label=${`Restart ${info.name}`} need="operator" kind="quiet" onClick=${() => act(info.name, "restart")} />
    </div></td>
  </tr>`;
}

/** The one sentence of why, and when the next start is due. */
export function Why({ info, now }) {
  const left = info.next_start ? info.next_start - now : 0;
  return html`${sentence(info.why)}${info.next_start && html`<span class="next" data-state=${info.state}>${left > 0 ? `next start in ${span(Math.ceil(left))}` : "next start now"}</span>`}
    ${info.outdated && html`<span class="next">restart it to use its new specification</span>`}`;
}

// Rows that are shown at first, and more at a time.
const PAGE = 200;
const WIDTH = 44;
const HEIGHT = 18;

/** The last minute of a process's processor time as a line, without figures: those stand beside it. */
function points(name) {
  const samples = (histories.get(name) ?? []).slice(-WIDTH / 2).map(([, share]) => share ?? 0);
  if (samples.length < 2) return "";
  const most = Math.max(...samples);
  if (most === 0) return `0,${HEIGHT - 1} ${WIDTH},${HEIGHT - 1}`;
  const scale = (HEIGHT - 2) / Math.max(0.05, most);
  return samples.map((share, at) => `${WIDTH - 2 * (samples.length - 1 - at)},${(HEIGHT - 1 - share * scale).toFixed(1)}`).join(" ");
}

const listCommands = () => [
  { title: "All processes", curl: curl("GET", "/v1/processes"), zn: zn("process ls") },
  { title: "Start one", curl: curl("POST", "/v1/processes/NAME/start?wait=30"), zn: zn("process start", "NAME") },
  { title: "Stop one", curl: curl("POST", "/v1/processes/NAME/stop?wait=60"), zn: zn("process stop", "NAME") },
  { title: "Restart one", curl: curl("POST", "/v1/processes/NAME/restart?wait=60"), zn: zn("process restart", "NAME") },
];

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
