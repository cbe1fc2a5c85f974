// The container's files: a page of a folder, or of one file: its beginning or its end as text, and an editor for what
// is small.

import { useRef, useState } from "preact/hooks";
import { Problem, get, send, upload } from "./api.js";
import { Commands, curl, zn } from "./commands.js";
import { DeleteDialog, NewDialog, SendDialog, at } from "./filing.js";
import { bytes, fileTime } from "./format.js";
import { Icon } from "./icons.js";
import { identity, may, system } from "./live.js";
import { above, inside, nameOf, nameText, placeOf, shellWord, targetOf, textOf } from "./paths.js";
import { visible } from "./sgr.js";
import { useValue } from "./store.js";
import { download } from "./transfers.js";
import { Button, Dialog, Empty, Head, Loading, Table, complain, html, say, sentence, useLoaded } from "./ui.js";

const PAGE = 200;
const MOST = 10_000;
// Links that are followed (path_resolution(7)).
const HOPS = 40;
// Bytes that a browser should not keep without asking.
const BIG = 200 * 2 ** 20;
// Bytes that are shown, and that may be edited.
const MOST_SHOWN = 256 * 1024;
const ROOT = { name: "/", path: "/", kind: "folder" };

/** Where a chain of links ends, and what is there. */
async function resolve(path) {
  let place = path;
  for (let hop = 0; hop < HOPS; hop += 1) {
    const info = place === "/" ? ROOT : await get(at("stat", place));
    if (info.kind !== "link") return { ...info, place };
    place = targetOf(place, info.target);
  }
  throw Object.assign(new Error("there are links that lead in a circle"), { status: 0 });
}

async function look(path, most) {
  const info = await resolve(path);
  if (info.place !== path) {
    location.replace(placeOf(info.place));
    await new Promise(() => {});
  }
  if (info.kind !== "folder") return { info };
  return { info, ...(await get(`${at("folder", path)}&limit=${Math.min(most, MOST)}`)) };
}

export function Files({ path }) {
  const role = useValue(identity)?.role;
  if (!may("operator")) {
    return html`<${Head} title="Files" />
      <${Empty} title="Reading files needs the role operator.">
        <p>Your token has the role ${role}. Files may hold secrets, so viewers see what Core-X says of processes, and no file.</p><//>`;
  }
  return html`<${Place} path=${path} />`;
}

function Place({ path }) {
  const shown = useRef(PAGE);
  const { data, error, reload } = useLoaded(() => look(path, shown.current));
  if (data?.info.kind === "folder") return html`<${Folder} path=${path} data=${data} error=${error} reload=${reload} shown=${shown} />`;
  if (data?.info.kind === "file") return html`<${File} info=${data.info} reload=${reload} />`;
  return html`<${Head} title=${nameOf(path)}><${Commands} commands=${() => folderCommands(above(path))} /><//>
    <${Crumbs} path=${path} />
    <${Loading} data=${data} error=${error}><a href=${placeOf(above(path))}>See the folder that it would be in</a><//>
    ${data && html`<${Empty} title="It is a device, a FIFO or a socket."><p>Those have no content that a page could show.</p><//>`}`;
}

/** The way down to a path. */
function Crumbs({ path }) {
  const segments = path === "/" ? [] : path.slice(1).split("/");
  return html`<nav class="crumbs" aria-label="Folders above"><ol>
    <li><a href=${placeOf("/")} aria-label="Root folder" aria-current=${segments.length ? undefined : "page"}>/</a></li>
    ${segments.map((segment, place) => {
      const whole = `/${segments.slice(0, place + 1).join("/")}`;
      const isLast = place === segments.length - 1;
      return html`<li key=${whole}>${isLast ? html`<span aria-current="page"><bdi>${textOf(segment)}</bdi></span>` : html`<a href=${placeOf(whole)}><bdi>${textOf(segment)}</bdi></a>`}</li>`;
    })}
  </ol></nav>`;
}

/** Fetch one, or a folder as a tar; what is big is asked for first. */
function fetchIt(info, ask) {
  const name = nameText(info.name);
  if (info.kind === "folder") return download(at("archive", info.path), `${info.path === "/" ? (system.get()?.name ?? "root") : name}.tar`);
  if (info.size > BIG) return ask(info);
  return download(at("file", info.path), name, info.size);
}

