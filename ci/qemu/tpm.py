"""A TPM 2.0 in software (swtpm(8)) for machines: it keeps its memory in a folder, over restarts of a machine.

A machine has it by the path of its socket (`MachineSpec.tpm`); one machine at a time.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ci.qemu.process import StartError, read_words, start_tied

_LOOK_EVERY = 0.02


@asynccontextmanager
async def software_tpm(folder: Path, deadline: float = 10.0) -> AsyncIterator[Path]:
    """A TPM whose memory is `folder`, which is made if need be; yields its socket.

    Raises:
        NoProgramError: this host does not have swtpm.
        StartError: it does not listen within `deadline` seconds; with its own words.
    """
    control, log = _prepare(folder)
    state, channel = f"dir={folder}", f"type=unixio,path={control}"
    argv = ("swtpm", "socket", "--tpm2", "--tpmstate", state, "--ctrl", channel, "--flags", "startup-clear")
    process = await start_tied(argv, (), log)
    try:
        await _wait_for(control, log, deadline)
        yield control
    finally:
        await process.release()


def _prepare(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    control = folder / "socket"
    control.unlink(missing_ok=True)
    return control, folder / "log"


async def _wait_for(control: Path, log: Path, deadline: float) -> None:
    try:
        async with asyncio.timeout(deadline):
            while not os.path.exists(control):  # noqa: ASYNC110, ASYNC240, PTH110 — it tells nobody but the file system
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError:
        raise StartError(f"cannot start swtpm: {read_words(log) or 'it does not listen'}") from None
