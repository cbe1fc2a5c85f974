import { useEffect } from "preact/hooks";
import { get } from "./api.js";
import { Commands, curl, zn } from "./commands.js";
import { count, line, span } from "./format.js";
import { State } from "./icons.js";
import { processes } from "./live.js";
import { useValue } from "./store.js";
import { Empty, Head, Loading, Table, html, sentence, useLoaded, useNow } from "./ui.js";

/** How a check looks, in words. */
function way({ argv = [], port, path }) {
  if (argv.length) return line(argv);
  return path ? `GET ${path} at port ${port}` : `TCP port ${port}`;
}

export function Checks() {
  const { data, error, reload } = useLoaded(() => get("/v1/checks"));
  const now = useNow();
  const seen = useValue(processes);
  useEffect(() => {
    reload();
  }, [seen]);
  return html`<${Head} title="Checks"><${Commands} commands=${commands} /><//>
    <${Loading} data=${data} error=${error} />
    ${data && !data.checks.length && html`<${Empty} title="The plan has no check."><p>A layer of the plan may declare some: see <a href="#/plan">Plan</a>.</p><//>`}
    ${data?.checks.length > 0 && html`<${Table} columns=${["Check", "State", "Why", "Looks", "If unhealthy", "Failures", "Since"]} numbers=${["Failures", "Since"]}>${data.checks.map((check) => html`<tr key=${check.name}>
        <th scope="row"><strong>${check.name}</strong><span class="detail">of <a href="#/processes/${check.spec.process}">${check.spec.process}</a></span></th>
        <td><${State} state=${check.state} /></td>
        <td class="why">${sentence(check.why)}</td>
        <td><code>${way(check.spec)}</code><span class="detail">every ${check.spec.interval ?? 10} s, ${count(check.spec.retries ?? 3, "failure")} in a row count</span></td>
        <td><span class="what">If unhealthy</span>${check.spec.on_failure ?? "ignore"}</td>
        <td class="number"><span class="what">Failures</span>${check.failures}</td>
        <td class="number"><span class="what">Since</span>${span(now - check.since)}</td>
      </tr>`)}<//>`}`;
}

const commands = () => [{ title: "All checks", curl: curl("GET", "/v1/checks"), zn: zn("process checks") }];
