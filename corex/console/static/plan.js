import { useState } from "preact/hooks";
import { Problem, ask, get, post, put, remove } from "./api.js";
import { Commands, curl, zn, znInput } from "./commands.js";
import { count, span } from "./format.js";
import { State } from "./icons.js";
import { happened, may, refresh } from "./live.js";
import { useValue } from "./store.js";
import { Button, Dialog, Field, Head, Loading, Table, complain, html, say, sentence, useLoaded, useNow } from "./ui.js";

const BLANK = { summary: "", processes: { "my-process": { argv: ["sleep", "1000"] } }, checks: {} };
// Made by the container's creation, and by single processes.
const CREATED = "container";
// Milliseconds until targets of log lines are looked at again: nothing tells of them.
const EVERY = 5000;

async function load() {
  const pending = may("operator") ? post("/v1/plan/apply?dry_run=true") : { data: null };
  const [layers, would] = await Promise.all([get("/v1/layers"), pending]);
  return { layers: layers.layers, pending: would.data };
}

/** A difference as a sentence. */
function told({ verb, process, check, target, fields = [] }) {
  const what = process || (check ? `check ${check}` : `log target ${target}`);
  const why = fields.length ? `: ${fields.join(", ")} ${fields.length === 1 ? "differs" : "differ"}` : "";
  return { start: `start ${what}`, stop: `stop and forget ${what}`, restart: `restart ${what}`, adopt: `change ${what} as it runs` }[verb] + why;
}

/** What applying a plan would do. */
export function Changes({ changes }) {
  if (!changes.length) return html`<p class="muted">Nothing: all is as the plan says.</p>`;
  return html`<ul class="changes">${changes.map((change) => html`<li key=${JSON.stringify(change)} data-verb=${change.verb}>${told(change)}</li>`)}</ul>`;
}

export function Plan() {
  const { data, error, reload } = useLoaded(load, [useValue(happened)]);
  const [edited, setEdited] = useState(null);
  const apply = async () => {
    await post("/v1/plan/apply", undefined, { headers: { "If-Match": data.pending.etag } });
    say("The plan is applied");
    await Promise.all([reload(), refresh()]);
  };
  const forget = async (layer) => {
    await remove(`/v1/layers/${layer.name}`, { headers: { "If-Match": layer.etag } });
    say(`Layer ${layer.name} is taken away; apply the plan to stop what it declared`);
    await reload();
  };
  return html`<${Head} title="Plan">
      <${Commands} commands=${() => commands(data)} />
      <${Button} icon="add" kind="primary" need="operator" onClick=${() => setEdited({ name: "", etag: null, layer: BLANK })}>Add layer<//>
    <//>
    <${Loading} data=${data} error=${error} />
    ${data?.pending && html`<section class="card pending" aria-label="What applying the plan would do">
      <div><h2>Applying the plan would do</h2><${Changes} changes=${data.pending.changes} /></div>
      <${Button} kind=${data.pending.changes.length ? "primary" : ""} need="operator" why=${data.pending.changes.length ? "" : "There is nothing to apply."} onClick=${apply}>Apply the plan<//>
    </section>`}
    ${data && html`<${Table} columns=${["Layer", "Says of", ""]}>${data.layers.toReversed().map((layer) => html`<tr key=${layer.name}>
        <th scope="row"><strong>${layer.name}</strong><span class="detail">${layer.layer.summary || ORIGINS[layer.name] || ""}</span></th>
        <td>${says(layer.layer)}</td>
        <td class="do"><div class="row">
          <${Button} onClick=${() => setEdited(layer)} label=${`${may("operator") ? "Edit" : "Show"} layer ${layer.name}`}>${may("operator") ? "Edit" : "Show"}<//>
          <${Button} icon="remove" kind="quiet" need="operator" label=${`Take layer ${layer.name} away`} why=${layer.name === CREATED ? "The container was created with it." : ""} onClick=${() => forget(layer)} />
        </div></td>
      </tr>`)}<//><p class="muted">Higher layers say more: what the topmost says of a field counts. What all say together is the plan.</p>`}
    <${Targets} plan=${data} />
    ${edited && html`<${LayerDialog} known=${edited} onClose=${() => setEdited(null)} onSaved=${reload} />`}`;
}

/** Where log lines are sent, and how it goes. What a request's headers and query say may be secret. */
function Targets({ plan }) {
  const { data } = useLoaded(() => get("/v1/targets"), [plan], EVERY);
  const now = useNow();
  if (!data?.targets.length) return null;
  return html`<section class="stack" aria-label="Log targets"><h2>Log targets</h2>
    <${Table} kind="targets" columns=${["Target", "State", "Why", "Sent", "Lost", "Refused", "Since"]} numbers=${["Sent", "Lost", "Refused", "Since"]}>
      ${data.targets.map(({ name, spec, state, why, since, ...lines }) => html`<tr key=${name}>
        <th scope="row"><strong>${name}</strong> <span class="muted">${spec.type}</span>
          <code class="detail">${spec.location.replace(/\?.*/, "?…")}</code>
          <span class="detail">${spec.processes ? `lines of ${spec.processes.join(", ")}` : "lines of all processes"}${spec.headers ? `; ${count(Object.keys(spec.headers).length, "header")}, not shown` : ""}</span></th>
        <td><${State} state=${state} /></td>
        <td class="why">${sentence(why)}</td>
        ${["sent", "lost", "refused"].map((what) => html`<td key=${what} class="number"><span class="what">${what}</span><span data-state=${what !== "sent" && lines[what] ? "failed" : undefined} class="state">${lines[what].toLocaleString("en")}</span></td>`)}
        <td class="number"><span class="what">since</span>${span(now - since)}</td>
      </tr>`)}<//></section>`;
}

