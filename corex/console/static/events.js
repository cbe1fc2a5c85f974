import { useState } from "preact/hooks";
import { Commands, curl, zn } from "./commands.js";
import { count, moment } from "./format.js";
import { State } from "./icons.js";
import { happened, missed, processes } from "./live.js";
import { useValue } from "./store.js";
import { Empty, Head, html, sentence } from "./ui.js";

const PAGE = 200;

export function Events() {
  const all = useValue(happened);
  const lost = useValue(missed);
  const names = [...useValue(processes).keys()];
  const [only, setOnly] = useState("");
  const [most, setMost] = useState(PAGE);
  const fitting = all.filter((event) => !only || event.process === only);
  return html`<${Head} title="Events">
      <select class="filter" aria-label="Process" value=${only} onChange=${(event) => setOnly(event.target.value)}>
        <option value="">All processes</option>${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select>
      <${Commands} commands=${commands} />
    <//>
    ${!fitting.length && html`<${Empty} title="Nothing has happened yet." />`}
    ${fitting.length > 0 && html`<div class="scroll"><${EventTable} events=${fitting.slice(-most)} /></div>`}
    ${fitting.length > most && html`<p><button class="button" type="button" onClick=${() => setMost(most + PAGE)}>Show older ones</button></p>`}
    ${lost > 0 && html`<p class="muted">${count(lost, "older event")} ${lost === 1 ? "is" : "are"} no longer kept.</p>`}`;
}

/** Events, the newest first. */
export function EventTable({ events, brief }) {
  return html`<table class="cards events">
    <thead><tr><th scope="col">When</th>${!brief && html`<th scope="col">Process</th>`}<th scope="col">State</th><th scope="col">Why</th></tr></thead>
    <tbody>${events.toReversed().map((event) => html`<tr key=${event.seq}>
      <td class="when">${moment(event.time)}</td>
      ${!brief && html`<td><a href="#/processes/${event.process}">${event.process}</a></td>`}
      <td><${State} state=${event.state} /></td><td class="why">${sentence(event.why)}</td>
    </tr>`)}</tbody>
  </table>`;
}

const commands = () => [
  { title: "What happened", curl: curl("GET", "/v1/events"), zn: zn("process events") },
  { title: "As it happens", curl: curl("GET", "/v1/events", { headers: ["Accept: text/event-stream"], options: "-kN" }), zn: zn("process events", "--follow") },
];
