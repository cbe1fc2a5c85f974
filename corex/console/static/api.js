// Talking to Core-X: requests, problems, streams. The token lives in this tab's session storage, and in no URL.

const KEY = "token";

/** What Core-X refused: a problem of RFC 9457. */
export class Problem extends Error {
  constructor(status, body, headers) {
    super(body.detail ?? `Core-X answered ${status}`);
    this.status = status;
    this.title = body.title ?? "";
    this.remedy = body.remedy ?? "";
    this.pointer = body.pointer;
    this.retryAfter = Number(headers.get("Retry-After") ?? 0);
  }
}

/** Nothing answered. */
export class Unreachable extends Error {
  constructor() {
    super("Core-X does not answer");
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
};

let refused = () => {};

/** Have somebody told when the token is not right any more. */
export function whenRefused(listener) {
  refused = listener;
}

/** A path with a query: values that are lists come once for each. */
export function url(path, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).filter((one) => one !== undefined && one !== "").map((one) => [name, one]),
  );
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

/** An answer as it is, to be read by who asks. */
export async function send(method, path, { body, headers = {}, signal, bearer = token.get() } = {}) {
  const sent = { Accept: "application/json", Authorization: `Bearer ${bearer}`, ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const options = { method, headers: sent, signal, cache: "no-store", credentials: "omit", redirect: "error" };
  if (body !== undefined) options.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (answer.ok) return answer;
  const problem = new Problem(answer.status, await answer.json().catch(() => ({})), answer.headers);
  if (answer.status === 401 && bearer === token.get()) refused(problem);
  throw problem;
}

/** Ask: what is answered, its ETag, and its status. */
export async function ask(method, path, options) {
  const answer = await send(method, path, options);
  const text = await answer.text().catch(() => {
    throw new Unreachable();
  });
  return { data: text ? JSON.parse(text) : null, etag: answer.headers.get("ETag"), status: answer.status };
}

/** What is answered to a GET. */
export async function get(path, options) {
  return (await ask("GET", path, options)).data;
}

export const post = (path, body, options) => ask("POST", path, { ...options, body });
export const put = (path, body, options) => ask("PUT", path, { ...options, body });
export const remove = (path, options) => ask("DELETE", path, options);

/** Send a file's bytes, and tell how many of them are on their way. A browser's fetch would not tell. */
export function upload(path, content, { headers = {}, signal, tell = () => {} } = {}) {
  const bearer = token.get();
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("PUT", path);
    const sent = { Accept: "application/json", Authorization: `Bearer ${bearer}`, "Content-Type": "application/octet-stream", ...headers };
    for (const [name, value] of Object.entries(sent)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => tell(event.loaded);
    request.onerror = () => fail(new Unreachable());
    request.onabort = () => fail(new DOMException("it was cancelled", "AbortError"));
    request.onload = () => {
      const { status } = request;
      let data = null;
      try {
        data = JSON.parse(request.responseText);
      } catch {
        data = {};
      }
      if (status < 300) {
        done({ data, etag: request.getResponseHeader("ETag"), status });
        return;
      }
      const problem = new Problem(status, data, { get: (name) => request.getResponseHeader(name) });
      if (status === 401 && bearer === token.get()) refused(problem);
      fail(problem);
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(content);
  });
}

// Core-X breaks the silence of server-sent events each 15 s.
const SILENCE = 40_000;

/** The lines of an answer that has no end; throws Unreachable when the connection breaks, or is silent for too long. */
async function* lines(path, accept, signal, silence) {
  const quiet = new AbortController();
  const answer = await send("GET", path, { headers: { Accept: accept }, signal: AbortSignal.any([signal, quiet.signal]) });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let timer;
  try {
    while (true) {
      timer = silence && setTimeout(() => quiet.abort(), silence);
      const { value, done } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      const found = (rest + value).split("\n");
      rest = found.pop();
      yield found;
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Unreachable();
  } finally {
    clearTimeout(timer);
    quiet.abort();
  }
}

/** Records of a stream of JSON lines, as many at a time as came together. */
export async function* records(path, signal) {
  for await (const found of lines(path, "application/x-ndjson", signal)) {
    yield found.filter(Boolean).map((line) => JSON.parse(line));
  }
}

/** Server-sent events: what each has as data, as many at a time as came together. */
export async function* events(path, signal) {
  for await (const found of lines(path, "text/event-stream", signal, SILENCE)) {
    yield found.filter((line) => line.startsWith("data: ")).map((line) => JSON.parse(line.slice(6)));
  }
}
