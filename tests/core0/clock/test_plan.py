"""What chronyd is told, and what of its log is told on."""

import pytest

from core0.clock import plan
from core0.wire.clock import ClockConfig

LEASED = ("192.0.2.1", "192.0.2.2", "192.0.2.1")


def test_the_config_counts_more_than_dhcp() -> None:
    assert plan.servers(ClockConfig(), LEASED) == ("192.0.2.1", "192.0.2.2")
    assert plan.servers(ClockConfig(("ntp.example.org",)), LEASED) == ("ntp.example.org",)


def test_servers_are_asked_quickly_and_nobody_asks_the_node() -> None:
    lines = plan.configuration(("192.0.2.1", "2001:db8::1"), "/run/zn/clock").splitlines()
    assert lines[:2] == ["server 192.0.2.1 iburst", "server 2001:db8::1 iburst"]
    assert {"makestep 1 3", "port 0", "cmdport 0", "bindcmdaddress /"} <= set(lines)


def test_without_servers_the_pool_is_asked() -> None:
    assert plan.configuration((), "/x").startswith("pool 2.debian.pool.ntp.org iburst maxsources 4\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2026-11-22T03:07:12Z Selected source 192.0.2.1 (a\x1b[31m)\n", "Selected source 192.0.2.1 (a[31m)"),
        ("1970-01-01T00:00:09Z System clock was stepped by 1.5 seconds", "System clock was stepped by 1.5 seconds"),
        ("2026-11-22T03:07:12Z Can't synchronise: no selectable sources", "Can't synchronise: no selectable sources"),
        ("2026-11-22T03:07:12Z Loaded seccomp filter (level 1)", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_an_operator_wants_to_know_is_told(line: str, said: str | None) -> None:
    assert plan.notable(line) == said


def test_the_state_is_one_sentence() -> None:
    assert plan.in_words(None, ()) == (
        "it goes by the machine's own clock: no answer yet from the public pool 2.debian.pool.ntp.org"
    )
    assert plan.in_words(0.0123, ("192.0.2.1",)) == "it follows 192.0.2.1, and is off by 0.012 s at most"
