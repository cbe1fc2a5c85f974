// What changes the container's files: sending, making, deleting.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, Unreachable, get, put, remove, send } from "./api.js";
import { bytes, count, fileTime } from "./format.js";
import { encode, inside, nameText, placeOf, textOf } from "./paths.js";
import { Value, useValue } from "./store.js";
import { give } from "./transfers.js";
import { Button, Dialog, Field, complain, html, say, sentence } from "./ui.js";

/** The address of what Core-X says of a path, which is encoded already. */
export const at = (what, path) => `/v1/fs/${what}?path=${path}`;

/** What somebody is asked before a file is replaced, or null. */
const question = new Value(null);

let asking = Promise.resolve();

/** Ask, once all that was asked before is decided. */
function mayReplace(asked) {
  const wait = () => new Promise((decide, fail) => question.set({ ...asked, decide, fail })).finally(() => question.set(null));
  asking = asking.then(wait, wait);
  return asking;
}

/** Ask no more: uploads that wait for it end. */
export function dropQuestion() {
  question.get()?.fail(new DOMException("nobody is there to decide", "AbortError"));
}

/** Asks that, on whatever page. */
export function Question() {
  const asked = useValue(question);
  if (!asked) return null;
  const { name, size, known, decide } = asked;
  return html`<${Dialog} key=${name} title=${`Replace ${name}?`} onClose=${() => decide(false)}>
    <p>It is there already: ${bytes(known.size)}, changed ${fileTime(known.modified)}. Yours has ${bytes(size)}. Owner and mode stay.</p>
    <footer><${Button} autofocus onClick=${() => decide(false)}>Leave it<//><${Button} kind="danger" onClick=${() => decide(true)}>Replace<//></footer>
  <//>`;
}

const ownedBy = (owner) => (owner ? `&owner=${encodeURIComponent(owner)}` : "");

/** Send a file into a folder; what is there already is replaced only if somebody says so. */
async function sendOne(folder, file, owner) {
  const path = inside(folder, encode(file.name));
  const name = nameText(file.name);
  const write = (headers) => give(`${at("file", path)}${ownedBy(owner)}`, file, name, headers);
  try {
    await write({ "If-None-Match": "*" });
  } catch (error) {
    const known = await there(error, path);
    if (!(await mayReplace({ name, size: file.size, known }))) return;
    await write({ "If-Match": known.etag });
  }
  say(`Uploaded ${name}: ${bytes(file.size)}`);
}

/**
 * What is there, if that is why an upload was refused. Core-X refuses before it has read all: a browser that still
 * sends some hundred megabytes sees a connection that breaks, and no answer.
 */
async function there(error, path) {
  if (error.status !== 412 && !(error instanceof Unreachable)) throw error;
  return get(at("stat", path)).catch(() => {
    throw error;
  });
}

/** Unpack a tar, packed by gzip or not, into a folder. */
async function unpack(folder, file, owner, keeps) {
  const isPacked = /gz$/i.test(file.name);
  const content = isPacked ? await new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).blob() : file;
  const { data } = await give(`${at("archive", folder)}${ownedBy(owner)}${keeps ? "&keep_owner=true" : ""}`, content, nameText(file.name));
  say(`Unpacked ${count(data.entries, "entry", "entries")}, ${bytes(data.bytes)}`);
}

/** Choose files to be sent into a folder; `given` were dropped on it. The page goes on meanwhile. */
export function SendDialog({ folder, given, onClose, onDone }) {
  const [files, setFiles] = useState(given);
  const [owner, setOwner] = useState("");
  const [unpacks, setUnpacks] = useState(false);
  const [keeps, setKeeps] = useState(false);
  const canUnpack = files.length === 1 && /\.(tar|tgz|tar\.gz)$/i.test(files[0].name);
  const work = async () => {
    let sent = 0;
    try {
      if (unpacks && canUnpack) await unpack(folder, files[0], owner, keeps);
      else for (; sent < files.length; sent += 1) await sendOne(folder, files[sent], owner);
    } catch (error) {
      if (error instanceof TypeError) throw Object.assign(new Error("it is not packed by gzip"), { status: 0 });
      if (error.name !== "AbortError") throw error;
      say(`Cancelled; ${sent} of ${count(files.length, "file")} came whole`, { kind: "refused" });
    }
  };
  const start = () => {
    work().catch(complain).finally(onDone);
    onClose();
  };
  return html`<${Dialog} title="Upload files" onClose=${onClose}>
    <p class="muted">Into <bdi class="mono">${textOf(folder)}</bdi></p>
    <${Field} label="Files">${(attributes) => html`<input ...${attributes} type="file" multiple autofocus onChange=${(event) => setFiles([...event.target.files])} />`}<//>
    ${files.length > 0 && html`<ul class="chosen">${files.slice(0, 8).map((file) => html`<li key=${file.name}><bdi>${nameText(file.name)}</bdi> <span class="muted">${bytes(file.size)}</span></li>`)}
      ${files.length > 8 && html`<li class="muted">and ${count(files.length - 8, "more file")}</li>`}</ul>`}
    ${canUnpack && html`<label class="tick"><input type="checkbox" checked=${unpacks} onChange=${(event) => setUnpacks(event.target.checked)} />Unpack it here instead</label>`}
    ${canUnpack && unpacks && html`<label class="tick"><input type="checkbox" checked=${keeps} onChange=${(event) => setKeeps(event.target.checked)} />Keep the owners that it names</label>`}
    <${Field} label="Owner" hint="uid, uid:gid, name or name:group. Empty: root, or whose it is already.">
      ${(attributes) => html`<input ...${attributes} class="short" value=${owner} placeholder="0" spellcheck=${false} autocapitalize="off" onInput=${(event) => setOwner(event.target.value.trim())} />`}<//>
    <footer><${Button} onClick=${onClose}>Cancel<//>
      <${Button} kind="primary" why=${files.length ? "" : "Choose a file first."} onClick=${start}>${unpacks && canUnpack ? "Unpack" : "Upload"}<//></footer>
  <//>`;
}