const ORIGINS = { [CREATED]: "what the container was created with", edits: "what was added and edited here, one by one" };

function says({ processes = {}, checks = {}, targets = {} }) {
  const names = Object.keys(processes);
  const looks = Object.keys(checks);
  const sinks = Object.keys(targets);
  return [names.length ? names.join(", ") : "no process", looks.length && `${count(looks.length, "check")}: ${looks.join(", ")}`,
    sinks.length && `${count(sinks.length, "log target")}: ${sinks.join(", ")}`].filter(Boolean).join(" · ");
}

/** A layer as JSON: looked at, tried, saved, applied. */
function LayerDialog({ known, onClose, onSaved }) {
  const [name, setName] = useState(known.name);
  const [text, setText] = useState(() => JSON.stringify(known.layer, null, 2));
  const [wrong, setWrong] = useState({});
  const [would, setWould] = useState(null);
  const isNew = !known.name;
  const send = async (dryRun) => {
    setWrong({});
    setWould(null);
    let layer;
    try {
      layer = JSON.parse(text);
    } catch (error) {
      setWrong({ text: sentence(error.message) });
      return null;
    }
    if (!name) {
      setWrong({ name: "Give it a name." });
      return null;
    }
    try {
      const headers = isNew ? { "If-None-Match": "*" } : { "If-Match": known.etag };
      const { data } = await put(`/v1/layers/${encodeURIComponent(name)}${dryRun ? "?dry_run=true" : ""}`, layer, { headers });
      return data;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      const where = error.pointer ? ` (at ${error.pointer})` : "";
      const detail = { 412: isNew ? "There is a layer of this name already." : "Somebody has changed it since you opened it: close this, and open it again." }[error.status];
      setWrong({ [error.status === 412 && isNew ? "name" : "text"]: detail ?? sentence(error.message) + where });
      return null;
    }
  };
  const save = async (isApplied) => {
    const saved = await send(false);
    if (!saved) return;
    if (isApplied) await ask("POST", "/v1/plan/apply", { headers: { "If-Match": saved.etag } });
    say(isApplied ? `Layer ${name} is saved and applied` : `Layer ${name} is saved`);
    onClose();
    await Promise.all([onSaved(), refresh()]);
  };
  const attempt = async () => setWould(await send(true));
  return html`<${Dialog} title=${isNew ? "Add a layer" : `Layer ${known.name}`} onClose=${onClose} kind="broad">
    ${isNew && html`<${Field} label="Name" error=${wrong.name}>${(given) => html`<input ...${given} class="mono short" value=${name} autofocus onInput=${(event) => setName(event.target.value)} />`}<//>`}
    <${Field} label="What it says" error=${wrong.text}>${(given) => html`<textarea ...${given} rows="16" spellcheck=${false} value=${text} readonly=${!may("operator")} onInput=${(event) => { setText(event.target.value); setWould(null); }} />`}<//>
    ${would && html`<div class="pending card" role="status"><div><h3>Saving and applying it would do</h3><${Changes} changes=${would.changes} /></div></div>`}
    <footer>
      <${Button} onClick=${onClose}>Close<//>
      <${Button} need="operator" onClick=${() => attempt().catch(complain)}>Try<//>
      <${Button} need="operator" onClick=${() => save(false)}>Save<//>
      <${Button} kind="primary" need="operator" onClick=${() => save(true)}>Save and apply<//>
    </footer>
  <//>`;
}

function commands(data) {
  const layer = data?.layers.at(-1);
  const rows = [
    { title: "The plan", curl: curl("GET", "/v1/plan"), zn: zn("process plan") },
    { title: "Its layers", curl: curl("GET", "/v1/layers"), zn: zn("process layers") },
    { title: "Where log lines are sent", curl: curl("GET", "/v1/targets"), zn: zn("process targets") },
    { title: "What would applying it do?", curl: curl("POST", "/v1/plan/apply?dry_run=true") },
    { title: "Apply it", curl: curl("POST", "/v1/plan/apply") },
  ];
  if (!layer) return rows;
  const path = `/v1/layers/${layer.name}`;
  return [
    ...rows,
    { title: `Save layer ${layer.name}; zn applies the plan, too`, curl: curl("PUT", path, { body: JSON.stringify(layer.layer, null, 1) }), zn: znInput(zn("process apply", layer.name, "-"), layer.layer) },
    { title: `Take layer ${layer.name} away; zn applies the plan, too`, curl: curl("DELETE", path), zn: zn("process unapply", layer.name) },
  ];
}
