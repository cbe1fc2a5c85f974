"""Images on a booted node: a registry that wants a password and dies in the middle, zstd layers, and what stays."""

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, MachineSpec
from core0.client.client import NodeClient, RefusedError
from core0.wire.config import NodeConfig
from core0.wire.images import ImagesConfig, RegistryConfig, SignaturePolicy
from core0.wire.storage import Destruction, PoolSpec, Selector
from core0.wire.types import Container, ContainerSpec
from corex.wire.api import ExecRequest
from image.signing import sign_layout
from tests.core0.images.registry import Registry, archive_of, digest_of, entry, gzipped, tar_of
from tests.core0.images.test_fetch import BASIC, SECRET
from tests.disk_images import blank
from tests.vm.inside import gone, inside, running, until
from tests.vm.layouts import BUSYBOX, layer_of_busybox, write_layout
from tests.vm.shelf import pool_in, settled

READY_SECONDS = 10.0
SHELL = ("/bin/sh", "-c", "while :; do sleep 1; done")
LARGE = 8 << 20
FOLDER = {"type": b"5", "mode": 0o755}
pytestmark = pytest.mark.skipif(
    not (BUSYBOX.exists() and shutil.which("zstd")), reason="needs Debian's busybox-static and zstd"
)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as running:
        yield running


def origin(registry: Registry) -> str:
    """How a guest reaches it."""
    return registry.origin.replace("127.0.0.1", "10.0.2.2")


def zstd(tar: bytes) -> tuple[bytes, bytes, str]:
    return tar, subprocess.run(["zstd", "-19"], input=tar, capture_output=True, check=True).stdout, "+zstd"


def difficult(registry: Registry, dies_at: str) -> Callable[[Any], bool]:
    """Wants a token, which a password buys; hangs up once in the middle of a blob."""
    left = [dies_at]

    def before(request: Any) -> bool:
        given = request.headers.get("Authorization")
        if request.path.startswith("/token"):
            return bool(request.say(*((200, b'{"token":"abc"}') if given == BASIC else (401,))))
        if given != "Bearer abc":
            challenge = f'Bearer realm="{origin(registry)}/token",service="test"'
            return bool(request.say(401, WWW_Authenticate=challenge))
        if not request.path.endswith(left[0]):
            return False
        content, _ = registry.content[left.pop()]
        left.append("none")
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])
        return True

    return before


async def pieces_of(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]


async def test_an_image_comes_from_a_difficult_registry_and_goes_when_nobody_has_it(
    machine: Machine,
    node: NodeClient,
    registry: Registry,
    spec: Callable[..., ContainerSpec],
    operator_key: Ed25519PrivateKey,
    tmp_path: Path,
) -> None:
    below = tar_of(entry("opt", **FOLDER), entry("opt/hidden", b"hidden"), entry("etc/old", b"old"))
    above = tar_of(
        entry("opt", **FOLDER), entry("opt/.wh..wh..opq"), entry("opt/seen", b"seen"), entry("etc/.wh.old")
    )
    base = gzipped(layer_of_busybox())
    registry.push(base, zstd(below), zstd(above))
    registry.before = difficult(registry, digest_of(base[1]))
    reference = f"{origin(registry)}/demo:latest"
    wanted = spec(argv=SHELL, env={"PATH": "/bin"})
    wanted = type(wanted)(reference, wanted.token_sha256, argv=wanted.argv, env=wanted.env)

    with pytest.raises(RefusedError, match="401: it wants credentials, or others"):
        await node.put_container("early", wanted)
    assert await node.containers() == ()

    known = RegistryConfig(user="me", password=SECRET)
    status = await node.put_config(NodeConfig(images=ImagesConfig({origin(registry): known})))
    assert SECRET not in repr(status)
    container = await running(node, "web", wanted)
    async with inside(machine, container) as corex:
        script = "cat /opt/*; ls /etc"
        done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
        assert done.stdout.data.startswith("seen")
        assert "old" not in done.stdout.data
        assert "hidden" not in done.stdout.data
    assert [header for _, header in registry.headers("Range") if header] == [f"bytes={len(base[1]) // 2}-"]

    (image,) = (await node.images()).images
    assert (image.containers, image.references, len(image.layers)) == (("web",), (reference,), 3)
    assert (await node.collect_images()).images == ()
    await node.delete_container("web")
    await until(gone(node, "web"))
    assert (await node.collect_images()).bytes == image.bytes
    assert (await node.images()).bytes == 0

    folder = tmp_path / "signed"
    write_layout(folder, layer_of_busybox())
    wanted = type(wanted)("local:signed:1", wanted.token_sha256, argv=SHELL, env={"PATH": "/bin"})
    signatures = {"local:": SignaturePolicy(operator=True)}
    await node.put_config(NodeConfig(images=ImagesConfig({origin(registry): known}, signatures)))
    with pytest.raises(RefusedError, match="it is not signed: there is no sha256-") as refused:
        await node.load_image("signed:1", pieces_of(archive_of(folder)))
    assert refused.value.problem.status == 422
    sign_layout(folder, operator_key.sign, "signed")
    loaded = await node.load_image("signed:1", pieces_of(archive_of(folder)))
    assert loaded.references == ("local:signed:1",)
    await running(node, "web", wanted)
    events = json.dumps([event.message for event in (await node.events()).events])
    assert SECRET not in events
    assert "abc" not in events


