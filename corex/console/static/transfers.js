// Bytes on their way between this browser and the container: how many, and an end to it. They go on while another
// page of the console is shown.

import { send, upload } from "./api.js";
import { bytes, count } from "./format.js";
import { Value, useValue } from "./store.js";
import { Button, html, say } from "./ui.js";

/** What is under way, the oldest first. */
const transfers = new Value([]);
let counter = 0;

/** Begin one; returns how to tell of it. `total` is undefined where nobody knows. */
function begin(title, total) {
  const id = (counter += 1);
  const over = new AbortController();
  const change = (fields) => transfers.set(transfers.get().map((one) => (one.id === id ? { ...one, ...fields } : one)));
  transfers.set([...transfers.get(), { id, title, total, moved: 0, cancel: () => over.abort() }]);
  return {
    signal: over.signal,
    tell: (moved) => change({ moved }),
    end: () => transfers.set(transfers.get().filter((one) => one.id !== id)),
  };
}

/** End all of them. */
export function dropTransfers() {
  for (const one of transfers.get()) one.cancel();
}

/** Fetch a file, or a folder as a tar, and have the browser save it. */
export async function download(path, name, total) {
  const under = begin(`Downloading ${name}`, total);
  try {
    const answer = await send("GET", path, { headers: { Accept: "*/*" }, signal: under.signal });
    const pieces = [];
    let moved = 0;
    const reader = answer.body.getReader();
    for (let found = await reader.read(); !found.done; found = await reader.read()) {
      pieces.push(found.value);
      under.tell((moved += found.value.length));
    }
    // of a type that no browser knows an ending for
    save(new Blob(pieces, { type: "application/octet-stream" }), name);
    say(`Downloaded ${name}: ${bytes(moved)}`);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    say(`${name} did not come whole: nothing of it is saved`, { kind: "failed" });
  } finally {
    under.end();
  }
}

/** Have the browser save something. */
export function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Send a file's bytes. */
export async function give(path, content, name, headers = {}) {
  const under = begin(`Uploading ${name}`, content.size);
  try {
    return await upload(path, content, { headers, signal: under.signal, tell: under.tell });
  } finally {
    under.end();
  }
}

export function Transfers() {
  const shown = useValue(transfers);
  if (!shown.length) return null;
  return html`<section class="card transfers" aria-label=${count(shown.length, "transfer")}>
    ${shown.map(({ id, title, moved, total, cancel }) => html`<div key=${id} class="transfer">
      <p><strong>${title}</strong> <span class="muted">${bytes(moved)}${total ? ` of ${bytes(total)}` : ""}</span></p>
      <progress aria-label=${title} max=${total || undefined} value=${total ? moved : undefined} />
      <${Button} icon="close" kind="quiet" label=${`${title}: cancel`} onClick=${cancel} />
    </div>`)}
  </section>`;
}
