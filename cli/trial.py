"""A config on trial: given to the node, confirmed if the node still answers, and told when it went back."""

import asyncio
import re
import sys
import time

import typer

from cli.connect import call, node_client
from cli.frame import Settings
from cli.outcome import ExitCode, Failure
from core0.client.client import UnreachableError
from core0.wire.config import LONGEST_TRIAL, ConfigStatus, NodeConfig

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
# Seconds: for one answer, between two questions, and for a node that goes back until it is asked again in vain.
_PATIENCE, _PAUSE, _RETURN = 5.0, 0.5, 90.0


def seconds(text: str) -> float:
    """A time as `60s`, `5m` or `1h`.

    Raises:
        Failure: it is none, or no time for a trial.
    """
    found = re.fullmatch(r"([0-9]{1,6})([smh]?)", text)
    time_given = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= time_given <= LONGEST_TRIAL:
        said = f"cannot try a config for {text!r}; give a time from 1s to 1h, as 60s"
        raise Failure(said, ExitCode.USAGE)
    return float(time_given)


def apply(settings: Settings, config: NodeConfig, duration: float) -> ConfigStatus:
    """Try a config; what the node has in the end.

    Raises:
        Failure: if the node did not answer any more, or the person does not want the config: it went back, or will.
    """
    # a node that does not answer before has nothing to go back to
    before = call(settings, lambda client: client.config())
    ends = time.monotonic() + duration
    after = asyncio.run(_try(settings, config, duration, ends)) or asyncio.run(_return(settings, duration))
    if after.state != "trying":
        raise _explain(before, after, duration)
    if sys.stdin.isatty() and not typer.confirm("The node answers. Keep this config?", err=True):
        left = max(0.0, ends - time.monotonic())
        raise Failure(f"the config was not kept; the node goes back to the earlier one in {left:.0f} s")
    return call(settings, lambda client: client.confirm_config())


async def _try(settings: Settings, config: NodeConfig, duration: float, ends: float) -> ConfigStatus | None:
    """Give the config; what the node says when it is asked anew, None if it does not answer as long as it tries."""
    try:
        async with asyncio.timeout(_PATIENCE), node_client(settings) as client:
            await client.put_config(config, duration)
    except (UnreachableError, TimeoutError):  # the change may have cut the way of its own answer
        typer.echo("No answer yet: the change may have cut the connection", err=True)
    while time.monotonic() < ends:
        if status := await _status(settings, min(_PATIENCE, max(0.1, ends - time.monotonic()))):
            return status
        await asyncio.sleep(_PAUSE)
    return None


async def _status(settings: Settings, patience: float) -> ConfigStatus | None:
    """What a new connection to the node says; None if there is none."""
    try:
        async with asyncio.timeout(patience), node_client(settings) as client:
            return await client.config()
    except (UnreachableError, TimeoutError):
        return None


async def _return(settings: Settings, duration: float) -> ConfigStatus:
    """Wait for the node to answer again, without the config. Raises Failure if it does not."""
    said = f"The node did not answer for {duration:.0f} s; waiting for it to go back to the earlier config"
    typer.echo(said, err=True)
    ends = time.monotonic() + _RETURN
    while time.monotonic() < ends:
        status = await _status(settings, _PATIENCE)
        if status and status.state != "trying":
            return status
        await asyncio.sleep(_PAUSE)
    said = f"cannot reach the node, though it should have gone back {_RETURN:.0f} s ago; see its console"
    raise Failure(said, ExitCode.UNREACHABLE)


def _explain(before: ConfigStatus, after: ConfigStatus, duration: float) -> Failure:
    """Why the node does not try the config."""
    if after.trials <= before.trials:
        said = "the node does not try the config: it was lost before the node had it, or the node began anew since"
        return Failure(f"{said}; apply it again")
    said = f"with this config the node did not answer for {duration:.0f} s"
    return Failure(f"{said}, and it went back to the earlier one; correct the config's links")
