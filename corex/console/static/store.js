// Values that views watch.

import { useEffect, useReducer, useRef } from "preact/hooks";

/** A value, and those who are told when it changes. */
export class Value {
  #value;
  #watchers = new Set();

  constructor(value) {
    this.#value = value;
  }

  get() {
    return this.#value;
  }

  set(value) {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const watcher of [...this.#watchers]) watcher();
  }

  /** Returns what ends it. */
  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}

/** What a value is now; the view is drawn anew when that changes. */
export function useValue(value, select = (whole) => whole) {
  const [, draw] = useReducer((count) => count + 1, 0);
  const selected = select(value.get());
  const shown = useRef(selected);
  shown.current = selected;
  const choose = useRef(select);
  choose.current = select;
  useEffect(() => {
    const look = () => {
      if (!Object.is(choose.current(value.get()), shown.current)) draw();
    };
    look();
    return value.watch(look);
  }, [value]);
  return selected;
}
