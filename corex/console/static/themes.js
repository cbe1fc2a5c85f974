// Dark or light: what the system says, or what the person chose.

import { Value } from "./store.js";

const KEY = "theme";
const ORDER = ["auto", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");

/** "auto", "light" or "dark". */
export const chosenTheme = new Value(document.documentElement.dataset.theme ?? "auto");
/** What is shown: "light" or "dark". */
export const shownTheme = new Value("light");

function show() {
  const chosen = chosenTheme.get();
  shownTheme.set(chosen === "auto" ? (system.matches ? "dark" : "light") : chosen);
}

export function chooseTheme(theme) {
  if (theme === "auto") {
    localStorage.removeItem(KEY);
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem(KEY, theme);
    document.documentElement.dataset.theme = theme;
  }
  chosenTheme.set(theme);
  show();
}

export const nextTheme = () => chooseTheme(ORDER[(ORDER.indexOf(chosenTheme.get()) + 1) % ORDER.length]);

system.addEventListener("change", show);
show();
