"""What the lives of processes share."""

import asyncio
from collections.abc import Callable

import msgspec

from corex.process.clock import WallClock
from corex.process.events import Events
from corex.process.figures import Figures
from corex.process.groups import Groups
from corex.process.logs import Logs
from corex.process.reap import Reaper
from corex.process.spawn import Spawner


class World(msgspec.Struct, frozen=True):
    """What lives share.

    Attributes:
        loop: the event loop; its time() is the monotonic clock, in seconds.
        spawner: starts children.
        reaper: tells of their ends.
        logs: takes their output.
        events: takes the states they enter.
        wall_clock: seconds since 1970 UTC.
        jitter: a random number from 0 to 1 at each call.
        alarms: wakes at moments of the wall clock.
        figures: who is whose child, and what they use.
        groups: cgroups of single processes, if Core-X may make them.
    """

    loop: asyncio.AbstractEventLoop
    spawner: Spawner
    reaper: Reaper
    logs: Logs
    events: Events
    wall_clock: Callable[[], float]
    jitter: Callable[[], float]
    alarms: WallClock
    figures: Figures
    groups: Groups
