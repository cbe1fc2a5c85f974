"""A real Core-X with the console's files."""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from cli.image import cache_folder
from corex.wire.process import ProcessSpec
from image import console, manifest, sources
from image.fetch import Cache
from image.manifest import NodeManifest
from image.report import Report
from image.sources import Places
from tests.console.browser import Look, browser, look  # noqa: F401  # fixtures, by name
from tests.corex.conftest import (  # noqa: F401  # the same
    REPOSITORY,
    TOKEN,
    Container,
    Surroundings,
    busybox_root,
    identity,
    launch,
    surroundings,
)

VIRT = REPOSITORY / "initramfs/virt.toml"
Start = Callable[..., Awaitable[Container]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def start(
    surroundings: Surroundings,  # noqa: F811  # pytest gives it by this name
    busybox_root: Path,  # noqa: F811
    console_folder: Path,
) -> AsyncIterator[Start]:
    """Starts a Core-X with the console: give it a name and its processes."""
    if os.geteuid() != 0:
        pytest.skip("pid namespaces need root")
    async with AsyncExitStack() as stack:

        async def container(name: str = "shop", **processes: ProcessSpec) -> Container:
            made = await launch(
                surroundings, processes, busybox_root, None, {}, None, stack, console_folder, name
            )
            await made.client.health()
            return made

        yield container


def digest(token: str) -> str:
    """What Core-X knows of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture(scope="session")
def console_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console's files as an image has them."""
    wanted = manifest.load_kind(VIRT, NodeManifest)
    locked = msgspec.structs.replace(
        sources.load_lock(VIRT, wanted, "amd64", REPOSITORY), packages=(), wheels=()
    )
    cache = cache_folder()
    sources.obtain(wanted, locked, Places(REPOSITORY, cache, locked=True), Report())
    archives = sources.contents(locked.npm, Cache(cache))
    folder = tmp_path_factory.mktemp("console")
    console.write(console.files(wanted, locked, archives, REPOSITORY), folder)
    return folder