function Folder({ path, data, error, reload, shown }) {
  const [asked, setAsked] = useState(null);
  const [more, setMore] = useState({ entries: [], next: data.next, of: data });
  const later = more.of === data ? more : { entries: [], next: data.next };
  const entries = [...data.entries, ...later.entries];
  const close = () => setAsked(null);
  const add = async () => {
    const page = await get(`${at("folder", path)}&limit=${PAGE}&after=${later.next}`);
    shown.current = entries.length + page.entries.length;
    setMore({ entries: [...later.entries, ...page.entries], next: page.next, of: data });
  };
  const done = () => reload().catch(complain);
  const drop = (event) => {
    event.preventDefault();
    const dropped = [...event.dataTransfer.items].filter((one) => one.kind === "file");
    const files = dropped.filter((one) => !one.webkitGetAsEntry()?.isDirectory).map((one) => one.getAsFile());
    if (files.length < dropped.length) say("Folders cannot be dropped: upload a tar of them.", { kind: "refused" });
    if (files.length) setAsked({ what: "send", files });
  };
  return html`<${Head} title=${path === "/" ? "Files" : nameOf(path)} back=${path === "/" ? undefined : placeOf(above(path))}>
      <${Commands} commands=${() => folderCommands(path)} />
      <${Button} icon="download" onClick=${() => fetchIt({ ...data.info, path }, setAsked)}>Download tar<//>
      <${Button} icon="add" onClick=${() => setAsked({ what: "new" })}>New…<//>
      <${Button} icon="upload" kind="primary" onClick=${() => setAsked({ what: "send", files: [] })}>Upload…<//>
    <//>
    <${Crumbs} path=${path} />
    ${error && html`<p class="note" role="alert">${sentence(error.message)}</p>`}
    <div class="stack drop" onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
      ${!entries.length && html`<${Empty} title="The folder is empty."><p>Drop files here to upload them.</p><//>`}
      ${entries.length > 0 && html`<${Table} kind="files" columns=${["Name", "Size", "Owner", "Mode", "Changed", ""]} numbers=${["Size"]}>
        ${entries.map((info) => html`<${Entry} key=${info.path} info=${info} ask=${setAsked} />`)}<//>`}
      ${later.next !== null && html`<p class="row"><${Button} onClick=${add}>Show more<//> <span class="muted">${entries.length.toLocaleString("en")} are shown.</span></p>`}
    </div>
    ${asked?.what === "send" && html`<${SendDialog} folder=${path} given=${asked.files} onClose=${close} onDone=${done} />`}
    ${asked?.what === "new" && html`<${NewDialog} folder=${path} onClose=${close} onDone=${done} />`}
    ${asked?.what === "delete" && html`<${DeleteDialog} info=${asked.info} onClose=${close} onDone=${done} />`}
    ${asked?.kind === "file" && html`<${BigDialog} info=${asked} onClose=${close} />`}`;
}

const KINDS = { folder: "files", file: "file", link: "link", other: "other" };

function Entry({ info, ask }) {
  const name = nameText(info.name);
  const { kind } = info;
  return html`<tr>
    <th scope="row"><div class="entry" data-kind=${kind}><${Icon} name=${KINDS[kind]} /><span class="hidden">${kind}</span>
      ${kind === "other" ? html`<bdi>${name}</bdi>` : html`<a href=${placeOf(info.path)}><bdi>${name}</bdi></a>`}</div>
      ${info.target && html`<span class="detail">→ <bdi>${nameText(info.target)}</bdi></span>`}</th>
    <td class="number">${kind === "file" ? bytes(info.size) : ""}</td>
    <td><span class="what">Owner</span>${info.uid}:${info.gid}</td>
    <td class="mono"><span class="what">Mode</span>${info.mode}</td>
    <td class="when">${fileTime(info.modified)}</td>
    <td class="do"><div class="row">
      ${["file", "folder"].includes(kind) && html`<${Button} icon="download" kind="quiet" label=${`Download ${name}${kind === "folder" ? " as tar" : ""}`} onClick=${() => fetchIt(info, ask)} />`}
      <${Button} icon="remove" kind="quiet" label=${`Delete ${name}`} onClick=${() => ask({ what: "delete", info })} />
    </div></td>
  </tr>`;
}

function BigDialog({ info, onClose }) {
  const name = nameText(info.name);
  const go = () => {
    download(at("file", info.path), name, info.size).catch(complain);
    onClose();
  };
  return html`<${Dialog} title=${`Download ${name}?`} onClose=${onClose}>
    <p>It has ${bytes(info.size)}. A browser keeps all of it until it is whole; from a terminal it goes straight to a file:</p>
    <div class="snippet"><pre>${copyCommand(info.path)}</pre></div>
    <footer><${Button} onClick=${onClose} autofocus>Cancel<//><${Button} kind="primary" onClick=${go}>Download<//></footer>
  <//>`;
}

