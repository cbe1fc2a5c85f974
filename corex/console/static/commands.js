// The same from a terminal: what a screen shows and does, for curl and for zn. The token is never in it.

import { useState } from "preact/hooks";
import { quote } from "./format.js";
import { system } from "./live.js";
import { Button, Dialog, copy, html } from "./ui.js";

/** A request for curl; docs/corex.md says how to check the certificate first. */
export function curl(method, path, { body, headers = [], options = "-k" } = {}) {
  const parts = ["curl", options, "-H", '"Authorization: Bearer $TOKEN"'];
  for (const header of headers) parts.push("-H", quote(header));
  if (body !== undefined) parts.push("-H", "'Content-Type: application/json'");
  if (method !== "GET") parts.push("-X", method);
  parts.push(quote(location.origin + path));
  if (body !== undefined) parts.push("-d", quote(typeof body === "string" ? body : JSON.stringify(body)));
  return parts.join(" ");
}

/** Words for zn: the container's name stands after the verb. */
export function zn(verb, ...words) {
  return ["zn", ...verb.split(" "), system.get()?.name ?? "CONTAINER", ...words.map(String).map(quote)].join(" ");
}

/** How zn learns a token of this container. */
export const login = () => zn("process login", location.origin, "--fingerprint", "SHA256");

/** A command of zn's with the JSON that it reads from its standard input. */
export function znInput(command, content) {
  return `${command} <<'END'\n${JSON.stringify(content, null, 1)}\nEND`;
}

/** The button that shows them. `commands()` gives rows of title, curl and zn. */
export function Commands({ commands }) {
  const [open, setOpen] = useState(false);
  return html`<${Button} icon="code" onClick=${() => setOpen(true)} label="Copy as curl or zn" kind="quiet brief">curl · zn<//>
    ${open && html`<${CommandsDialog} rows=${commands()} onClose=${() => setOpen(false)} />`}`;
}

export function CommandsDialog({ rows, onClose }) {
  return html`<${Dialog} title="The same from a terminal" onClose=${onClose} kind="broad">
    <p class="muted">Put your token into <code>TOKEN</code> before: <code>read -rs TOKEN</code>. <code>-k</code> takes any
      certificate: compare its fingerprint first. zn knows containers that it made; others it learns by
      <code>${login()}</code>.</p>
    ${rows.map(
      (row) => html`<section class="command" key=${row.title}>
        <h3>${row.title}</h3>
        ${["curl", "zn"].map(
          (kind) => row[kind] && html`<div class="snippet">
            <pre tabindex="0" aria-label=${`${row.title} as ${kind}`}>${row[kind]}</pre>
            <${Button} icon="copy" label=${`Copy as ${kind}: ${row.title}`} onClick=${() => copy(row[kind])} kind="quiet" />
          </div>`,
        )}
      </section>`,
    )}
  <//>`;
}
