import { useId, useMemo, useRef, useState } from "preact/hooks";
import { Icon } from "./icons.js";
import { Dialog, complain, html, say } from "./ui.js";

const MOST = 50;

/** How well a text fits what was typed: letters in their order, the better the closer together; -1 not at all. */
export function fit(typed, text) {
  const low = text.toLowerCase();
  let at = -1;
  let score = 0;
  for (const sign of typed.toLowerCase().replaceAll(" ", "")) {
    const next = low.indexOf(sign, at + 1);
    if (next < 0) return -1;
    if (next === at + 1) score += 3;
    if (next === 0 || /[\s-]/.test(low[next - 1])) score += 2;
    at = next;
  }
  return score - low.length / 100;
}

/** All that can be done, by typing some of its letters. `commands` are of `title`, `icon`, `run`, and `why` not. */
export function Palette({ commands, onClose }) {
  const [typed, setTyped] = useState("");
  const [chosen, setChosen] = useState(0);
  const list = useRef();
  const id = useId();
  const shown = useMemo(() => {
    const found = commands.map((command) => ({ ...command, score: fit(typed, command.title) })).filter(({ score }) => score >= 0 || !typed);
    if (typed) found.sort((one, other) => other.score - one.score);
    return found.slice(0, MOST);
  }, [typed, commands]);
  const go = (command) => {
    if (!command) return;
    if (command.why) {
      say(command.why, { kind: "refused" });
      return;
    }
    onClose();
    Promise.resolve().then(command.run).catch(complain);
  };
  const key = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && shown.length) {
      event.preventDefault();
      const next = (chosen + by + shown.length) % shown.length;
      setChosen(next);
      list.current.children[next]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      go(shown[chosen]);
    }
  };
  return html`<${Dialog} title="Commands" onClose=${onClose} kind="palette">
    <input role="combobox" aria-label="Command" aria-expanded="true" aria-controls=${id} aria-activedescendant=${shown.length ? `${id}-${chosen}` : undefined}
      aria-autocomplete="list" autocomplete="off" spellcheck=${false} placeholder="Go to, start, stop, open…" autofocus value=${typed}
      onInput=${(event) => { setTyped(event.target.value); setChosen(0); }} onKeyDown=${key} />
    <ul role="listbox" id=${id} aria-label="Commands" ref=${list}>
      ${shown.map((command, at) => html`<li key=${command.title} role="option" id="${id}-${at}" aria-selected=${String(at === chosen)} aria-disabled=${command.why ? "true" : undefined}
        onMouseMove=${() => setChosen(at)} onClick=${() => go(command)}><${Icon} name=${command.icon} /><span>${command.title}</span>${command.why && html`<span class="muted">${command.why}</span>`}</li>`)}
    </ul>
    ${!shown.length && html`<p class="muted" role="status">Nothing fits.</p>`}
  <//>`;
}
