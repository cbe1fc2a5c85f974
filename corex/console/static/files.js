// The container's files: a page of a folder, or of one file.

import { useRef, useState } from "preact/hooks";
import { get } from "./api.js";
import { Commands, curl, zn } from "./commands.js";
import { DeleteDialog, NewDialog, SendDialog, at } from "./filing.js";
import { bytes, fileTime } from "./format.js";
import { Icon } from "./icons.js";
import { identity, may, system } from "./live.js";
import { above, inside, nameOf, nameText, placeOf, shellWord, targetOf, textOf } from "./paths.js";
import { useValue } from "./store.js";
import { TextFile } from "./text.js";
import { download } from "./transfers.js";
import { Button, Dialog, Empty, Head, complain, html, say, sentence, useLoaded } from "./ui.js";

const PAGE = 200;
const MOST = 10_000;
// Links that are followed (path_resolution(7)).
const HOPS = 40;
// Bytes that a browser should not keep without asking.
const BIG = 200 * 2 ** 20;
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
  return { info, ...(await list(path, most)) };
}

async function list(path, most) {
  const { entries, next } = await get(`${at("folder", path)}&limit=${Math.min(most, MOST)}`);
  return { entries, next };
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
    ${error && html`<${Empty} title=${sentence(error.message)}><a href=${placeOf(above(path))}>See the folder that it would be in</a><//>`}
    ${!data && !error && html`<p class="loading">Reading…</p>`}
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
      ${entries.length > 0 && html`<div class="scroll"><table class="cards files">
        <thead><tr><th scope="col">Name</th><th scope="col" class="number">Size</th><th scope="col">Owner</th><th scope="col">Mode</th><th scope="col">Changed</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
        <tbody>${entries.map((info) => html`<${Entry} key=${info.path} info=${info} ask=${setAsked} />`)}</tbody>
      </table></div>`}
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
  const close = () => setAsked("");
  const name = nameText(info.name);
  const gone = () => {
    location.hash = placeOf(above(info.path));
  };
  return html`<${TextFile} info=${info} reload=${reload} crumbs=${html`<${Crumbs} path=${info.path} />`} back=${placeOf(above(info.path))}>
      <${Commands} commands=${() => fileCommands(info)} />
      <${Button} icon="download" onClick=${() => fetchIt(info, () => setAsked("big"))}>${`Download ${bytes(info.size)}`}<//>
      <${Button} icon="remove" onClick=${() => setAsked("delete")}>Delete…<//>
    <//>
    ${asked === "delete" && html`<${DeleteDialog} info=${info} onClose=${close} onDone=${gone} />`}
    ${asked === "big" && html`<${BigDialog} info=${info} onClose=${close} />`}`;
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
