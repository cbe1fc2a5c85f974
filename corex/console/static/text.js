// What is in a file: its beginning or its end as text, and an editor for what is small.

import { useState } from "preact/hooks";
import { Problem, send, upload } from "./api.js";
import { bytes, fileTime } from "./format.js";
import { at } from "./filing.js";
import { nameText, placeOf } from "./paths.js";
import { visible } from "./sgr.js";
import { Button, Empty, Head, html, say, sentence, useLoaded } from "./ui.js";

// Bytes that are shown, and that may be edited.
const MOST = 256 * 1024;

/** Some of a file: its text, or null for what is none, and its ETag as it was read. */
async function read(info, isEnd) {
  const isPart = info.size > MOST;
  const headers = { Accept: "*/*" };
  if (isPart) headers.Range = isEnd ? `bytes=-${MOST}` : `bytes=0-${MOST - 1}`;
  const answer = await send("GET", at("file", info.path), { headers });
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

/** A file's page; `children` are its buttons. */
export function TextFile({ info, reload, crumbs, back, children }) {
  const [isEnd, setIsEnd] = useState(false);
  const [isEdited, setIsEdited] = useState(location.hash.endsWith("?edit"));
  const { data, error } = useLoaded(() => read(info, isEnd), [isEnd, info.etag]);
  const name = nameText(info.name);
  const leave = () => {
    setIsEdited(false);
    history.replaceState(null, "", placeOf(info.path));
  };
  const why = whyNot(data);
  return html`<${Head} title=${name} back=${back}>
      ${children}
      ${!isEdited && html`<${Button} icon="edit" kind="primary" why=${why} onClick=${() => setIsEdited(true)}>Edit<//>`}
    <//>
    ${crumbs}
    <dl class="figures card">
      <div><dt>Size</dt><dd title=${`${info.size} bytes`}>${bytes(info.size)}</dd></div>
      <div><dt>Owner</dt><dd>${info.uid}:${info.gid}</dd></div>
      <div><dt>Mode</dt><dd>${info.mode}</dd></div>
      <div><dt>Changed</dt><dd>${fileTime(info.modified)}</dd></div>
    </dl>
    ${error && html`<${Empty} title=${sentence(error.message)} />`}
    ${!data && !error && html`<p class="loading">Reading…</p>`}
    ${data && isEdited && !why
      ? html`<${Editor} key=${data.etag} info=${info} data=${data} onClose=${leave} reload=${reload} />`
      : data && html`<${Content} info=${info} data=${data} isEnd=${isEnd} turn=${setIsEnd} />`}`;
}

/** Why it cannot be edited here, or nothing. */
function whyNot(data) {
  if (!data) return "It is being read.";
  if (data.text === null) return "It is no text.";
  if (data.isPart) return `Only files of up to ${bytes(MOST)} can be edited here.`;
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
      </div><span class="muted">${bytes(MOST)} of ${bytes(info.size)}</span></header>`}
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
