"""`zn exec -it` and `zn attach`: this terminal as the terminal of a session inside a container."""

import asyncio
import contextlib
import os
import re
import signal
import stat
import sys
from typing import Annotated

import typer

from cli.connect import call_corex, corex_client
from cli.frame import Settings
from cli.keyboard import LEAVE, raw_terminal
from cli.outcome import Failure
from cli.output import Json, output_to, print_line, print_rows, print_text
from corex.client.client import Client, RefusedError
from corex.client.session import Attachment
from corex.process.model import exit_code_of
from corex.wire.sessions import ERRORS, SessionSpec, Window

# Seconds that a session waits for somebody who detached or whose connection broke.
KEEP = 600.0
_AT_ONCE = 64 * 1024
# Ids of sessions; a process with such a name is attached to by none.
_SESSION = re.compile(r"[0-9a-f]{16}")

Container = Annotated[str, typer.Argument(help="The container's name.")]


def run(settings: Settings, container: str, spec: SessionSpec) -> int:
    """Run a command in a session, and be attached to it; returns the exit code to end with."""

    async def work() -> int:
        async with corex_client(settings, container) as client:
            session = await client.create_session(spec)
            return await _attached(client, container, session.id, has_terminal=spec.window is not None)

    return asyncio.run(work())


def attach(
    ctx: typer.Context,
    container: Container,
    target: Annotated[str, typer.Argument(help="A process that has a terminal, or a session's id.")],
) -> None:
    """Attach to the terminal of a process, or to a session: what it wrote is shown again. Ctrl-] leaves it.

    A process is left as it is, and its restarts are gone along with; a session may have ended a moment ago.

    Example: zn attach demo web
    """

    async def work() -> int:
        async with corex_client(ctx.obj, container) as client:
            if not _SESSION.fullmatch(target):
                return await _attached_to_process(client, container, target)
            found = await client.session(target)
            return await _attached(client, container, target, has_terminal=found.spec.window is not None)

    raise typer.Exit(asyncio.run(work()))


def sessions(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """List a container's sessions.

    Example: zn process sessions demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.sessions())
    rows = [
        (one.id, one.state, one.pid or "", one.viewers, one.written, " ".join(one.spec.argv)) for one in found
    ]
    columns = ("id", "state", "pid", "viewers", "written", "argv")
    print_rows(found, columns, rows, "there is no session", as_json=as_json)


def hangup(
    ctx: typer.Context,
    container: Container,
    session: Annotated[str, typer.Argument(help="Its id, as `zn process sessions` lists it.")],
) -> None:
    """Hang a session up: its command gets SIGHUP, some seconds later SIGKILL.

    Example: zn process hangup demo 3f2a
    """
    call_corex(ctx.obj, container, lambda client: client.delete_session(session))
    print_line(f"Session {session} is hung up")


def window() -> Window:
    """The size of this terminal, or what is usual where there is none."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(stream.fileno())
            if columns and rows:
                return Window(rows, columns)
    return Window()


async def _attached(client: Client, container: str, session: str, *, has_terminal: bool) -> int:
    attachment = client.attach(session)
    if await _converse(attachment, has_terminal=has_terminal):
        print_text(f"\nDetached; zn attach {container} {session} comes back within {KEEP / 60:.0f} minutes")
        return 0
    with contextlib.suppress(RefusedError):  # somebody else has
        await client.delete_session(session)
    return _end(attachment, f"session {session}")


async def _attached_to_process(client: Client, container: str, name: str) -> int:
    attachment = client.attach_process(name)
    if await _converse(attachment, has_terminal=True):
        print_text(f"\nDetached; zn attach {container} {name} comes back")
        return 0
    return _end(attachment, f"process {name}")


async def _converse(attachment: Attachment, *, has_terminal: bool) -> bool:
    """Be attached until the command ends, or somebody wants to leave; whether that was it."""
    with raw_terminal() if has_terminal and sys.stdin.isatty() else contextlib.nullcontext():
        async with attachment:
            if has_terminal:
                await _follow_size(attachment)
            typing = asyncio.create_task(_type(attachment, detachable=has_terminal))
            showing = asyncio.create_task(_show(attachment, raw=has_terminal))
            done, _ = await asyncio.wait({typing, showing}, return_when=asyncio.FIRST_COMPLETED)
            detached = typing in done and typing.exception() is None and typing.result()
            if not detached:
                await showing
            for task in (typing, showing):
                task.cancel()
            await asyncio.gather(typing, showing, return_exceptions=True)
    return detached


def _end(attachment: Attachment, what: str) -> int:
    if attachment.lost:
        typer.echo(f"zn: {attachment.lost} bytes were overwritten before they were read", err=True)
    if attachment.exit is None:
        raise Failure(f"cannot follow {what}: it was ended")
    return exit_code_of(attachment.exit)


async def _follow_size(attachment: Attachment) -> None:
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def resized() -> None:
        task = loop.create_task(attachment.resize(window()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGWINCH, resized)
    await attachment.resize(window())


async def _show(attachment: Attachment, *, raw: bool) -> None:
    """Show what comes; what has a terminal of its own has this one, and may drive it."""
    with output_to(sys.stdout, raw=raw) as write, output_to(sys.stderr, raw=raw) as write_error:
        async for stream, data in attachment.output():
            (write_error if stream == ERRORS else write)(data)


async def _type(attachment: Attachment, *, detachable: bool) -> bool:
    """Hand on what is typed; true if that was the wish to leave, false at its end."""
    while data := await _typed(sys.stdin.fileno()):
        if detachable and LEAVE in data:
            await attachment.write(data.partition(LEAVE)[0])
            return True
        await attachment.write(data)
    await attachment.end_input()
    return False


async def _typed(descriptor: int) -> bytes:
    """What can be read now or comes next; nothing at the end."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # always readable: epoll_ctl(2) refuses it
        return os.read(descriptor, _AT_ONCE)
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        loop.remove_reader(descriptor)
        try:
            found.set_result(os.read(descriptor, _AT_ONCE))
        except OSError:  # EIO: the terminal is gone
            found.set_result(b"")

    loop.add_reader(descriptor, read)
    try:
        return await found
    finally:
        loop.remove_reader(descriptor)


attach_app = typer.Typer()
attach_app.command()(attach)