/** One file: what it is, and what is in it. */
function File({ info, reload }) {
  const [asked, setAsked] = useState("");
  const [isEnd, setIsEnd] = useState(false);
  const [isEdited, setIsEdited] = useState(location.hash.endsWith("?edit"));
  const { data, error } = useLoaded(() => read(info, isEnd), [isEnd, info.etag]);
  const why = whyNot(data);
  const folder = placeOf(above(info.path));
  const close = () => setAsked("");
  const leave = () => {
    setIsEdited(false);
    history.replaceState(null, "", placeOf(info.path));
  };
  const gone = () => {
    location.hash = folder;
  };
  return html`<${Head} title=${nameText(info.name)} back=${folder}>
      <${Commands} commands=${() => fileCommands(info)} />
      <${Button} icon="download" onClick=${() => fetchIt(info, () => setAsked("big"))}>${`Download ${bytes(info.size)}`}<//>
      <${Button} icon="remove" kind="brief" label="Delete" onClick=${() => setAsked("delete")}>Delete…<//>
      ${!isEdited && html`<${Button} icon="edit" kind="primary" why=${why} onClick=${() => setIsEdited(true)}>Edit<//>`}
    <//>
    <${Crumbs} path=${info.path} />
    <dl class="figures card">
      <div><dt>Size</dt><dd title=${`${info.size} bytes`}>${bytes(info.size)}</dd></div>
      <div><dt>Owner</dt><dd>${info.uid}:${info.gid}</dd></div>
      <div><dt>Mode</dt><dd>${info.mode}</dd></div>
      <div><dt>Changed</dt><dd>${fileTime(info.modified)}</dd></div>
    </dl>
    <${Loading} data=${data} error=${error} />
    ${data && isEdited && !why
      ? html`<${Editor} key=${data.etag} info=${info} data=${data} onClose=${leave} reload=${reload} />`
      : data && html`<${Content} info=${info} data=${data} isEnd=${isEnd} turn=${setIsEnd} />`}
    ${asked === "delete" && html`<${DeleteDialog} info=${info} onClose=${close} onDone=${gone} />`}
    ${asked === "big" && html`<${BigDialog} info=${info} onClose=${close} />`}`;
}

/** Some of a file: its text, or null for what is none, and its ETag as it was read. */
async function read(info, isEnd) {
  const headers = { Accept: "*/*" };
  if (info.size) headers.Range = isEnd ? `bytes=-${MOST_SHOWN}` : `bytes=0-${MOST_SHOWN - 1}`;
  const answer = await send("GET", at("file", info.path), { headers });
  // it may have grown since it was looked at
  const isPart = answer.headers.get("Content-Range")?.split("/")[1] > MOST_SHOWN;
  let content = new Uint8Array(await answer.arrayBuffer());
  if (isPart && isEnd) {
    const whole = content.findIndex((byte) => (byte & 0xc0) !== 0x80);
    content = content.subarray(Math.max(0, whole));
  }
  return { text: decode(content, isPart && !isEnd), etag: answer.headers.get("ETag"), isPart };
}

/** Bytes as text (UTF-8); null if they are none. What is cut may end within a character. */
function decode(content, isCut) {
  if (content.includes(0)) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content, { stream: isCut });
  } catch {
    return null;
  }
}

/** A browser's text field has line feeds only: how a text ends its lines, or null if it does so in several ways. */
function lineEnd(text) {
  if (!text.includes("\r")) return "\n";
  return /\r(?!\n)|(?<!\r)\n/.test(text) ? null : "\r\n";
}

/** Why it cannot be edited here, or nothing. */
function whyNot(data) {
  if (!data) return "It is being read.";
  if (data.text === null) return "It is no text.";
  if (data.isPart) return `Only files of up to ${bytes(MOST_SHOWN)} can be edited here.`;
  return lineEnd(data.text) ? "" : "It ends its lines in several ways, which a browser would change.";
}

function Content({ info, data, isEnd, turn }) {
  const { text, isPart } = data;
  if (text === null) return html`<${Empty} title="It is no text (UTF-8)."><p>Download it to look at it.</p><//>`;
  if (!text) return html`<${Empty} title="It is empty." />`;
  return html`<section class="card content-card" aria-label="Content">
    ${isPart && html`<header class="row"><div class="switch" role="group" aria-label="Which part">
        <button type="button" class="button" aria-pressed=${String(!isEnd)} onClick=${() => turn(false)}>Beginning</button>
        <button type="button" class="button" aria-pressed=${String(isEnd)} onClick=${() => turn(true)}>End</button>
      </div><span class="muted">${bytes(MOST_SHOWN)} of ${bytes(info.size)}</span></header>`}
    <pre class="content" tabindex="0" aria-label=${`${isEnd ? "End" : "Beginning"} of the file`} dir="ltr">${visible(text.replaceAll("\r\n", "\n"))}</pre>
  </section>`;
}

