"""What chronyd is told, and what is heard of what it says. Pure.

Source: chrony.conf(5) and chronyd(8) of chrony 4.6.
"""

from collections.abc import Sequence

from core0.wire.clock import ClockConfig

# Debian's own zone of the NTP pool, whose package of chrony asks there, too.
_POOL = "2.debian.pool.ntp.org"
# What an operator wants to know of its log: who is followed, what happened to the clock, and what cannot be.
_NOTABLE = ("Selected source", "System clock", "Can't synchronise", "Fatal error", "Could not", "Invalid")
_LONGEST = 200


def servers(config: ClockConfig, leased: Sequence[str]) -> tuple[str, ...]:
    """Whom to ask: what the config names, else what DHCP named; nobody is the public pool."""
    return tuple(dict.fromkeys(config.servers or leased))


def configuration(asked: Sequence[str], folder: str) -> str:
    """The text of chrony.conf for a client that nobody asks or steers.

    The clock is stepped, however far, in the first three updates; later it only runs faster or slower.

    Args:
        asked: names and addresses of servers.
        folder: where chronyd may write.
    """
    sources = [f"server {server} iburst" for server in asked] or [f"pool {_POOL} iburst maxsources 4"]
    fixed = ("makestep 1 3", "rtcsync", "port 0", "cmdport 0", "bindcmdaddress /")
    own = (f"driftfile {folder}/drift", f"pidfile {folder}/chronyd.pid")
    return "".join(f"{line}\n" for line in (*sources, *fixed, *own))


def notable(line: str) -> str | None:
    """What is worth telling of a line of chronyd's log, without its time; names in it are a stranger's words."""
    _, _, said = line.strip().partition(" ")
    if not said.startswith(_NOTABLE):
        return None
    return "".join(letter for letter in said if letter.isprintable())[:_LONGEST]


def in_words(within: float | None, asked: Sequence[str]) -> str:
    """One plain sentence for the node's health.

    Args:
        within: seconds that the clock may be off at most; None if nothing keeps it right.
        asked: whom chronyd asks.
    """
    whom = ", ".join(asked) or f"the public pool {_POOL}"
    if within is None:
        return f"it goes by the machine's own clock: no answer yet from {whom}"
    return f"it follows {whom}, and is off by {within:.3f} s at most"
