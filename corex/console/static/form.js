import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Problem, ask, put } from "./api.js";
import { Commands, curl, zn, znInput } from "./commands.js";
import { line, words } from "./format.js";
import { processes, take } from "./live.js";
import { act, declared, isEdited, owners } from "./processes.js";
import { useValue } from "./store.js";
import { Button, Empty, Field, Head, complain, html, say, sentence } from "./ui.js";

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const CONDITIONS = ["started", "ready", "healthy", "completed", "succeeded"];
const LIMITS = ["as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rtprio", "rttime", "sigpending", "stack"];
const READY = [["", "as soon as it runs"], ["line", "by a line of its output"], ["port", "by a TCP port"], ["path", "by an answer over HTTP"], ["argv", "by a command"], ["notify", "by sd_notify(3)"]];

// A draft has the text of each control, under the JSON pointer that Core-X's problems name. These are the plain ones:
// pointer, label, hint, and what the text becomes.
const TEXT = (text) => text || undefined;
const NUMBER = (text) => (text === "" ? undefined : Number.isNaN(Number(text)) ? text : Number(text));
const WORDS = (text) => (text.trim() ? words(text) : undefined);

const COMMON = [
  { at: "/argv", label: "Command", hint: "The program and its arguments, quoted as for a shell; nothing is expanded.", read: words, kind: "words", wide: true },
  { at: "/kind", label: "Kind", options: ["service", "one-shot", "scheduled"] },
  { at: "/restart", label: "Restart", hint: "What follows its end.", options: ["never", "on-failure", "always"] },
  { at: "/user", label: "User", hint: "uid, uid:gid, name or name:group.", preset: "0" },
  { at: "/cwd", label: "Working directory", preset: "/", mono: true },
];
const ENDING = [
  { at: "/stop_signal", label: "Stop signal", preset: "SIGTERM" },
  { at: "/stop_timeout", label: "Stop time-out", hint: "Seconds until SIGKILL.", preset: "10", read: NUMBER },
  { at: "/scope", label: "Signals reach", hint: "And what ends with it.", options: ["group", "process", "tree"] },
  { at: "/on_success", label: "On success", options: ["ignore", "stop-container"] },
  { at: "/on_failure", label: "On failure", options: ["ignore", "stop-container"] },
];
const RIGHTS = [
  { at: "/groups", label: "Supplementary groups", hint: "Names or numbers; empty takes those of the user.", read: WORDS, kind: "words" },
  { at: "/umask", label: "umask", hint: "In octal.", preset: "0022" },
  { at: "/nice", label: "Nice value", preset: "0", read: NUMBER },
];
const BACKOFF = [
  { at: "/backoff/first", label: "First pause", hint: "Seconds.", preset: "0.5", read: NUMBER },
  { at: "/backoff/factor", label: "Factor", preset: "2", read: NUMBER },
  { at: "/backoff/cap", label: "Longest pause", hint: "Seconds.", preset: "30", read: NUMBER },
  { at: "/backoff/jitter", label: "Jitter", hint: "A share, from 0 to 1.", preset: "0.2", read: NUMBER },
  { at: "/backoff/stable", label: "Forgotten after", hint: "Seconds of running.", preset: "10", read: NUMBER },
  { at: "/backoff/limit", label: "Restarts in a row", hint: "Empty: it never gives up.", read: NUMBER },
];
const SCHEDULE = [
  { at: "/schedule/cron", label: "Cron expression", hint: "Minute, hour, day, month, weekday.", mono: true },
  { at: "/schedule/zone", label: "Time zone", preset: "UTC" },
  { at: "/schedule/every", label: "Or every", hint: "Seconds, instead of an expression.", read: NUMBER },
];
const LOOKS = {
  line: [{ at: "/ready/line", label: "Line", hint: "A regular expression of Python's.", mono: true }],
  port: [{ at: "/ready/port", label: "Port", read: NUMBER }],
  path: [{ at: "/ready/port", label: "Port", read: NUMBER }, { at: "/ready/path", label: "Path", mono: true }],
  argv: [{ at: "/ready/argv", label: "Command that looks", read: WORDS, kind: "words" }],
  notify: [{ at: "/ready/watchdog", label: "Watchdog", hint: "Seconds; empty for none.", read: NUMBER }],
};
const PACE = [
  { at: "/ready/timeout", label: "Ready within", hint: "Seconds.", preset: "60", read: NUMBER },
  { at: "/ready/interval", label: "Looked at every", hint: "Seconds.", preset: "0.5", read: NUMBER },
];
const PLAIN = [...COMMON, ...ENDING, ...RIGHTS, ...BACKOFF, ...SCHEDULE, ...Object.values(LOOKS).flat(), ...PACE];
const ROWS = ["/env", "/after", "/limits"];