const MADE = { folder: "Folder", file: "Text file" };

/** Make a folder, or an empty file to be written at once. */
export function NewDialog({ folder, onClose, onDone }) {
  const [name, setName] = useState("");
  const [kind, setKind] = useState("folder");
  const [wrong, setWrong] = useState("");
  const make = async (event) => {
    event.preventDefault();
    if (!name || name.includes("/") || name === "." || name === "..") {
      setWrong(name ? "A name has no slash, and is not “.” or “..”." : "Give it a name.");
      return;
    }
    const path = inside(folder, encode(name));
    try {
      if (kind === "file") {
        await give(at("file", path), new Blob([]), nameText(name), { "If-None-Match": "*" });
        location.hash = `${placeOf(path)}?edit`;
      } else if ((await put(at("folder", path))).status !== 201) {
        setWrong("It is there already.");
        return;
      } else {
        say(`Made ${nameText(name)}`);
      }
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setWrong(error.status === 412 ? "It is there already." : sentence(error.message));
      return;
    }
    onDone();
    onClose();
  };
  return html`<${Dialog} title="Make something new" onClose=${onClose}>
    <form class="stack" novalidate onSubmit=${(event) => make(event).catch(complain)}>
      <${Field} label="Name" error=${wrong}>${(attributes) => html`<input ...${attributes} class="mono" value=${name} autofocus spellcheck=${false} autocapitalize="off" onInput=${(event) => { setName(event.target.value); setWrong(""); }} />`}<//>
      <fieldset class="row"><legend class="label">As</legend>
        ${Object.entries(MADE).map(([one, label]) => html`<label class="tick" key=${one}><input type="radio" name="kind" value=${one} checked=${kind === one} onChange=${() => setKind(one)} />${label}</label>`)}
      </fieldset>
      <footer><${Button} onClick=${onClose}>Cancel<//><button class="button primary" type="submit">Make it</button></footer>
    </form>
  <//>`;
}

/** Delete a file, or a folder: one with content only by its name. */
export function DeleteDialog({ info, onClose, onDone }) {
  const name = nameText(info.name);
  const isFolder = info.kind === "folder";
  const [full, setFull] = useState(isFolder ? null : false);
  const [typed, setTyped] = useState("");
  const [operation, setOperation] = useState(null);
  const isOpen = useRef(true);
  const close = () => {
    if (isOpen.current) onClose();
    isOpen.current = false;
  };
  useEffect(() => {
    if (!isFolder) return;
    get(`${at("folder", info.path)}&limit=1`).then((page) => setFull(page.entries.length > 0), (error) => {
      complain(error);
      close();
    });
  }, []);
  const end = () => {
    onDone();
    close();
  };
  const sure = async () => {
    if (!isFolder) {
      await remove(at("file", info.path));
      say(`Deleted ${name}`);
      end();
      return;
    }
    const answer = await send("DELETE", `${at("folder", info.path)}&wait=1${full ? "&recursive=true" : ""}`);
    const { entries } = await answer.json();
    if (answer.status === 202) {
      await follow(answer.headers.get("Location"));
      return;
    }
    say(`Deleted ${name}${full ? ` with all that was in it: ${count(entries, "file and folder", "files and folders")}` : ""}`);
    end();
  };
  /** Tell of a deletion that goes on. */
  const follow = async (place) => {
    let seen;
    do {
      seen = await get(`${place}?wait=1`).catch(forgotten);
      setOperation({ ...seen, place });
    } while (seen.state === "running");
    say(`${name}: ${seen.why}`, { kind: seen.state === "failed" ? "failed" : "done" });
    end();
  };
  if (operation) {
    return html`<${Dialog} key="goes" title=${`Deleting ${name}`} onClose=${close}>
      <p role="status">${sentence(operation.why)}</p><progress aria-label="Deleting" />
      <p class="muted">It goes on when you close this: see <a href="#/operations">Operations</a>.</p>
      <footer><${Button} onClick=${() => remove(operation.place)}>Cancel the deletion<//></footer>
    <//>`;
  }
  if (full === null) return null;
  return html`<${Dialog} key="sure" title=${`Delete ${name}?`} onClose=${close}>
    <form class="stack" novalidate onSubmit=${(event) => { event.preventDefault(); event.currentTarget.querySelector(".danger").click(); }}>
      <p class="mono muted"><bdi>${textOf(info.path)}</bdi></p>
      <p>${full ? "It goes with all that is in it, for good." : isFolder ? "The folder is empty." : info.kind === "link" ? "The link goes; what it leads to stays." : "It goes for good."}</p>
      ${full && html`<${Field} label=${html`Type its name: <bdi class="mono">${name}</bdi>`}>${(attributes) => html`<input ...${attributes} class="mono" value=${typed} autofocus autocomplete="off" spellcheck=${false} autocapitalize="off" onInput=${(event) => setTyped(event.target.value)} />`}<//>`}
      <footer><${Button} onClick=${close} autofocus=${!full}>Cancel<//>
        <${Button} kind="danger" why=${full && typed !== name ? "Type its name first." : ""} onClick=${sure}>Delete<//></footer>
    </form>
  <//>`;
}

/** An operation that was forgotten since it ended. */
function forgotten(error) {
  if (error.status !== 404) throw error;
  return { state: "succeeded", why: "it has ended" };
}
