// What the container is now: read once, then kept by its events, with figures asked for while somebody looks.

import { Problem, events, get } from "./api.js";
import { Value } from "./store.js";

/** Who asks: name and role, or null before it is known. */
export const identity = new Value(null);
/** The container as GET /v1/system tells. */
export const system = new Value(null);
/** Processes by name, in the order of their declaration. */
export const processes = new Value(new Map());
/** The newest events, the oldest first. */
export const happened = new Value([]);
/** How many events were overwritten before they were read. */
export const missed = new Value(0);
/** Whether Core-X answers: "connecting", "live", or "lost" with when it is tried again. */
export const connection = new Value({ state: "connecting" });
/** By process: samples of [seconds since 1970, share of a processor, bytes], the oldest first. */
export const histories = new Map();

const KEPT_EVENTS = 2000;
const KEPT_SAMPLES = 900;
const EVERY = 2000;
const AGAIN = [500, 1000, 2000, 4000, 8000];

const MAY = {
  metrics: ["metrics"],
  viewer: ["metrics", "viewer"],
  operator: ["metrics", "viewer", "operator"],
  admin: ["metrics", "viewer", "operator", "admin"],
};

/** Whether the one who asks may do what needs a role. */
export function may(role) {
  const own = identity.get();
  return own !== null && MAY[own.role].includes(role);
}

/** Ask for a process, or for all, and take what is answered. */
export async function refresh(name) {
  if (name === undefined) {
    const [found, whole] = await Promise.all([get("/v1/processes"), get("/v1/system")]);
    const now = Date.now() / 1000;
    const before = processes.get();
    processes.set(new Map(found.processes.map((info) => [info.name, measured(info, before.get(info.name), now)])));
    for (const known of histories.keys()) if (!processes.get().has(known)) histories.delete(known);
    system.set({ ...whole, read: now });
    return;
  }
  try {
    take(await get(`/v1/processes/${name}`));
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) throw error;
    forget(name);
  }
}

/** Take a process for gone. */
export function forget(name) {
  const left = new Map(processes.get());
  left.delete(name);
  processes.set(left);
}

/** Take what Core-X told of a process. */
export function take(info) {
  const known = processes.get();
  processes.set(new Map(known).set(info.name, measured(info, known.get(info.name), Date.now() / 1000)));
}

/** The same with the share of a processor since the last look, and one more sample. */
function measured(info, before, now) {
  const used = info.usage?.cpu_seconds;
  if (used === undefined) return { ...info, measured: undefined };
  const last = before?.pid === info.pid ? before?.measured : undefined;
  if (last && now - last.time < 0.5) return { ...info, cpu: before.cpu, measured: last };
  const share = last && used >= last.used ? (used - last.used) / (now - last.time) : undefined;
  const samples = histories.get(info.name) ?? [];
  samples.push([now, share ?? null, info.usage.memory_bytes ?? null]);
  if (samples.length > KEPT_SAMPLES) samples.shift();
  histories.set(info.name, samples);
  return { ...info, cpu: share, measured: { time: now, used } };
}

let running = null;

/** Begin to watch, for the page's life or until `stop`. */
export function start() {
  running ??= new Watch();
}

/** Watch no more and forget all. */
export function stop() {
  running?.end();
  running = null;
  processes.set(new Map());
  system.set(null);
  happened.set([]);
  missed.set(0);
  histories.clear();
  connection.set({ state: "connecting" });
}

/** Try again now instead of later. */
export function again() {
  running?.hurry();
}

/** One watch over the container. A page that nobody sees asks nothing: browsers give a server six connections. */
class Watch {
  constructor() {
    this.cursor = 0;
    this.failures = 0;
    this.over = new AbortController();
    this.current = new AbortController();
    this.wake = () => {};
    this.seen = () => (document.hidden ? this.current.abort() : this.wake());
    document.addEventListener("visibilitychange", this.seen);
    addEventListener("online", this.seen);
    this.run();
  }

  end() {
    this.over.abort();
    this.current.abort();
    this.wake();
    document.removeEventListener("visibilitychange", this.seen);
    removeEventListener("online", this.seen);
  }

  hurry() {
    this.failures = 0;
    this.wake();
  }

  async run() {
    while (!this.over.signal.aborted) {
      this.current = new AbortController();
      try {
        await this.follow(this.current.signal);
        this.failures += 1;
      } catch (error) {
        if (error instanceof Problem && [401, 403].includes(error.status)) return;
        if (!document.hidden) this.failures += 1;
      } finally {
        this.current.abort();
      }
      if (this.over.signal.aborted) return;
      await this.pause();
    }
  }

  /** Until the page is seen again, or until it is time to try again. */
  async pause() {
    if (document.hidden) {
      await new Promise((done) => (this.wake = done));
      return;
    }
    const delay = AGAIN[Math.min(this.failures, AGAIN.length) - 1] ?? AGAIN[0];
    connection.set({ state: "lost", again: Date.now() + delay });
    let timer;
    await new Promise((done) => {
      this.wake = done;
      timer = setTimeout(done, delay);
    });
    clearTimeout(timer);
  }

  async follow(signal) {
    await refresh();
    connection.set({ state: "live" });
    this.failures = 0;
    this.poll(signal);
    for await (const found of events(`/v1/events?after=${this.cursor}`, signal)) await this.note(found);
  }

  async note(found) {
    if (!found.length) return;
    const told = found.filter((event) => event.seq !== undefined);
    missed.set(missed.get() + found.reduce((sum, event) => sum + (event.lost ?? 0), 0));
    this.cursor = told.at(-1)?.seq ?? this.cursor;
    happened.set([...happened.get(), ...told].slice(-KEPT_EVENTS));
    const names = new Set(told.filter((event) => this.isNews(event)).map((event) => event.process));
    const known = processes.get();
    if (names.size > 8 || [...names].some((name) => !known.has(name))) await refresh();
    else await Promise.all([...names].map((name) => refresh(name)));
  }

  /** Whether an event tells more than what is shown already. */
  isNews(event) {
    const known = processes.get().get(event.process);
    return !known || known.since <= event.time + 0.001;
  }

  /** Figures change without events: ask for them, the less often the longer the answer takes. */
  async poll(signal) {
    let pause = EVERY;
    while (!signal.aborted) {
      await new Promise((done) => setTimeout(done, pause));
      if (signal.aborted) return;
      const began = performance.now();
      try {
        await refresh();
      } catch {
        this.current.abort();
        return;
      }
      pause = Math.max(EVERY, 10 * (performance.now() - began));
    }
  }
}
