import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, Unreachable } from "./api.js";
import { Field, html } from "./ui.js";

/** Asks for the token. `enter` throws what Core-X refuses; `why` says why it is asked for again. */
export function Login({ enter, why }) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const [shown, setShown] = useState(false);
  const input = useRef();
  useEffect(() => {
    document.title = "Log in · Core-X";
    input.current?.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const bearer = input.current.value.trim();
    if (!bearer) {
      setError("Type the token first.");
      return;
    }
    setBusy(true);
    setError("");
    try {
      await enter(bearer);
    } catch (problem) {
      setBusy(false);
      setError(reason(problem));
      input.current.select();
    }
  };
  return html`<main class="login">
    <form onSubmit=${submit} novalidate>
      <img src="icon.svg" alt="" width="40" height="40" />
      <h1>Core-X</h1>
      <p class="muted">${location.host}</p>
      ${why && html`<p class="note" role="status">${why}</p>`}
      <${Field} label="Token" error=${error} hint="The one that the container's creation returned, or that an admin gave you. It stays in this tab.">
        ${(given) => html`<input class="hidden" autocomplete="username" value="Core-X" aria-hidden="true" tabindex="-1" readonly /><div class="joined">
          <input ...${given} ref=${input} type=${shown ? "text" : "password"} name="token" autocomplete="current-password" spellcheck=${false} autocapitalize="off" />
          <button type="button" class="button" aria-pressed=${String(shown)} onClick=${() => setShown(!shown)}>${shown ? "Hide" : "Show"}</button>
        </div>`}
      <//>
      <button class="button primary" type="submit" aria-disabled=${busy ? "true" : undefined}>${busy ? "Logging in…" : "Log in"}</button>
      <p role="alert" class="hidden">${error}</p>
    </form>
  </main>`;
}

function reason(problem) {
  if (problem instanceof Unreachable) return "Core-X does not answer. Is the container running?";
  if (!(problem instanceof Problem)) return String(problem);
  if (problem.status === 401) return "That token is not right.";
  if (problem.status === 429) return `Too many wrong tokens came from your address. Wait ${problem.retryAfter || 60} s, or use the right one.`;
  if (problem.status === 403) return "This token may read figures only (role metrics): the console needs at least the role viewer.";
  return problem.message;
}
