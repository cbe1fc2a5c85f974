import { useState } from "preact/hooks";
import { get, remove } from "./api.js";
import { Commands, curl, zn } from "./commands.js";
import { count, moment, span } from "./format.js";
import { State } from "./icons.js";
import { happened, missed, processes } from "./live.js";
import { textOf } from "./paths.js";
import { useValue } from "./store.js";
import { Button, Empty, Head, Loading, Table, html, say, sentence, useLoaded, useNow } from "./ui.js";

const PAGE = 200;

export function Events() {
  const all = useValue(happened);
  const lost = useValue(missed);
  const names = [...useValue(processes).keys()];
  const [only, setOnly] = useState("");
  const [most, setMost] = useState(PAGE);
  const fitting = all.filter((event) => !only || event.process === only);
  return html`<${Head} title="Events"><${Switch} />
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

/** Two pages of what happened: to processes, and because somebody asked for it. */
function Switch() {
  return html`<nav class="switch" aria-label="What happened">${["events", "operations"].map((name) => html`<a key=${name} class="button" href="#/${name}"
    aria-current=${location.hash.includes(name) ? "page" : undefined}>${name === "events" ? "Events" : "Operations"}</a>`)}</nav>`;
}

// Milliseconds from one look at operations to the next: nothing tells of them.
const EVERY = 2000;

/** What somebody asked for and took longer than its request, the newest first. */
export function Operations() {
  const { data, error, reload } = useLoaded(() => get("/v1/operations"), [], EVERY);
  const now = useNow();
  const cancel = async ({ id }) => {
    await remove(`/v1/operations/${id}`);
    say("It is being cancelled");
    await reload();
  };
  return html`<${Head} title="Operations"><${Switch} /><${Commands} commands=${operationCommands} /><//>
    <${Loading} data=${data} error=${error} />
    ${data?.operations.length === 0 && html`<${Empty} title="No work took longer than its request."><p>What takes long (stopping, applying a plan, deleting a folder) is shown here while it goes on, and after.</p><//>`}
    ${data?.operations.length > 0 && html`<${Table} columns=${["What", "State", "Why", "Who", "Began", "Took", ""]} numbers=${["Took"]}>
      ${data.operations.toReversed().map((one) => html`<tr key=${one.id}>
        <th scope="row"><strong>${one.kind.replace("-", " ")}</strong> <${Subject} of=${one} /></th>
        <td><${State} state=${one.state} /></td>
        <td class="why">${sentence(one.why)}</td>
        <td><span class="what">Who</span>${one.by}</td>
        <td class="when">${moment(one.since)}</td>
        <td class="number"><span class="what">Took</span>${span((one.ended ?? now) - one.since)}</td>
        <td class="do">${one.state === "running" && html`<${Button} icon="close" need="operator" kind="quiet" label=${`Cancel ${one.kind} ${textOf(one.subject)}`}
          why=${one.kind === "delete-folder" ? "" : "Others changed with it already: start or stop the processes as they shall be."} onClick=${() => cancel(one)} />`}</td>
      </tr>`)}<//>`}`;
}

/** What an operation is about. */
function Subject({ of: { kind, subject } }) {
  if (kind === "delete-folder") return html`<bdi>${textOf(subject)}</bdi>`;
  const name = subject.match(/^\/v1\/processes\/(.*)/)?.[1];
  return name ? html`<a href="#/processes/${name}">${name}</a>` : html`<a href="#/plan">the plan</a>`;
}

const operationCommands = () => [
  { title: "All operations", curl: curl("GET", "/v1/operations"), zn: zn("process operations") },
  { title: "Wait for one", curl: curl("GET", "/v1/operations/ID?wait=30") },
  { title: "Cancel one, or forget one that has ended", curl: curl("DELETE", "/v1/operations/ID"), zn: zn("process cancel", "ID") },
];

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
