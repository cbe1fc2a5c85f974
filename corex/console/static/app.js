// The console: who is asked for what is in the address behind '#', and each page is a function.

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Access } from "./access.js";
import { Unreachable, get, token, whenRefused } from "./api.js";
import { Checks } from "./checks.js";
import { Events, Operations } from "./events.js";
import { ProcessForm } from "./form.js";
import { Files } from "./files.js";
import { Question, dropQuestion } from "./filing.js";
import { span, bytes, count } from "./format.js";
import { Icon, State } from "./icons.js";
import * as live from "./live.js";
import { Login } from "./login.js";
import { Logs } from "./logs.js";
import { Palette } from "./palette.js";
import { hashPath } from "./paths.js";
import { Plan } from "./plan.js";
import { Process, Processes, act, isIdle } from "./processes.js";
import { Shell, dropTabs, openShell, restoreTabs } from "./shell.js";
import { Value, useValue } from "./store.js";
import { chooseTheme, chosenTheme, nextTheme } from "./themes.js";
import { Transfers, dropTransfers } from "./transfers.js";
import { Button, Empty, Head, Messages, html, useNow } from "./ui.js";

const PAGES = [
  { name: "processes", title: "Processes", view: Processes },
  { name: "logs", title: "Logs", view: Logs },
  { name: "shell", title: "Shell", view: Shell },
  { name: "files", title: "Files", view: Files },
  { name: "checks", title: "Checks", view: Checks },
  { name: "events", title: "Events", view: Events },
  { name: "operations", title: "Operations", view: Operations, below: "events" },
  { name: "plan", title: "Plan", view: Plan },
  { name: "access", title: "Access", view: Access },
];

// Milliseconds until a page that nothing answers asks again.
const AGAIN = 2000;

/** A segment of a path; what is none of UTF-8 stays as it is. */
function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** What stands behind '#': segments, a query, and the path of a file behind the first segment. */
function where() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: new URLSearchParams(query), file: hashPath(path) };
}

const place = new Value(where());
addEventListener("hashchange", () => place.set(where()));

/** What the page said when it asked for the token again. */
const farewell = new Value("");

function leave(why = "") {
  token.drop();
  dropTabs();
  dropTransfers();
  dropQuestion();
  live.stop();
  live.identity.set(null);
  farewell.set(why);
}

whenRefused((problem) => leave(problem.status === 401 ? "The token is not accepted any more." : problem.message));

/** Learn who a token is of, and begin. Throws what Core-X refuses. */
async function enter(bearer) {
  const known = await get("/v1/identities", { bearer });
  token.set(bearer);
  farewell.set("");
  live.identity.set(known.identities.find((one) => one.name === known.own));
  restoreTabs();
  live.start();
}

/** Log in with the token that this tab has; as long as nothing answers, try again. */
async function comeBack(tell) {
  while (true) {
    try {
      await enter(token.get());
      return;
    } catch (error) {
      if (!(error instanceof Unreachable)) {
        token.drop();
        return;
      }
    }
    tell();
    await new Promise((done) => setTimeout(done, AGAIN));
  }
}

function App() {
  const identity = useValue(live.identity);
  const [tried, setTried] = useState(token.get() === null);
  const [away, setAway] = useState(false);
  useEffect(() => {
    if (!tried) comeBack(() => setAway(true)).finally(() => setTried(true));
  }, []);
  if (!tried) return html`<p class="loading" role="status">${away ? "Core-X does not answer. Trying again…" : "Logging in…"}</p>`;
  if (!identity) return html`<${Login} enter=${enter} why=${useValue(farewell)} /><${Messages} />`;
  return html`<${Frame} identity=${identity} />`;
}

