import { useState } from "preact/hooks";
import { Problem, get, put, remove } from "./api.js";
import { Commands, curl, login, zn } from "./commands.js";
import { moment } from "./format.js";
import { may } from "./live.js";
import { Button, Dialog, Field, Head, Loading, Table, copy, html, say, sentence, useLoaded } from "./ui.js";

const ROLES = {
  viewer: "reads all, and watches sessions",
  operator: "reads all, files too, declares, starts, stops, runs, types and writes files",
  admin: "does all that there is, and lets others in",
  metrics: "reads figures only",
};
const OWNER = "owner";
// Core-X keeps so many at most; the page shows the newest of them.
const MOST_EVENTS = 10_000;
const SHOWN_EVENTS = 200;
const EVERY = 5000;

/** A token of 256 random bits, and its SHA-256: Core-X gets only the latter. */
async function makeToken() {
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const token = btoa(String.fromCharCode(...secret)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token)));
  return { token, digest: [...digest].map((one) => one.toString(16).padStart(2, "0")).join("") };
}

export function Access() {
  const { data, error, reload } = useLoaded(() => get("/v1/identities"));
  const [asking, setAsking] = useState(false);
  const deny = async (name) => {
    await remove(`/v1/identities/${name}`);
    say(`${name} may ask no more`);
    await reload();
  };
  return html`<${Head} title="Access">
      <${Commands} commands=${commands} />
      <${Button} icon="add" kind="primary" need="admin" onClick=${() => setAsking(true)}>Let somebody in<//>
    <//>
    <${Loading} data=${data} error=${error} />
    ${data && html`<${Table} columns=${["Who", "Role", "May", ""]}>${data.identities.map(({ name, role }) => html`<tr key=${name}>
        <th scope="row"><strong>${name}</strong>${name === data.own && html` <span class="muted">(you)</span>`}</th>
        <td>${role}</td><td class="why">${ROLES[role]}</td>
        <td class="do"><${Button} icon="remove" kind="quiet" need="admin" label=${`Let ${name} in no more`} why=${name === OWNER ? "The container was made for it." : ""} onClick=${() => deny(name)} /></td>
      </tr>`)}<//><p class="muted">Identities live as long as Core-X does.</p>`}
    ${may("admin") && html`<${Audit} done=${data} />`}
    ${asking && html`<${AllowDialog} onClose=${() => setAsking(false)} onDone=${reload} />`}`;
}

/** Who did what, the newest first. */
function Audit({ done }) {
  const { data, error } = useLoaded(() => get(`/v1/audit?limit=${MOST_EVENTS}`), [done], EVERY);
  if (!data) return html`<${Loading} data=${data} error=${error} />`;
  return html`<section class="stack" aria-label="Who did what">
    <h2>Who did what</h2>
    <${Table} columns=${["When", "What", "Who", "Request"]}>${data.events.slice(-SHOWN_EVENTS).reverse().map((event) => html`<tr key=${event.seq}>
        <td class="when">${moment(event.time)}</td>
        <td><span class="state" data-state=${event.level === "WARN" ? "failed" : undefined}>${event.event}</span>${event.times > 1 && html` <span class="muted">× ${event.times}</span>`}</td>
        <td>${event.who || html`<span class="muted">${event.source ? "nobody known" : "Core-X itself"}</span>`}<span class="detail">${event.source}</span></td>
        <td class="why"><code>${event.action}</code>${event.subject && html` <code>${event.subject}</code>`}${event.status ? html` <span class="muted">${event.status}</span>` : ""}</td>
      </tr>`)}<//>
  </section>`;
}

function AllowDialog({ onClose, onDone }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [wrong, setWrong] = useState("");
  const [token, setToken] = useState("");
  const allow = async (event) => {
    event.preventDefault();
    const made = await makeToken();
    try {
      await put(`/v1/identities/${encodeURIComponent(name || "-")}`, { role, token_sha256: made.digest });
    } catch (error) {
      setWrong(error instanceof Problem && error.status === 422 ? "A name has small letters, digits and hyphens." : sentence(error.message));
      return;
    }
    setToken(made.token);
    onDone();
  };
  if (token) {
    return html`<${Dialog} title=${`The token of ${name}`} onClose=${onClose}>
      <p>Copy it now: nobody can show it again. It was made in this browser, and Core-X knows only its SHA-256.
        It is for this page, or for <code>${login()}</code>.</p>
      <div class="snippet"><pre tabindex="0" aria-label="Token">${token}</pre><${Button} icon="copy" kind="quiet" label="Copy the token" onClick=${() => copy(token)} /></div>
      <footer><${Button} kind="primary" onClick=${onClose} autofocus>Done<//></footer>
    <//>`;
  }
  return html`<${Dialog} title="Let somebody in" onClose=${onClose}>
    <form class="stack" onSubmit=${allow} novalidate>
      <${Field} label="Name" error=${wrong}>${(given) => html`<input ...${given} class="mono" value=${name} autofocus autocapitalize="off" spellcheck=${false} onInput=${(event) => setName(event.target.value)} />`}<//>
      <fieldset><legend class="label">Role</legend>
        ${Object.entries(ROLES).map(([one, does]) => html`<label class="tick" key=${one}><input type="radio" name="role" value=${one} checked=${role === one} onChange=${() => setRole(one)} /><span><strong>${one}</strong> <span class="muted">${does}</span></span></label>`)}
      </fieldset>
      <footer><${Button} onClick=${onClose}>Cancel<//><button class="button primary" type="submit">Make a token</button></footer>
    </form>
  <//>`;
}

const commands = () => [
  { title: "Who may ask", curl: curl("GET", "/v1/identities"), zn: zn("process identities") },
  {
    title: "Let somebody in",
    curl: curl("PUT", "/v1/identities/NAME", { body: { role: "viewer", token_sha256: "SHA256_OF_THEIR_TOKEN" } }),
    zn: zn("process allow", "NAME", "--role", "viewer"),
  },
  { title: "Who did what", curl: curl("GET", "/v1/audit"), zn: zn("process audit") },
  { title: "Let them in no more", curl: curl("DELETE", "/v1/identities/NAME"), zn: zn("process deny", "NAME") },
];
