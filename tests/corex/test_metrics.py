"""Figures as OpenMetrics, on a real Core-X."""

import hashlib
import re
from typing import Any

import aiohttp
import pytest

from corex.rest.metrics import OPENMETRICS

pytestmark = pytest.mark.root
# exposition = *metricset "# EOF" in the specification's grammar, as far as it is used here
_SAMPLE = re.compile(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+')
_META = re.compile(r"# (TYPE|UNIT|HELP) ([a-z_]+) (.+)")


async def test_figures_are_for_those_who_may_see_nothing_else(
    core: Any, sh: Any, browser: aiohttp.ClientSession
) -> None:
    await core.client.put("web", sh("echo up; sleep 100"))
    await core.client.put("never", sh("true"))
    await core.client.start("web")
    await core.output("web", 1)
    spec = {"role": "metrics", "token_sha256": hashlib.sha256(b"m" * 43).hexdigest()}
    async with browser.put("/v1/identities/prometheus", json=spec) as answer:
        assert answer.status == 201
    theirs = {"Authorization": f"Bearer {'m' * 43}"}
    async with browser.get("/v1/processes", headers=theirs) as answer:
        assert answer.status == 403
    async with browser.get("/v1/metrics", headers=theirs) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, OPENMETRICS)
        text = await answer.text()
    *lines, end = text.splitlines()
    assert end == "# EOF"
    described: list[str] = []
    for line in lines:
        meta = _META.fullmatch(line)
        if meta and meta[1] == "TYPE":
            assert meta[2] not in described, "families do not mingle"
            described.append(meta[2])
        elif meta:
            assert meta[2] == described[-1]
        else:
            assert _SAMPLE.fullmatch(line), line
            assert line.startswith(described[-1])
    assert 'corex_process_state{process="web",corex_process_state="running"} 1' in lines
    assert 'corex_process_state{process="never",corex_process_state="running"} 0' in lines
    assert "corex_log_lines_total 1" in lines
    assert any(re.match(r'corex_process_memory_bytes\{process="web"\} \d+', line) for line in lines)
