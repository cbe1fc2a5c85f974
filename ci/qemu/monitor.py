"""QEMU's monitor: commands, events and jobs over QMP, each with a deadline and an error with its cause.

Follows docs/interop/qmp-spec and the QAPI reference of QEMU.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError, StateError

# QEMU answers from its main loop: seconds pass only when the host is out of memory or CPU time.
_ANSWER_SECONDS = 30.0


class MonitorError(Exception):
    """QEMU refused a command, did not answer, or is gone."""


class Monitor:
    """The one connection to a machine's QMP socket."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._client = QMPClient(machine)

    async def connect(self, connection: socket.socket) -> None:
        """Negotiate with the QEMU at the other end of a connected socket.

        Raises:
            MonitorError: no greeting came.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._client.connect(connection)
        except (ConnectError, TimeoutError) as error:
            raise MonitorError(f"cannot reach the monitor of machine {self._machine}: {error}") from error

    async def close(self) -> None:
        """Drop the connection. That QEMU may have ended first is no error here."""
        with suppress(QMPError, EOFError, OSError):
            await self._client.disconnect()

    async def execute(
        self, command: str, given: Mapping[str, object] = MappingProxyType({}), /, **arguments: object
    ) -> Any:
        """Run a QMP command and return its value.

        Args:
            command: the command's name.
            given: arguments in QEMU's own words: devices and old commands have names with underscores.
            **arguments: more arguments; underscores stand for QMP's hyphens.

        Raises:
            MonitorError: QEMU refused, is gone, or did not answer in time.
        """
        words = {**given, **{key.replace("_", "-"): value for key, value in arguments.items()}}
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._client.execute(command, words)
        except TimeoutError:
            cause = f"no answer within {_ANSWER_SECONDS:.0f} s"
        except ExecuteError as error:
            cause = str(error)
        except (ExecInterruptedError, StateError):
            cause = "QEMU has ended"
        raise MonitorError(f"cannot {command} on machine {self._machine}: {cause}")

    async def human(self, line: str) -> str:
        """Run a command of the human monitor, for the few things QMP lacks; returns what it prints."""
        return str(await self.execute("human-monitor-command", command_line=line))

    @asynccontextmanager
    async def expect(
        self, event: str, deadline: float, accept: Callable[[Mapping[str, Any]], bool] = lambda data: True
    ) -> AsyncIterator[None]:
        """Run the body, then wait for the event that it causes; an event during the body counts.

        Args:
            event: the QMP event's name.
            deadline: seconds of real time to wait after the body.
            accept: which of these events, by its data.
        """

        def accepted(message: Mapping[str, Any]) -> bool:
            return accept(message.get("data", {}))

        with self._client.listener(event, accepted) as listener:
            yield
            try:
                async with asyncio.timeout(deadline):
                    await listener.get()
            except TimeoutError:
                raise MonitorError(
                    f"cannot see {event} of machine {self._machine}: nothing within {deadline:.0f} s"
                ) from None

    async def run_job(self, command: str, job: str, deadline: float, **arguments: object) -> None:
        """Start a background job, wait until it concludes, and dismiss it.

        Raises:
            MonitorError: the job failed or took too long.
        """

        def concluded(data: Mapping[str, Any]) -> bool:
            return bool(data["id"] == job and data["status"] == "concluded")

        async with self.expect("JOB_STATUS_CHANGE", deadline, concluded):
            await self.execute(command, job_id=job, **arguments)
        failure = next(
            (found.get("error") for found in await self.execute("query-jobs") if found["id"] == job), None
        )
        await self.execute("job-dismiss", id=job)
        if failure:
            raise MonitorError(f"cannot {command} on machine {self._machine}: {failure}")
