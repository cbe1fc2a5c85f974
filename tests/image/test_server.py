"""The netboot server over real connections: ranges, registry, refusals, and clients that hang up."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from image.server import Config, ServeError, serve

KERNEL = os.urandom(700_000)
BLOB = b'{"architecture": "amd64"}'
BLOB_DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE}).encode()
MANIFEST_DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()


class Events(list[tuple[str, dict[str, object]]]):
    def __call__(self, event: str, **fields: object) -> None:
        self.append((event, fields))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    image = tmp_path / "image"
    image.mkdir()
    (image / "boot.ipxe").write_text("#!ipxe\nboot\n")
    (image / "vmlinuz").write_bytes(KERNEL)
    (tmp_path / "secret").write_text("not yours")
    (image / "way-out").symlink_to(tmp_path / "secret")
    layout = tmp_path / "oci" / "web"
    (layout / "blobs/sha256").mkdir(parents=True)
    for content in (BLOB, MANIFEST):
        (layout / "blobs/sha256" / hashlib.sha256(content).hexdigest()).write_bytes(content)
    tag = {"org.opencontainers.image.ref.name": "1.0"}
    index = {"schemaVersion": 2, "manifests": [{"digest": MANIFEST_DIGEST, "annotations": tag}]}
    (layout / "index.json").write_text(json.dumps(index))
    return Config(image, tmp_path / "oci", ("zn.operator=" + "9f" * 32, "zn.hostname=node1"))


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def address(config: Config, events: Events) -> AsyncIterator[str]:
    async with serve(config, events) as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture
async def client(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(address) as session:
        yield session


async def test_the_first_script_sets_the_arguments_and_chains_to_the_image(
    client: aiohttp.ClientSession,
) -> None:
    async with client.get("/boot.ipxe") as answer:
        assert (await answer.text()).splitlines() == [
            "#!ipxe",
            "set zn-args zn.operator=" + "9f" * 32 + " zn.hostname=node1",
            "chain --autofree image/boot.ipxe",
        ]


async def test_a_file_comes_whole_with_its_size_and_digest(client: aiohttp.ClientSession) -> None:
    async with client.get("/image/vmlinuz") as answer:
        assert await answer.read() == KERNEL
        assert answer.headers["Content-Length"] == str(len(KERNEL))
        assert answer.headers["ETag"] == f'"{hashlib.sha256(KERNEL).hexdigest()}"'


async def test_head_gives_the_size_without_the_content(client: aiohttp.ClientSession) -> None:
    async with client.head("/image/vmlinuz") as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(KERNEL)))
        assert await answer.read() == b""


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        pytest.param("bytes=0-0", 206, 0, 1, id="first byte"),
        pytest.param("bytes=200000-599999", 206, 200_000, 600_000, id="across chunks"),
        pytest.param("bytes=699990-", 206, 699_990, 700_000, id="open end"),
        pytest.param("bytes=-5", 206, 699_995, 700_000, id="suffix"),
        pytest.param("bytes=699999-800000", 206, 699_999, 700_000, id="end beyond the file"),
        pytest.param("lines=1-2", 200, 0, 700_000, id="unknown unit is ignored"),
    ],
)
async def test_a_range_gives_exactly_its_bytes(
    client: aiohttp.ClientSession, asked: str, status: int, start: int, stop: int
) -> None:
    async with client.get("/image/vmlinuz", headers={"Range": asked}) as answer:
        assert answer.status == status
        assert await answer.read() == KERNEL[start:stop]
        if status == 206:
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(KERNEL)}"


async def test_a_range_beyond_the_file_is_refused_with_the_size(client: aiohttp.ClientSession) -> None:
    async with client.get("/image/vmlinuz", headers={"Range": "bytes=700000-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */700000")


async def test_a_resumed_download_of_changed_content_starts_over(client: aiohttp.ClientSession) -> None:
    async with client.get("/image/vmlinuz", headers={"Range": "bytes=10-", "If-Range": '"old"'}) as answer:
        assert (answer.status, await answer.read()) == (200, KERNEL)


async def test_content_the_client_has_is_not_sent_again(client: aiohttp.ClientSession) -> None:
    tag = f'"{hashlib.sha256(KERNEL).hexdigest()}"'
    async with client.get("/image/vmlinuz", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_a_changed_file_gets_a_new_digest(client: aiohttp.ClientSession, config: Config) -> None:
    (await client.get("/image/vmlinuz")).close()
    (config.image / "vmlinuz").write_bytes(b"new")
    async with client.get("/image/vmlinuz") as answer:
        assert answer.headers["ETag"] == f'"{hashlib.sha256(b"new").hexdigest()}"'


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/image/../secret", id="dots"),
        pytest.param("/image/%2e%2e/secret", id="encoded dots"),
        pytest.param("/image/..%2fsecret", id="encoded slash"),
        pytest.param("/image/way-out", id="symlink that leads outside"),
        pytest.param("/image/%00", id="zero byte"),
        pytest.param("/image/", id="folder"),
        pytest.param("/oci/web/../../secret", id="dots behind a layout"),
        pytest.param("/oci/web/blobs/sha256/%2fetc%2fpasswd", id="absolute"),
        pytest.param("/v2/%2e%2e/manifests/latest", id="encoded dots as a name"),
        pytest.param("/v2/web/blobs/sha256:..", id="no digest"),
        pytest.param("/v2/web/manifests/2.0", id="unknown tag"),
        pytest.param("/v2/none/manifests/latest", id="unknown image"),
    ],
)
async def test_nothing_outside_the_folders_is_served(address: str, path: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(address + path, encoded=True)) as answer,
    ):
        assert answer.status == 404
        assert "not yours" not in await answer.text()


@pytest.mark.parametrize("reference", ["1.0", "latest", MANIFEST_DIGEST])
async def test_a_manifest_is_pulled_by_tag_and_by_digest(
    client: aiohttp.ClientSession, reference: str
) -> None:
    async with client.get(f"/v2/web/manifests/{reference}") as answer:
        assert await answer.read() == MANIFEST
        assert answer.headers["Docker-Content-Digest"] == MANIFEST_DIGEST
        assert answer.headers["Content-Type"] == MANIFEST_TYPE


async def test_a_registry_client_finds_version_2_and_blobs(client: aiohttp.ClientSession) -> None:
    async with client.get("/v2/") as answer:
        assert answer.status == 200
    async with client.get(f"/v2/web/blobs/{BLOB_DIGEST}") as answer:
        assert await answer.read() == BLOB
    async with client.get("/oci/web/index.json") as answer:
        assert json.loads(await answer.read())["schemaVersion"] == 2


async def test_only_reading_is_allowed(client: aiohttp.ClientSession) -> None:
    async with client.put("/image/vmlinuz", data=b"x") as answer:
        assert answer.status == 405


async def test_each_fetch_is_told_with_its_client(client: aiohttp.ClientSession, events: Events) -> None:
    (await client.get("/boot.ipxe")).close()
    (await client.get("/image/none")).close()
    (_, (served, what), (refused, which)) = events
    assert (served, what["path"], what["status"], what["client"]) == (
        "Served",
        "/boot.ipxe",
        200,
        "127.0.0.1",
    )
    assert (refused, which["path"], which["status"]) == ("Refused", "/image/none", 404)


async def test_a_client_that_hangs_up_does_no_harm(config: Config) -> None:
    with (config.image / "initramfs").open("wb") as file:
        file.truncate(30_000_000)
    aborted = asyncio.Event()

    def tell(event: str, **_: object) -> None:
        if event == "Aborted":
            aborted.set()

    async with serve(config, tell) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /image/initramfs HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(1000)
        writer.transport.abort()
        async with asyncio.timeout(10):
            await aborted.wait()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{running.port}/boot.ipxe") as answer,
        ):
            assert answer.status == 200


async def test_a_taken_port_is_refused_with_the_remedy(config: Config, events: Events) -> None:
    async with serve(config, events) as running:
        with pytest.raises(ServeError, match=f"port {running.port}: another program has it; .* --port 0"):
            async with serve(Config(config.image, port=running.port), events):
                pytest.fail("two servers on one port")


async def test_a_folder_without_an_image_is_refused(tmp_path: Path, events: Events) -> None:
    with pytest.raises(ServeError, match=r"no boot\.ipxe; build an image first: zn image build"):
        async with serve(Config(tmp_path), events):
            pytest.fail("nothing to serve")


@pytest.mark.parametrize("argument", ["quiet", "zn.x=a b", "zn.x=${net0/mac}", "zn.x=1\nimgfree"])
async def test_an_argument_that_could_become_script_is_refused(
    config: Config, events: Events, argument: str
) -> None:
    with pytest.raises(ServeError, match=r"not of the form zn\.name=value"):
        async with serve(Config(config.image, arguments=(argument,)), events):
            pytest.fail("a script was injected")


def test_the_standalone_server_says_where_it_serves_and_ends_on_a_signal(config: Config) -> None:
    words = [sys.executable, "-m", "image.server", str(config.image), "--argument", "zn.hostname=a"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Serving url=http://127.0.0.1:")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
