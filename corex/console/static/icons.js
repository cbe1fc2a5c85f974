// Icons, drawn by one path each on a grid of 16.

import { html } from "./html.js";

const PATHS = {
  processes: "M2.5 3.5h11v3h-11zM2.5 9.5h11v3h-11zM5 5h.01M5 11h.01",
  logs: "M3 4h10M3 8h10M3 12h6",
  shell: "M2.5 3h11v10h-11zM5 6l2 2-2 2M8.5 10.5H11",
  checks: "M1.5 8h3l2-4.5 3 9L11.5 8h3",
  events: "M8 3.5v4.5l3 1.8M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13",
  plan: "M8 1.8l6 3.2-6 3.2-6-3.2zM2.3 8.2L8 11.2l5.7-3M2.3 11.2L8 14.2l5.7-3",
  access: "M5 11a3 3 0 1 1 2.6-4.5H14v2.5h-1.5V11h-2V9H7.6A3 3 0 0 1 5 11M5 8h.01",
  files: "M2 3.5h4.2l1.4 1.7H14v7.6H2z",
  file: "M4 1.8h5l3 3v9.4H4zM9 1.8v3h3",
  link: "M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2.2-2.2A2.6 2.6 0 0 0 9 3.3L8 4.3M9.2 6.8a2.6 2.6 0 0 0-3.7 0L3.3 9A2.6 2.6 0 0 0 7 12.7l1-1",
  other: "M8 2.5l5.5 5.5L8 13.5 2.5 8z",
  download: "M8 2.5v7.5M4.8 7L8 10.2 11.2 7M2.5 13.5h11",
  upload: "M8 10.5V3M4.8 6L8 2.8 11.2 6M2.5 13.5h11",
  start: "M5 3.3l7.5 4.7L5 12.7z",
  stop: "M4 4h8v8H4z",
  restart: "M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3",
  add: "M8 3v10M3 8h10",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3L14 14",
  copy: "M6 6h7.5v7.5H6zM3.5 10H2.5V2.5H10v1",
  code: "M5.5 4.5L2 8l3.5 3.5M10.5 4.5L14 8l-3.5 3.5",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  dark: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5",
  auto: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2M8 2v12",
  leave: "M6.5 2.5h-4v11h4M10.5 5l3 3-3 3M13 8H6",
  back: "M9.5 3.5L5 8l4.5 4.5",
  close: "M4 4l8 8M12 4l-8 8",
  edit: "M11 2.5l2.5 2.5-8 8-3 .5.5-3z",
  remove: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.7 9h5.6l.7-9",
  signal: "M9 1.5L3.5 9H8l-1 5.5L12.5 7H8z",
  undo: "M6 3L2.5 6.5 6 10M2.5 6.5H10a3.5 3.5 0 0 1 0 7H6",
  reset: "M3 8a5 5 0 1 0 1.5-3.6M3 2v3h3",
  down: "M8 3v10M4 9l4 4 4-4",
  watch: "M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8M8 6.3a1.7 1.7 0 1 0 0 3.4 1.7 1.7 0 0 0 0-3.4",
};

/** A decorative icon: what it stands for is said beside it, or by the control's name. */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}

// Each state has a shape of its own, so that nobody needs to tell colours.
const SHAPES = {
  ready: html`<circle cx="6" cy="6" r="5" /><path class="cut" d="M3.6 6.2l1.7 1.7 3.2-3.5" />`,
  running: html`<circle cx="6" cy="6" r="5" />`,
  starting: html`<circle class="ring" cx="6" cy="6" r="4.2" stroke-dasharray="2.2 2.2" />`,
  stopping: html`<circle class="ring" cx="6" cy="6" r="4.2" stroke-dasharray="2.2 2.2" />`,
  waiting: html`<circle class="ring" cx="6" cy="6" r="4.2" /><path class="ring" d="M6 3.8V6l1.5 1" />`,
  scheduled: html`<circle class="ring" cx="6" cy="6" r="4.2" /><path class="ring" d="M6 3.8V6l1.5 1" />`,
  backoff: html`<path d="M6 .8L11.7 11H.3z" /><path class="cut" d="M6 4.5v3M6 9.2v.01" />`,
  failed: html`<path d="M3.7.5h4.6l3.2 3.2v4.6l-3.2 3.2H3.7L.5 8.3V3.7z" /><path class="cut" d="M4 4l4 4M8 4L4 8" />`,
  exited: html`<path class="ring" d="M2 6.3l2.8 2.8L10 3.3" />`,
  stopped: html`<rect class="ring" x="2" y="2" width="8" height="8" rx="1" />`,
  healthy: html`<path d="M6 10.8S.8 7.8.8 4.3A2.7 2.7 0 0 1 6 3.3a2.7 2.7 0 0 1 5.2 1c0 3.5-5.2 6.5-5.2 6.5z" />`,
  unhealthy: html`<path d="M6 .8L11.7 11H.3z" /><path class="cut" d="M6 4.5v3M6 9.2v.01" />`,
};

// States of other things than processes, by the shapes of those that mean the same.
for (const [state, like] of [["succeeded", "exited"], ["cancelled", "stopped"], ["idle", "stopped"], ["sending", "running"], ["retrying", "backoff"]]) SHAPES[state] = SHAPES[like];

/** A state: its shape, its colour, and its word. */
export function State({ state }) {
  return html`<span class="state" data-state=${state}>
    <svg viewBox="0 0 12 12" aria-hidden="true">${SHAPES[state]}</svg>${state}
  </span>`;
}