async def test_images_on_a_pool_outlive_a_power_cut_and_their_registry(
    machines: Machines,
    direct_boot: DirectBoot,
    connect: Callable[[Machine], Awaitable[NodeClient]],
    registry: Registry,
    spec: Callable[..., ContainerSpec],
    tmp_path: Path,
) -> None:
    registry.push(gzipped(layer_of_busybox()), gzipped(tar_of(entry("large", os.urandom(LARGE)))))
    reference = f"{origin(registry)}/demo:latest"
    wanted = spec(argv=SHELL, env={"PATH": "/bin"})
    wanted = type(wanted)(reference, wanted.token_sha256, argv=SHELL, env=wanted.env)
    disks = (blank(tmp_path, "one", 1 << 30),)
    machine = await machines.start(MachineSpec("images", direct_boot, disks=disks))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await settled(client, 1)
        pool = await client.put_pool("fast", PoolSpec(Selector(), format_blank=True), wait=60)
        assert pool.state == "online", pool.why
        await client.put_config(NodeConfig(images=ImagesConfig(pool="fast")))
        await running(client, "web", wanted)
        write_layout(tmp_path / "loaded", layer_of_busybox())
        await client.load_image("demo", pieces_of(archive_of(tmp_path / "loaded")))
        assert len((await client.images()).images) == 2
    asked = len(registry.asked)
    await machine.reset()
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await until(lambda: runs(client, "web"))
        assert len(registry.asked) == asked, "nobody was asked for it"
        container = await client.container("web")
        named = type(wanted)("local:demo", wanted.token_sha256, argv=SHELL, env=wanted.env)
        await running(client, "loaded", named)
        twin = await running(client, "twin", wanted)
        assert await cached_by_reading(machine, container) > 3 * LARGE // 4
        assert await cached_by_reading(machine, twin) < LARGE // 4, "they share what was read"
        told = [event.message for event in (await client.events()).events]
        assert not [said for said in told if "kept in memory" in said], told
        await leave_and_come_back(machine, client, disks[0])
        container = await running(client, "web", wanted)
        assert len(registry.asked) == asked, "its layers came back with the disk"
        assert await cached_by_reading(machine, container) > 3 * LARGE // 4, (
            "nothing is of the disk as it was"
        )
        await client.delete_container("web")
        await until(gone(client, "web"))
        await client.destroy_pool("fast", Destruction((await client.pool("fast")).id))


async def cached_by_reading(machine: Machine, container: Container) -> int:
    """Bytes that the kernel keeps more when a container has read the large file."""
    script = "grep ^Cached: /proc/meminfo; /bin/busybox sha256sum /large; grep ^Cached: /proc/meminfo"
    async with inside(machine, container) as corex:
        done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
    before, digest, after = (line.split() for line in done.stdout.data.splitlines())
    assert len(digest[0]) == 64
    return (int(after[1]) - int(before[1])) << 10


async def leave_and_come_back(machine: Machine, client: NodeClient, disk: Disk) -> None:
    """Pull a disk that no container has; what the node itself had mounted of it must not keep it from coming back."""
    for name in ("web", "twin", "loaded"):
        await client.delete_container(name)
    await until(gone(client, "web", "twin", "loaded"))
    await machine.pull(disk.name, READY_SECONDS)
    await pool_in(client, "fast", "offline")
    await machine.plug_disk(disk)
    await pool_in(client, "fast", "online")


async def runs(client: NodeClient, name: str) -> bool:
    """Whether a container that the node remembered runs: its pool comes a while after the node."""
    return (await client.container(name, 1)).state == "running"