function Editor({ info, data, onClose, reload }) {
  const [text, setText] = useState(data.text);
  const [wrong, setWrong] = useState("");
  const [isChanged, setIsChanged] = useState(false);
  const save = async () => {
    setWrong("");
    const content = new Blob([lineEnd(data.text) === "\r\n" ? text.replace(/\r?\n/g, "\r\n") : text]);
    try {
      await upload(at("file", info.path), content, { headers: { "If-Match": data.etag } });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 412) setIsChanged(true);
      else setWrong(sentence(error.message));
      return;
    }
    say(`Saved ${nameText(info.name)}`);
    onClose();
    await reload();
  };
  return html`<form class="form" novalidate onSubmit=${(event) => event.preventDefault()}>
    ${isChanged && html`<div class="note row" role="alert"><p>Somebody has changed it since you opened it. Yours is not saved: copy what you need, then read it again.</p>
      <${Button} onClick=${reload}>Read it again<//></div>`}
    ${wrong && html`<p class="note" role="alert"><span class="wrong">${wrong}</span></p>`}
    <textarea class="content" aria-label="Text" rows="24" spellcheck=${false} autocapitalize="off" autofocus value=${text} onInput=${(event) => setText(event.target.value)} />
    <footer class="form-foot">
      <span class="muted tick">Owner and mode stay.</span>
      <${Button} onClick=${onClose}>Cancel<//>
      <${Button} kind="primary" onClick=${save}>Save<//>
    </footer>
  </form>`;
}

const container = () => system.get()?.name ?? "CONTAINER";
const copyCommand = (path) => `zn cp ${shellWord(path, `${container()}:`)} .`;
const OCTETS = ["Content-Type: application/octet-stream"];
/** Words for zn with a path of the container. */
const znPath = (verb, path, after = "") => `${zn(verb)} ${shellWord(path)}${after}`;
const into = (path) => shellWord(path === "/" ? "/" : `${path}/`, `${container()}:`);

function folderCommands(path) {
  const named = inside(path, "NAME");
  const send = (where) => curl("PUT", where, { headers: OCTETS });
  return [
    { title: "What is in it", curl: curl("GET", at("folder", path)), zn: znPath("file ls", path) },
    { title: "Download it", curl: `${curl("GET", at("archive", path))} > folder.tar`, zn: copyCommand(path) },
    { title: "Upload a file", curl: `${send(at("file", named))} --data-binary @NAME`, zn: `zn cp NAME ${into(path)}` },
    { title: "Upload a folder", curl: `tar -c NAME | ${send(at("archive", path))} --data-binary @-`, zn: `zn cp NAME ${into(path)}` },
    { title: "Make a folder", curl: curl("PUT", at("folder", named)), zn: znPath("file mkdir", named) },
    { title: "Delete a folder with all that is in it", curl: curl("DELETE", `${at("folder", named)}&recursive=true`), zn: znPath("file rm", named, " --recursive") },
  ];
}

function fileCommands({ path, etag }) {
  return [
    { title: "What it is", curl: curl("GET", at("stat", path)), zn: znPath("file show", path) },
    { title: "What is in it", curl: curl("GET", at("file", path)), zn: znPath("file cat", path) },
    { title: "Download it", curl: `${curl("GET", at("file", path))} > FILE`, zn: copyCommand(path) },
    { title: "Replace it, if it is as you see it here", curl: `${curl("PUT", at("file", path), { headers: [...OCTETS, `If-Match: ${etag}`] })} --data-binary @FILE` },
    { title: "Replace it", zn: `zn cp FILE ${shellWord(path, `${container()}:`)}` },
    { title: "Delete it", curl: curl("DELETE", at("file", path)), zn: znPath("file rm", path) },
  ];
}
