// Small charts of a process's figures. The library that draws them is loaded on first use.

import { useEffect, useRef } from "preact/hooks";
import { clock } from "./format.js";
import { histories, processes } from "./live.js";
import { useValue } from "./store.js";
import { shownTheme } from "./themes.js";
import { html } from "./ui.js";

const HEIGHT = 130;
// Steps of an axis of bytes.
const BINARY = Array.from({ length: 40 }, (_, power) => 2 ** power);
// Where browsers ask for proof that an address of a script is meant: this one is.
const trusted = globalThis.trustedTypes?.createPolicy("console", { createScriptURL: (url) => url });
let library = null;

function load() {
  library ??= new Promise((done, fail) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "vendor/uplot.css" });
    const script = document.createElement("script");
    script.src = trusted ? trusted.createScriptURL("vendor/uplot.js") : "vendor/uplot.js";
    script.onload = () => done(globalThis.uPlot);
    script.onerror = fail;
    document.head.append(link, script);
  });
  return library;
}

/** A process's samples over time: `at` is the place of the figure in a sample, `least` the least top of its scale. */
export function Chart({ name, title, at, least, show }) {
  const element = useRef();
  const plot = useRef(null);
  const theme = useValue(shownTheme);
  useValue(processes);
  const samples = histories.get(name) ?? [];
  const data = [samples.map(([time]) => time), samples.map((sample) => sample[at])];
  const known = data[1].filter((value) => value !== null);
  useEffect(() => {
    let over = false;
    const fit = new ResizeObserver(([entry]) => plot.current?.setSize({ width: entry.contentRect.width, height: HEIGHT }));
    load().then((Plot) => {
      if (over) return;
      plot.current = new Plot(options(element.current, least, show), data, element.current);
      fit.observe(element.current);
    }, () => {});
    return () => {
      over = true;
      fit.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [theme, name]);
  useEffect(() => plot.current?.setData(data));
  const told = known.length ? `now ${show(known.at(-1))}, at most ${show(Math.max(...known))}` : "nothing measured yet";
  return html`<figure class="chart">
    <figcaption><strong>${title}</strong> <span class="muted">${told}</span></figcaption>
    <div ref=${element} role="img" aria-label=${`${title}: ${told}`} />
  </figure>`;
}

/** From the first sample to the last, but at least a minute: of one sample uPlot would show a thousand days. */
function lastMinute(times) {
  const end = times.at(-1) ?? Date.now() / 1000;
  return [Math.min(times[0] ?? end, end - 60), end];
}

function options(element, least, show) {
  const color = (name) => getComputedStyle(element).getPropertyValue(name).trim();
  // Canvases know no light-dark(): a property of the element that has it is computed by the browser.
  const probe = document.createElement("span");
  element.append(probe);
  const computed = (name) => {
    probe.style.color = color(name);
    return getComputedStyle(probe).color;
  };
  const [accent, tint, line, muted] = ["--accent", "--tint", "--line", "--muted"].map(computed);
  probe.remove();
  const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: `11px ${color("--sans")}` };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { show: true } },
    padding: [8, 26, 0, 0],
    scales: { x: { range: ({ data: [times] }) => lastMinute(times) }, y: { range: (_plot, _least, most) => [0, Math.max(least, (most ?? 0) * 1.15)] } },
    axes: [
      { ...axis, size: 24, space: 90, values: (_plot, times) => times.map((time) => clock(time).slice(0, 8)) },
      { ...axis, size: 62, space: 34, values: (_plot, values) => values.map(show), ...(least > 1 && { incrs: BINARY }) },
    ],
    series: [{}, { stroke: accent, fill: tint, width: 1.5, points: { show: false } }],
  };
}