const inside = (spec, pointer) => pointer.slice(1).split("/").reduce((value, step) => value?.[step], spec);

/** A specification as the form has it. */
function draftOf(spec) {
  const draft = { "/enabled": spec.enabled ?? true, "/tty": spec.tty ?? false };
  for (const { at, kind } of PLAIN) {
    const value = inside(spec, at);
    draft[at] = value === undefined || value === null ? "" : kind === "words" ? line(value) : String(value);
  }
  const ready = spec.ready;
  draft.ready = !ready ? "" : ready.path ? "path" : ["line", "port", "argv"].find((name) => ready[name]?.toString()) ?? "notify";
  draft["/env"] = Object.entries(spec.env ?? {});
  draft["/after"] = Object.entries(spec.after ?? {});
  draft["/limits"] = Object.entries(spec.limits ?? {}).map(([name, [soft, hard]]) => [name, String(soft), String(hard)]);
  return draft;
}

/** The specification that a draft says. Throws an Error with a pointer for what Core-X would not understand. */
function specOf(draft) {
  const spec = {};
  const fields = [...COMMON, ...ENDING, ...RIGHTS, ...BACKOFF];
  if (draft["/kind"] === "scheduled") fields.push(...SCHEDULE);
  if (draft.ready) fields.push(...LOOKS[draft.ready], ...PACE);
  for (const { at, read = TEXT } of fields) {
    let value;
    try {
      value = read(draft[at]);
    } catch (error) {
      throw Object.assign(error, { pointer: at });
    }
    if (value === undefined) continue;
    const [name, inner] = at.slice(1).split("/");
    if (inner) (spec[name] ??= {})[inner] = value;
    else spec[name] = value;
  }
  if (draft.ready === "notify") spec.ready = { ...spec.ready, notify: true };
  const rows = (at) => draft[at].filter(([name]) => name !== "");
  if (rows("/env").length) spec.env = Object.fromEntries(rows("/env"));
  if (rows("/after").length) spec.after = Object.fromEntries(rows("/after"));
  if (rows("/limits").length) spec.limits = Object.fromEntries(rows("/limits").map(([name, soft, hard]) => [name, [NUMBER(soft), NUMBER(hard)]]));
  if (draft["/tty"]) spec.tty = true;
  if (!draft["/enabled"]) spec.enabled = false;
  return spec;
}

/** The control that a problem's pointer leads to, or to what is around it. */
function placeOf(pointer, known) {
  for (let at = pointer; at; at = at.slice(0, at.lastIndexOf("/"))) if (known.includes(at)) return at;
  return "";
}

/** Add a process, or edit the one of a name. */
export function ProcessForm({ name }) {
  const [found, setFound] = useState(name ? null : { spec: { argv: [] }, etag: null });
  const [gone, setGone] = useState("");
  const load = () => ask("GET", `/v1/processes/${name}`).then(
    ({ data, etag }) => setFound({ info: data, spec: data.spec, etag, read: Date.now() }),
    (error) => (error instanceof Problem ? setGone(sentence(error.message)) : complain(error)),
  );
  useEffect(() => {
    if (name) load();
  }, []);
  const title = name ? `Edit ${name}` : "Add a process";
  if (gone) return html`<${Head} title=${title} back="#/processes" /><${Empty} title=${gone} />`;
  if (!found) return html`<${Head} title=${title} back="#/processes/${name}" /><p class="loading">Reading…</p>`;
  return html`<${Form} key=${found.read} name=${name} title=${title} info=${found.info} spec=${found.spec} etag=${found.etag} reload=${load} />`;
}

