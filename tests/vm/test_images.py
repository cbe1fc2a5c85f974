"""Images on a booted node: a registry that wants a password and dies in the middle, zstd layers, and what stays."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ci.qemu.machine import Machine
from core0.client.client import NodeClient
from core0.wire.config import NodeConfig
from core0.wire.images import ImagesConfig, RegistryConfig
from core0.wire.types import ContainerSpec
from corex.wire.api import ExecRequest
from tests.core0.images.registry import Registry, digest_of, entry, gzipped, tar_of
from tests.core0.images.test_fetch import BASIC, SECRET
from tests.vm.inside import gone, inside, running, settled, until
from tests.vm.layouts import BUSYBOX, layer_of_busybox

SHELL = ("/bin/sh", "-c", "while :; do sleep 1; done")
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


async def test_an_image_comes_from_a_difficult_registry_and_goes_when_nobody_has_it(
    machine: Machine, node: NodeClient, registry: Registry, spec: Callable[..., ContainerSpec]
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

    await node.put_container("early", wanted)
    assert "401: it wants credentials, or others; see images.registries" in (await settled(node, "early")).why
    await node.delete_container("early")
    await until(gone(node, "early"))

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
    events = json.dumps([event.message for event in (await node.events()).events])
    assert SECRET not in events
    assert "abc" not in events
