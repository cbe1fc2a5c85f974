"""The console: lines from bytes, waits that end with the fact, and messages that show the last lines."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.qemu.console import Console, ConsoleError
from ci.qemu.trouble import find_trouble

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x1b"))


@given(st.lists(PRINTABLE), st.lists(st.integers(0, 400)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\r\n" for line in lines).encode()
    console = Console("m")
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, stop in pairwise(edges):
        console.feed(data[start:stop])
    assert console.lines == tuple(lines)


@given(st.binary())
def test_no_bytes_break_the_console(data: bytes) -> None:
    console = Console("m")
    console.feed(data)
    console.close()
    assert console.tail()


def test_terminal_codes_are_removed() -> None:
    console = Console("m")
    console.feed(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n\x1b[1;35mNameError\x1b[0m: x\r\n")
    assert console.lines == ("SeaBIOS", "NameError: x")


async def test_a_wait_ends_with_the_phase_and_its_detail() -> None:
    console = Console("m")
    waiting = asyncio.create_task(console.wait_for_phase("identity", 5))
    await asyncio.sleep(0)
    console.feed(b"noise\r\nzn: phase mounts done at 0.900s\r\nzn: phase identity do")
    console.feed(b"ne at 1.250s: sha256:ab\r\n")
    phase = await waiting
    assert (phase.at, phase.detail) == (1.25, "sha256:ab")


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        pytest.param(
            "zn: phase network failed at 2.000s: no link\n", "phase network failed: no link", id="phase"
        ),
        pytest.param(
            "[ 1.0] Kernel panic - not syncing\n", "the boot ended with '.*Kernel panic", id="panic"
        ),
        pytest.param("No bootable device.\n", "the boot ended with 'No bootable device", id="firmware"),
    ],
)
async def test_a_hopeless_boot_ends_the_wait_at_once(data: str, cause: str) -> None:
    console = Console("node1")
    console.feed(data.encode())
    with pytest.raises(ConsoleError, match=rf"cannot see phase ready of machine node1: {cause}"):
        await console.wait_for_phase("ready", 60)


async def test_the_end_of_the_machine_ends_the_wait_with_the_last_lines() -> None:
    console = Console("node1")
    waiting = asyncio.create_task(console.wait_for_line("never", 60))
    await asyncio.sleep(0)
    console.feed(b"last words\n")
    console.close()
    with pytest.raises(ConsoleError, match=r"the machine has ended; its console ends with\n  \| last words"):
        await waiting


async def test_a_deadline_ends_the_wait() -> None:
    with pytest.raises(ConsoleError, match="nothing within 0 s"):
        await Console("node1").wait_for_line("x", 0.01)


async def test_a_wait_from_a_later_line_ignores_what_came_before() -> None:
    console = Console("m")
    console.feed(b"ready 1\n")
    start = len(console.lines)
    console.feed(b"ready 2\n")
    assert await console.wait_for_line("ready", 5, start) == "ready 2"


@pytest.mark.parametrize(
    "line",
    [
        "[    1.2] BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "[    1.2] Oops: 0002 [#1] PREEMPT SMP",
        "[    1.2] Call Trace:",
        "[    3.6] Kernel panic - not syncing: Attempted to kill init!",
        "Traceback (most recent call last):",
        "zn: panic: cannot mount /proc: no such device",
    ],
)
def test_a_crash_is_trouble(line: str) -> None:
    assert find_trouble(["all well", line]) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "Kernel command line: quiet panic=10 zn.panic=60",
        "zn: Warning: unknown kernel parameter 'zn.x': ignored (known: zn.operator, zn.panic)",
        "calibrate_delay_direct() failed to get a good estimate for loops_per_jiffy.",
        "DEBUG: all well",
        "",
    ],
)
def test_ordinary_lines_are_no_trouble(line: str) -> None:
    assert find_trouble([line]) == []


def test_provoked_trouble_is_forgiven_and_must_occur() -> None:
    lines = ["[ 1.0] Kernel panic - not syncing: test", "[ 1.0] Call Trace:"]
    assert find_trouble(lines, ["Kernel panic"]) == ["[ 1.0] Call Trace:"]
    assert find_trouble([], ["Kernel panic"]) == [
        "expected on the console, but never printed: 'Kernel panic'"
    ]