/** Whose it is besides, if what is saved here lies over that. */
function Override({ info }) {
  const names = owners(info);
  if (!names.length) return null;
  return html`<p class="muted">${sentence(`${declared(names)} ${info.name}`)} What you save lies over that, in layer edits,
    ${isEdited(info) ? " as what you see here does already," : ""} until somebody takes the edits back.</p>`;
}

function Form({ name, title, info, spec, etag, reload }) {
  const [draft, setDraft] = useState(() => draftOf(spec));
  const [newName, setNewName] = useState("");
  const [text, setText] = useState(null);
  const [wrong, setWrong] = useState({});
  const [changed, setChanged] = useState(false);
  const [then, setThen] = useState(!name);
  const form = useRef();
  const back = name ? `#/processes/${name}` : "#/processes";
  const change = (at, value) => setDraft((before) => ({ ...before, [at]: value }));
  const given = () => (text === null ? specOf(draft) : JSON.parse(text));

  useEffect(() => {
    const first = form.current?.querySelector("[aria-invalid=true], .wrong");
    first?.closest("details")?.setAttribute("open", "");
    first?.focus({ preventScroll: true });
    first?.scrollIntoView({ block: "center" });
  }, [wrong]);

  const refuse = (error) => {
    const pointer = error.pointer ?? "";
    const known = text === null ? [...PLAIN.map(({ at }) => at), ...ROWS, "/ready", "/schedule", "/enabled", "/tty"] : [];
    const place = placeOf(pointer, known) || (text === null ? "form" : "json");
    const where = pointer && place !== pointer ? ` (at ${pointer})` : "";
    setWrong({ [place]: sentence(error.message.replace(/^cannot accept the request: /, "")) + where });
  };

  const turn = (toJson) => {
    try {
      if (toJson && text === null) setText(JSON.stringify(specOf(draft), null, 2));
      if (!toJson && text !== null) {
        setDraft(draftOf(JSON.parse(text)));
        setText(null);
      }
      setWrong({});
    } catch (error) {
      refuse(error);
    }
  };

  const save = async () => {
    const target = name ?? newName;
    if (!NAME.test(target)) {
      setWrong({ name: "A name has up to 63 small letters, digits and hyphens, and begins and ends with none of these." });
      return;
    }
    let wanted;
    try {
      wanted = given();
    } catch (error) {
      refuse(error);
      return;
    }
    try {
      const headers = name ? { "If-Match": etag } : { "If-None-Match": "*" };
      const { data } = await put(`/v1/processes/${target}`, wanted, { headers });
      take(data);
      say(name ? `Saved ${target}` : `Added ${target}`);
      if (then && (!name || data.outdated || !data.pid)) await act(target, name ? "restart" : "start");
      location.hash = `#/processes/${target}`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 412 && name) setChanged(true);
      else if (error.status === 412) setWrong({ name: `There is a process ${target} already.` });
      else refuse(error);
    }
  };

  const commands = () => {
    let body;
    try {
      body = given();
    } catch {
      body = spec;
    }
    const target = name ?? (newName || "NAME");
    const rows = [{
      title: name ? "Save it" : "Add it",
      curl: curl("PUT", `/v1/processes/${target}`, { body: JSON.stringify(body, null, 1), headers: [name ? `If-Match: ${etag}` : "If-None-Match: *"] }),
      zn: znInput(zn("process put", target, "-", ...(name ? [] : ["--if-absent"]), ...(then ? ["--start"] : [])), body),
    }];
    if (then) rows.push({ title: name ? "Then restart it" : "Then start it", curl: curl("POST", `/v1/processes/${target}/${name ? "restart" : "start"}`) });
    if (name) rows.push({ title: "Edit it in an editor", zn: zn("process edit", name) });
    return rows;
  };

  const control = (field) => html`<${Control} key=${field.at} field=${field} value=${draft[field.at]} error=${wrong[field.at]} change=${change} />`;
  return html`
    <${Head} title=${title} back=${back}>
      <div class="switch" role="group" aria-label="How to edit">
        <button type="button" class="button" aria-pressed=${String(text === null)} onClick=${() => turn(false)}>Form</button>
        <button type="button" class="button" aria-pressed=${String(text !== null)} onClick=${() => turn(true)}>JSON</button>
      </div>
      <${Commands} commands=${commands} />
    <//>
    <form class="form" ref=${form} novalidate onSubmit=${(event) => { event.preventDefault(); save().catch(complain); }}>
      ${changed && html`<div class="note row" role="alert"><p>Somebody has changed it since you opened it.</p><${Button} onClick=${() => { setChanged(false); reload(); }}>Read it again<//></div>`}
      ${wrong.form && html`<p class="note" role="alert" tabindex="-1"><span class="wrong" tabindex="-1">${wrong.form}</span></p>`}
      ${info && html`<${Override} info=${info} />`}
      ${!name && html`<section class="card"><${Field} label="Name" hint="Small letters, digits and hyphens." error=${wrong.name}>
        ${(attributes) => html`<input ...${attributes} class="mono short" value=${newName} onInput=${(event) => setNewName(event.target.value)} autocapitalize="off" spellcheck=${false} />`}<//></section>`}
      ${text === null ? html`
        <section class="card"><div class="grid">
          ${COMMON.map(control)}
          <${Rows} at="/env" label="Environment" add="Add a variable" rows=${draft["/env"]} error=${wrong["/env"]} change=${change} blank=${["", ""]} parts=${[{ label: "Variable" }, { label: "Value" }]} />
        </div>
        <label class="tick"><input type="checkbox" checked=${draft["/tty"]} onChange=${(event) => change("/tty", event.target.checked)} />Runs on a terminal, which people may attach to</label>
        ${wrong["/tty"] && html`<p class="wrong" tabindex="-1">${wrong["/tty"]}</p>`}
        </section>
        ${draft["/kind"] === "scheduled" && html`<section class="card"><h2>Schedule</h2>
          ${wrong["/schedule"] && html`<p class="wrong" tabindex="-1">${wrong["/schedule"]}</p>`}<div class="grid">${SCHEDULE.map(control)}</div></section>`}
        <section class="card"><h2>Order and readiness</h2><div class="grid">
          <${After} rows=${draft["/after"]} error=${wrong["/after"]} change=${change} own=${name} />
          <${Field} label="Shows that it is ready" error=${wrong["/ready"]}>${(attributes) => html`<select ...${attributes} value=${draft.ready} onChange=${(event) => change("ready", event.target.value)}>
            ${READY.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select>`}<//>
          ${draft.ready && [...LOOKS[draft.ready], ...PACE].map(control)}
        </div></section>
        <details class="card"><summary>Advanced: how it ends, its rights, pauses between restarts</summary>
          <h2>Its end</h2><div class="grid">${ENDING.map(control)}</div>
          <h2>Its rights</h2><div class="grid">${RIGHTS.map(control)}
            <${Rows} at="/limits" label="Resource limits" add="Add a limit" rows=${draft["/limits"]} error=${wrong["/limits"]} change=${change} blank=${["nofile", "1024", "4096"]}
              parts=${[{ label: "Limit", options: LIMITS }, { label: "Soft" }, { label: "Hard" }]} /></div>
          <h2>Pauses between restarts</h2><div class="grid">${BACKOFF.map(control)}</div>
          <label class="tick"><input type="checkbox" checked=${draft["/enabled"]} onChange=${(event) => change("/enabled", event.target.checked)} />Started with the container, and when the plan is applied</label>
        </details>`
      : html`<section class="card"><${Field} label="Specification" error=${wrong.json} hint="Fields that are left out have their defaults; /v1/openapi.json has them all.">
          ${(attributes) => html`<textarea ...${attributes} rows="22" spellcheck=${false} value=${text} onInput=${(event) => setText(event.target.value)} />`}<//></section>`}
      <footer class="form-foot">
        <label class="tick"><input type="checkbox" checked=${then} onChange=${(event) => setThen(event.target.checked)} />${name ? "Restart it if that is needed" : "Start it now"}</label>
        <a class="button" href=${back}>Cancel</a>
        <button class="button primary" type="submit">${name ? "Save" : "Add process"}</button>
      </footer>
    </form>`;
}

/** A plain control. */
function Control({ field, value, error, change }) {
  const { at, label, hint, options, preset = "", kind, mono, wide } = field;
  let shown = null;
  if (kind === "words" && value.trim()) {
    try {
      shown = words(value);
    } catch {
      shown = null;
    }
  }
  return html`<${Field} label=${label} hint=${hint} error=${error} wide=${wide}>
    ${(attributes) => options
      ? html`<select ...${attributes} value=${value || options[0]} onChange=${(event) => change(at, event.target.value)}>${options.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>`
      : kind === "words"
        ? html`<textarea ...${attributes} rows=${Math.min(12, value.split("\n").length)} value=${value} spellcheck=${false} autocapitalize="off" onInput=${(event) => change(at, event.target.value)} />
          ${shown && shown.length > 1 && shown.length < 40 && !value.includes("\n") && html`<p class="words" aria-hidden="true">${shown.map((word, place) => html`<code key=${place}>${word || "''"}</code>`)}</p>`}`
        : html`<input ...${attributes} class=${mono ? "mono" : ""} value=${value} placeholder=${preset} spellcheck=${false} autocapitalize="off" onInput=${(event) => change(at, event.target.value)} />`}
  <//>`;
}

