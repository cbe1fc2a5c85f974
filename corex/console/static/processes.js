import { useMemo, useState } from "preact/hooks";
import { post } from "./api.js";
import { Commands, curl, zn } from "./commands.js";
import { bytes, count, moment, percent, span } from "./format.js";
import { Icon, State } from "./icons.js";
import { histories, may, processes, system, take } from "./live.js";
import { useValue } from "./store.js";
import { Button, Empty, Head, html, say, sentence, useNow } from "./ui.js";

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
      <${Commands} commands=${commands} />
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

const commands = () => [
  { title: "All processes", curl: curl("GET", "/v1/processes"), zn: zn("process ls") },
  { title: "Start one", curl: curl("POST", "/v1/processes/NAME/start?wait=30"), zn: zn("process start", "NAME") },
  { title: "Stop one", curl: curl("POST", "/v1/processes/NAME/stop?wait=60"), zn: zn("process stop", "NAME") },
  { title: "Restart one", curl: curl("POST", "/v1/processes/NAME/restart?wait=60"), zn: zn("process restart", "NAME") },
];
