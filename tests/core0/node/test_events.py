"""The ring of events: cursors, what was lost, waiting, and what reaches the console."""

import asyncio

import pytest

from core0.node.events import EventRing


def ring_of(count: int, kept: int = 3) -> EventRing:
    ring = EventRing(kept)
    for number in range(1, count + 1):
        ring("test", "subject", f"event {number}")
    return ring


@pytest.mark.parametrize(
    ("count", "after", "found", "cursor", "lost"),
    [
        pytest.param(0, 0, [], 0, 0, id="nothing happened"),
        pytest.param(2, 0, [1, 2], 2, 0, id="from the start"),
        pytest.param(2, 1, [2], 2, 0, id="behind the first"),
        pytest.param(2, 2, [], 2, 0, id="nothing new"),
        pytest.param(3, 0, [1, 2, 3], 3, 0, id="just full"),
        pytest.param(5, 0, [3, 4, 5], 5, 2, id="two dropped unread"),
        pytest.param(5, 1, [3, 4, 5], 5, 1, id="one dropped unread"),
        pytest.param(5, 2, [3, 4, 5], 5, 0, id="dropped but read"),
        pytest.param(2, 70, [1, 2], 2, 0, id="cursor of an earlier daemon"),
    ],
)
def test_a_cursor_finds_what_is_behind_it(
    count: int, after: int, found: list[int], cursor: int, lost: int
) -> None:
    events = ring_of(count).after(after)
    assert [event.cursor for event in events.events] == found
    assert (events.cursor, events.lost) == (cursor, lost)


async def test_who_waits_gets_the_first_event_that_comes() -> None:
    ring = ring_of(2)
    waiting = asyncio.create_task(ring.wait_after(2, 30))
    await asyncio.sleep(0)
    ring("test", "subject", "news")
    assert [event.message for event in (await waiting).events] == ["news"]


@pytest.mark.parametrize("after", [0, 1, 70])
async def test_nobody_waits_when_there_is_something_to_read(after: int) -> None:
    async with asyncio.timeout(5):
        assert (await ring_of(2).wait_after(after, 30)).events


@pytest.mark.parametrize("after", [0, 70])
async def test_a_new_daemon_s_first_event_ends_every_wait(after: int) -> None:
    ring = ring_of(0)
    waiting = asyncio.create_task(ring.wait_after(after, 30))
    await asyncio.sleep(0)
    ring("test", "subject", "first")
    async with asyncio.timeout(5):
        assert [event.cursor for event in (await waiting).events] == [1]


async def test_a_wait_ends_without_news_at_its_time() -> None:
    events = await ring_of(2).wait_after(2, 0.01)
    assert (events.events, events.cursor) == ((), 2)


def test_a_stranger_s_text_writes_no_lines_on_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    EventRing()("image", "demo", "refused\nzn: phase ready done at 1.000s\x1b[2J")
    printed = capfd.readouterr().out
    assert printed.count("\n") == 1
    assert "\x1b" not in printed
    assert printed.startswith("zn: image demo: refused�zn: phase")
