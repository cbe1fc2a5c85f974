// What all pages are made of: buttons, fields, dialogs, messages.

import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Unreachable } from "./api.js";
import { html } from "./html.js";
import { Icon } from "./icons.js";
import { may, system } from "./live.js";
import { Value, useValue } from "./store.js";

export { html };

/** Messages on their way out, the oldest first. */
const messages = new Value([]);
let counter = 0;

/** Tell the person what happened, for some seconds. */
export function say(text, { kind = "done", remedy = "" } = {}) {
  const message = { id: (counter += 1), text, kind, remedy };
  messages.set([...messages.get(), message].slice(-4));
  setTimeout(() => hush(message.id), kind === "failed" ? 12_000 : 4_000);
}

function hush(id) {
  messages.set(messages.get().filter((message) => message.id !== id));
}

/** Tell the person what went wrong. */
export function complain(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Unreachable || error.status !== undefined) {
    say(sentence(error.message), { kind: "failed", remedy: error.remedy });
  } else {
    throw error;
  }
}

/** A problem's detail as a sentence. */
export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

export function Messages() {
  const shown = useValue(messages);
  return html`<div class="messages" role="status" aria-live="polite">
    ${shown.map(
      ({ id, text, kind, remedy }) => html`<div key=${id} class="message" data-kind=${kind}>
        <p>${text}${remedy && html`<span class="muted">${sentence(remedy)}</span>`}</p>
        <button class="plain" aria-label="Dismiss this message" onClick=${() => hush(id)}><${Icon} name="close" /></button>
      </div>`,
    )}
  </div>`;
}

/**
 * A button. What the role does not allow stays visible and reachable, and says why it does nothing.
 * `icon` alone needs a `label`.
 */
export function Button({ icon, label, need, onClick, children, kind = "", why, ...rest }) {
  const [busy, setBusy] = useState(false);
  const alive = useRef(true);
  useEffect(() => () => (alive.current = false), []);
  const reason = need && !may(need) ? `This needs the role ${need}.` : why;
  const press = async (event) => {
    if (reason) {
      say(reason, { kind: "refused" });
      return;
    }
    if (busy) return;
    const work = onClick?.(event);
    if (!(work instanceof Promise)) return;
    setBusy(true);
    try {
      await work;
    } catch (error) {
      complain(error);
    } finally {
      if (alive.current) setBusy(false);
    }
  };
  return html`<button
    type="button"
    class="button ${kind} ${children ? "" : "square"}"
    aria-label=${label && reason ? `${label}: ${reason}` : label}
    title=${reason || label}
    aria-disabled=${reason ? "true" : undefined}
    aria-busy=${busy ? "true" : undefined}
    onClick=${press}
    ...${rest}
  >${icon && html`<${Icon} name=${icon} />`}${children && html`<span>${children}</span>`}</button>`;
}

/** A dialog over the page, closed by Escape; focus returns to where it was. */
export function Dialog({ title, onClose, children, kind = "" }) {
  const element = useRef();
  const id = useId();
  useLayoutEffect(() => {
    const before = document.activeElement;
    element.current.showModal();
    element.current.querySelector("[autofocus]")?.focus();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${element} class=${kind} aria-labelledby=${id}
    onCancel=${(event) => { event.preventDefault(); onClose(); }}
    onClick=${(event) => event.target === element.current && onClose()}>
    <div class="dialog">
      <header><h2 id=${id}>${title}</h2><button class="plain" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button></header>
      ${children}
    </div>
  </dialog>`;
}

/** The page's head: its title, and what can be done there. */
export function Head({ title, children, back }) {
  const container = useValue(system, (known) => known?.name) ?? "Core-X";
  useEffect(() => {
    document.title = `${title} · ${container}`;
  }, [title, container]);
  return html`<header class="head">
    ${back && html`<a class="button square" href=${back} aria-label="Back" title="Back"><${Icon} name="back" /></a>`}
    <h1>${title}</h1>
    <div class="actions">${children}</div>
  </header>`;
}

/** What a page shows where there is nothing. */
export function Empty({ title, children }) {
  return html`<div class="empty"><p><strong>${title}</strong></p>${children}</div>`;
}

/** What stands in the place of `data` that is not there: that it is being read, or why it cannot be. */
export function Loading({ data, error, children }) {
  if (error) return html`<${Empty} title=${sentence(error.message)}>${children}<//>`;
  return data ? null : html`<p class="loading">Reading…</p>`;
}

/** A table, which becomes cards on a phone. The column without a name is that of actions. */
export function Table({ columns, numbers = [], kind = "", children }) {
  return html`<div class="scroll"><table class="cards ${kind}">
    <thead><tr>${columns.map((name) => html`<th scope="col" key=${name} class=${numbers.includes(name) ? "number" : ""}>${name || html`<span class="hidden">Actions</span>`}</th>`)}</tr></thead>
    <tbody>${children}</tbody>
  </table></div>`;
}

/** A field with its label, a hint, and what is wrong with it. `children` gets the control's attributes. */
export function Field({ label, hint, error, children, wide }) {
  const id = useId();
  const told = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  return html`<div class="field ${wide ? "wide" : ""}" data-wrong=${error ? "" : undefined}>
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": told, "aria-invalid": error ? "true" : undefined })}
    ${hint && html`<p class="hint" id="${id}-hint">${hint}</p>`}
    ${error && html`<p class="wrong" id="${id}-error">${error}</p>`}
  </div>`;
}

/** Seconds since 1970, told anew each second. */
export function useNow(every = 1000) {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

/**
 * What `load` finds, asked for when the page opens, by `reload`, and each `every` milliseconds that somebody sees the
 * page; the page complains by itself.
 */
export function useLoaded(load, given = [], every = 0) {
  const [found, setFound] = useState({ data: null, error: null });
  const latest = useRef(0);
  const reload = async () => {
    const turn = (latest.current += 1);
    try {
      const data = await load();
      if (turn === latest.current) setFound({ data, error: null });
    } catch (error) {
      if (turn === latest.current) setFound((before) => ({ ...before, error }));
    }
  };
  useEffect(() => {
    reload();
    const timer = every && setInterval(() => document.hidden || reload(), every);
    return () => {
      clearInterval(timer);
      latest.current += 1;
    };
  }, given);
  return { ...found, reload };
}

/** Text to the clipboard. */
export async function copy(text) {
  await navigator.clipboard.writeText(text);
  say("Copied");
}