function Frame({ identity }) {
  const { parts, query, file } = useValue(place);
  const system = useValue(live.system);
  const [open, setOpen] = useState(false);
  const shown = useRef(null);
  const current = PAGES.find(({ name }) => name === parts[0])?.below ?? parts[0] ?? "processes";
  const page = ["processes", "files"].includes(parts[0]) ? parts.join("/") : parts[0];
  useEffect(() => {
    // who comes to another page begins at its top, with the keyboard, too
    if (shown.current !== null && shown.current !== page) {
      document.getElementById("main").focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    shown.current = page ?? "";
  }, [page]);
  useEffect(() => {
    const press = (event) => {
      const isInTerminal = event.target.closest?.(".host");
      if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "k" || (isInTerminal && !event.shiftKey)) return;
      event.preventDefault();
      event.stopPropagation();
      setOpen(!document.querySelector("dialog[open]"));
    };
    addEventListener("keydown", press, { capture: true });
    return () => removeEventListener("keydown", press, { capture: true });
  }, []);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <nav class="side" aria-label="Pages">
      <a class="brand" href="#/processes"><img src="icon.svg" alt="" width="24" height="24" /><span>${system?.name ?? "…"}</span></a>
      <button type="button" class="button find" aria-keyshortcuts="Control+K" onClick=${() => setOpen(true)}><${Icon} name="search" /><span>Commands</span><kbd>Ctrl K</kbd></button>
      <ul>
        ${PAGES.filter(({ below }) => !below).map(
          (page) => html`<li key=${page.name}>
            <a href="#/${page.name}" aria-current=${current === page.name ? "page" : undefined}>
              <${Icon} name=${page.name} /><span>${page.title}</span></a>
          </li>`,
        )}
      </ul>
      <div class="who">
        <p title="Whose token this is, and its role"><strong>${identity.name}</strong><span class="muted">${identity.role}</span></p>
        <div class="row">
          <span class="phone"><${Button} icon="search" label="Commands" kind="quiet" onClick=${() => setOpen(true)} /></span>
          <${ThemeButton} />
          <${Button} icon="leave" label="Log out" onClick=${() => leave()} kind="quiet" />
        </div>
      </div>
    </nav>
    <div class="page">
      <${Facts} system=${system} />
      <${Lost} />
      <main id="main" tabindex="-1"><${Transfers} /><${Page} parts=${parts} query=${query} file=${file} /></main>
    </div>
    ${open && html`<${Palette} commands=${allCommands()} onClose=${() => setOpen(false)} />`}
    <${Question} />
    <${Messages} />`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function ThemeButton() {
  const theme = useValue(chosenTheme);
  return html`<${Button} icon=${theme} label=${`Theme: ${theme}. Change it`} onClick=${nextTheme} kind="quiet" />`;
}

/** What is known of the container, on top of each page. */
function Facts({ system }) {
  const now = useNow();
  const names = useValue(live.processes);
  if (!system) return html`<div class="facts" />`;
  const running = [...names.values()].filter((info) => ["running", "ready"].includes(info.state)).length;
  return html`<dl class="facts">
    <div class="phone"><dt>Container</dt><dd><strong>${system.name}</strong></dd></div>
    <div><dt>Up</dt><dd>${span(system.uptime + now - system.read)}</dd></div>
    <div><dt>Running</dt><dd>${running} of ${count(names.size, "process", "processes")}</dd></div>
    ${system.health && html`<div><dt>Health</dt><dd title=${system.health.why}><${State} state=${system.health.state} /></dd></div>`}
    <div class="wide"><dt>Core-X</dt><dd>${bytes(system.usage?.memory_bytes)}</dd></div>
    <div class="wide"><dt>Kernel</dt><dd>${system.kernel}</dd></div>
  </dl>`;
}

/** The banner for the time that Core-X does not answer. */
function Lost() {
  const { state, again } = useValue(live.connection);
  if (state !== "lost") return html`<div role="alert" />`;
  return html`<div role="alert" class="lost">
    <p><strong>The connection is lost.</strong> What you see may be old. <${Again} at=${again} /></p>
    <${Button} onClick=${live.again}>Try now<//>
  </div>`;
}

function Again({ at }) {
  const left = Math.ceil(at / 1000 - useNow(250));
  return html`<span aria-hidden="true">${left > 0 ? `Trying again in ${left} s.` : "Trying again…"}</span>`;
}

function Page({ parts, query, file }) {
  const [name = "processes", ...rest] = parts;
  if (name === "new") return html`<${ProcessForm} key="new" />`;
  if (name === "processes" && rest[1] === "edit") return html`<${ProcessForm} key=${rest[0]} name=${rest[0]} />`;
  if (name === "processes" && rest.length) return html`<${Process} key=${rest[0]} name=${rest[0]} />`;
  if (name === "files") return html`<${Files} key=${file} path=${file} />`;
  const page = PAGES.find((one) => one.name === name);
  if (page) return html`<${page.view} rest=${rest} query=${query} />`;
  return html`<${Head} title="Not here" /><${Empty} title="There is no such page."><a href="#/processes">See all processes</a><//>`;
}

/** What the palette offers: pages, processes, and what can be done with them. */
function allCommands() {
  const go = (place) => () => (location.hash = place);
  const why = live.may("operator") ? "" : "needs the role operator";
  const pages = PAGES.map((page) => ({ title: `Go to ${page.title}`, icon: page.below ?? page.name, run: go(`#/${page.name}`) }));
  const processes = [...live.processes.get().values()].flatMap((info) => {
    const { name } = info;
    const verb = (word, icon) => ({ title: `${word} ${name}`, icon, why, run: () => act(name, word.toLowerCase()) });
    return [
      { title: `Open ${name}`, icon: "processes", run: go(`#/processes/${name}`) },
      isIdle(info) ? verb("Start", "start") : verb("Stop", "stop"),
      verb("Restart", "restart"),
      { title: `Edit ${name}`, icon: "edit", why, run: go(`#/processes/${name}/edit`) },
      { title: `Logs of ${name}`, icon: "logs", run: go(`#/logs?process=${name}`) },
    ];
  });
  const themes = ["auto", "light", "dark"].map((theme) => ({ title: `Theme: ${theme}`, icon: theme, run: () => chooseTheme(theme) }));
  return [
    ...pages,
    { title: "New shell", icon: "shell", why, run: () => openShell() },
    { title: "Add process", icon: "add", why, run: go("#/new") },
    ...processes,
    ...themes,
    { title: "Log out", icon: "leave", run: () => leave() },
  ];
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
