"""Process types shared by Core-X, its client and the node."""

from typing import Annotated, Literal

import msgspec

ProcessName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)")]

RestartPolicy = Literal["always", "on-failure", "never"]


class ProcessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to run: an argument vector, never a shell string.

    Attributes:
        argv: the program and its arguments; a program without a slash is looked up in env's PATH.
        env: the whole environment of the process.
        cwd: working directory inside the container.
        user: `uid`, `uid:gid`, `name` or `name:group`, resolved in the container's /etc.
        restart: what follows an exit.
        stop_signal: the signal that asks it to end, by name or number as in signal(7).
        stop_timeout: seconds from the stop signal to SIGKILL.
    """

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    cwd: str = "/"
    user: str = "0"
    restart: RestartPolicy = "never"
    stop_signal: str = "SIGTERM"
    stop_timeout: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