/** Rows of names and values. */
function Rows({ at, label, add, rows, error, change, blank, parts, list }) {
  const id = useId();
  const edit = (row, part, value) => change(at, rows.map((one, place) => (place === row ? one.map((old, inner) => (inner === part ? value : old)) : one)));
  return html`<div class="field wide rows" role="group" aria-labelledby=${id} data-wrong=${error ? "" : undefined}>
    <p class="label" id=${id}>${label}</p>
    ${rows.map((row, place) => html`<div class="line-of" key=${place}>
      ${parts.map(({ label: part, options }, inner) => options
        ? html`<select aria-label="${part} ${place + 1}" value=${row[inner]} onChange=${(event) => edit(place, inner, event.target.value)}>${options.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>`
        : html`<input class="mono" aria-label="${part} ${place + 1}" placeholder=${part} list=${inner === 0 ? list : undefined} value=${row[inner]} spellcheck=${false} autocapitalize="off" aria-invalid=${error ? "true" : undefined} onInput=${(event) => edit(place, inner, event.target.value)} />`)}
      <${Button} icon="close" kind="quiet" label="Remove ${parts[0].label.toLowerCase()} ${place + 1}" onClick=${() => change(at, rows.filter((_, other) => other !== place))} />
    </div>`)}
    ${error && html`<p class="wrong" tabindex="-1">${error}</p>`}
    <div><${Button} icon="add" onClick=${() => change(at, [...rows, [...blank]])}>${add}<//></div>
  </div>`;
}

/** What it starts after. */
function After({ rows, error, change, own }) {
  const names = [...useValue(processes).keys()].filter((name) => name !== own);
  return html`<${Rows} at="/after" label="Starts after" add="Add a process" rows=${rows} error=${error} change=${change} blank=${[names[0] ?? "", "ready"]} list="names"
    parts=${[{ label: "Process" }, { label: "Condition", options: CONDITIONS }]} />
    <datalist id="names">${names.map((name) => html`<option key=${name} value=${name} />`)}</datalist>`;
}
