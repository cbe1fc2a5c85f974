"""Logs by filter and by format: pages, newline-delimited JSON, server-sent events and text from the same address."""

import asyncio
import hashlib
import json
import os
import signal
import time
from typing import Any

import aiohttp
import pytest

from corex.process import sift
from corex.process.sift import PatternError, sieve
from corex.wire.api import LogGap, LogLine, LogSieve

LINES = [
    LogLine(order=1, seq=1, time=10.0, process="web", stream="stdout", text="GET / 200"),
    LogLine(order=2, seq=1, time=11.0, process="db", stream="stderr", text="slow query"),
    LogGap(lost=3),
    LogLine(order=6, seq=5, time=12.0, process="web", stream="stderr", text="GET /x 404"),
]


@pytest.mark.parametrize(
    ("wanted", "processes", "orders"),
    [
        ({"stream": "stderr"}, (), [2, 6]),
        ({}, ("web",), [1, 6]),
        ({"since": 11.0}, (), [2, 6]),
        ({"until": 12.0}, (), [1, 2]),
        ({"match": r"GET .* 4\d\d$"}, (), [6]),
        ({"match": "GET", "until": 11.5}, ("web", "db"), [1]),
    ],
)
def test_what_is_wanted_is_kept_and_every_gap(
    wanted: dict[str, Any], processes: tuple[str, ...], orders: list[int]
) -> None:
    keep = sieve(LogSieve(**wanted), frozenset(processes))
    assert keep is not None
    kept = keep(LINES)
    assert [one.order for one in kept if isinstance(one, LogLine)] == orders
    assert LogGap(lost=3) in kept


def test_without_a_wish_nothing_is_looked_at() -> None:
    assert sieve(LogSieve(), frozenset()) is None


def test_a_pattern_that_would_take_for_ever_ends_and_leaves_the_alarm_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    evil = sieve(LogSieve(match="(a+)+$"), frozenset())
    assert evil is not None
    line = LogLine(order=1, seq=1, time=0.0, process="web", stream="stdout", text="a" * 60 + "b")
    begun = time.process_time()
    with pytest.raises(PatternError, match="it takes more than"):
        evil([line])
    assert time.process_time() - begun < 30, "it would have taken years"
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_somebody_elses_alarm_does_not_end_it() -> None:
    def ring(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGALRM)
        return True

    assert sift._in_time(lambda: [one for one in LINES if ring()]) == LINES


@pytest.fixture
async def written(core: Any, sh: Any, browser: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """Somebody who asks, when two processes have written what they have to say."""
    await core.client.put("a", sh("echo one; echo two >&2; echo three; sleep 100"))
    await core.client.put("b", sh("echo other; sleep 100"))
    await core.client.start("a")
    await core.output("a", 3)
    await core.client.start("b")
    await core.output("b", 1)
    return browser


async def ask(
    http: aiohttp.ClientSession, path: str, accept: str = "", **headers: str
) -> tuple[int, str, str]:
    wanted = {"Accept": accept, **headers} if accept else headers
    async with http.get(path, headers=wanted) as answer:
        return answer.status, answer.content_type, await answer.text()


@pytest.mark.root
async def test_one_address_has_a_page_and_text_by_what_is_accepted(written: aiohttp.ClientSession) -> None:
    status, kind, text = await ask(written, "/v1/logs")
    assert (status, kind) == (200, "application/json")
    assert {one["text"] for one in json.loads(text)["records"]} == {"one", "two", "three", "other"}
    path = "/v1/logs?process=a&stream=stdout"
    assert await ask(written, path, "text/plain") == (200, "text/plain", "a: one\na: three\n")
    path = "/v1/processes/a/logs?match=^t"
    _, _, text = await ask(written, path, "text/plain")
    assert sorted(text.split()) == ["three", "two"]
    _, _, text = await ask(written, "/v1/logs?process=a&process=b&since=1e12")
    assert json.loads(text) == {"records": [], "next": 4}, "the cursor goes on"
    _, _, text = await ask(written, "/v1/processes/a/logs?tail=1", "text/plain")
    assert len(text.splitlines()) == 1
    _, _, text = await ask(written, "/v1/logs?tail=2")
    assert [one["order"] for one in json.loads(text)["records"]] == [3, 4], "what is left out is no gap"
    _, _, text = await ask(written, "/v1/logs?tail=2&after=3")
    assert [one["order"] for one in json.loads(text)["records"]] == [4]


async def pieces(http: aiohttp.ClientSession, path: str, accept: str, until: str, **headers: str) -> str:
    seen = ""
    async with asyncio.timeout(20), http.get(path, headers={"Accept": accept, **headers}) as answer:
        assert answer.content_type == accept
        while until not in seen:
            seen += (await answer.content.readany()).decode()
    return seen


@pytest.mark.root
async def test_lines_come_as_events_and_go_on_where_a_browser_lost_them(
    written: aiohttp.ClientSession,
) -> None:
    path, kind = "/v1/processes/a/logs", "text/event-stream"
    seen = await pieces(written, path, kind, "id: 3\n")
    assert seen.count("event: line\n") == 3
    first = seen.split("\n\n")[0].split("\n")
    assert first[0] == "id: 1"
    assert json.loads(first[2].removeprefix("data: "))["seq"] == 1
    again = await pieces(written, path, kind, "id: 3\n", **{"Last-Event-ID": "2"})
    assert again.startswith("id: 3\n")
    rows = await pieces(written, path, "application/x-ndjson", "three")
    assert [json.loads(row)["seq"] for row in rows.splitlines()] == [1, 2, 3]
    events = await pieces(written, "/v1/events", kind, '"process":"b","state":"running"')
    assert events.startswith("id: 1\nevent: event\ndata: {")


@pytest.mark.root
async def test_bad_wishes_are_refused_by_name(core: Any, written: aiohttp.ClientSession) -> None:
    for query, why in (
        ("match=(", "cannot use parameter 'match': it is no regular expression"),
        ("match=" + "a" * 300, "parameter `match`"),
        ("stream=both", "parameter `stream`"),
        ("process=A_B", "parameter `process[0]`"),
        ("since=now", "parameter `since`"),
    ):
        status, _, text = await ask(written, f"/v1/logs?{query}")
        assert status == 422, query
        assert why in json.loads(text)["detail"], text
    spec = {"role": "viewer", "token_sha256": hashlib.sha256(b"v" * 43).hexdigest()}
    async with written.put("/v1/identities/somebody", json=spec) as answer:
        assert answer.status == 201
    theirs = {"Authorization": f"Bearer {'v' * 43}"}
    assert (await ask(written, "/v1/logs", **theirs))[0] == 200
    status, _, text = await ask(written, "/v1/logs?match=a", **theirs)
    assert (status, "needs the role operator" in text) == (403, True)
