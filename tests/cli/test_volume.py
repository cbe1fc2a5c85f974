"""`zn volume` against a node's real API and a real btrfs."""

import os
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from core0.wire.volumes import Origin, Volume
from tests.cli.conftest import Said, Zn, beside, write_context
from tests.core0.conftest import Loop
from tests.core0.conftest import make_btrfs as make_btrfs  # a fixture
from tests.host_node import HostNode

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture
def pooled(host_node: HostNode, contexts_file: Path, make_btrfs: Callable[..., Loop]) -> Iterator[HostNode]:
    """A node that answers, with the pool `fast`; its context is the current one."""
    host_node.pools["fast"] = make_btrfs("fast").place

    @asynccontextmanager
    async def serving():
        async with host_node.daemon() as state, host_node.api():
            await host_node.told("Its volumes: none")
            yield
            for name in [one.name for one in await state.volumes.list() if one.pool is None]:
                await state.volumes.delete(name)

    with beside(serving()):
        write_context(contexts_file, host_node)
        yield host_node


def volume(said: Said) -> Volume:
    """The volume that a command printed as JSON."""
    assert said.code == 0, said.err
    return msgspec.json.decode(said.out, type=Volume)


def test_the_life_of_a_volume(pooled: HostNode, zn: Zn) -> None:
    assert "no volumes" in zn("volume", "ls").out
    made = volume(zn("volume", "create", "data", "64M", "--pool", "fast", "--write-bps", "50M", "--json"))
    assert (made.size, made.io.write_bps) == (64 * MIB, 50 * MIB)
    (pooled.pools["fast"] / "volumes" / "data" / "file").write_text("monday")
    assert "monday" in zn("volume", "snapshot", "data", "monday").out
    assert volume(zn("volume", "resize", "data", "128M", "--json")).io == made.io
    copy = volume(zn("volume", "clone", "data", "copy", "--snapshot", "monday", "--json"))
    assert (copy.origin, copy.size) == (Origin("data", "monday"), 128 * MIB)
    assert volume(zn("volume", "limit", "data", "--read-iops", "100", "--json")).io.write_bps is None
    assert "100 reads/s" in zn("volume", "show", "data").out
    assert volume(zn("volume", "rollback", "data", "monday", "--yes", "--json")).name == "data"
    listed = zn("volume", "ls").out.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["copy", "fast", "ready"], ["data", "fast", "ready"]]
    assert zn("volume", "rm", "data", "--snapshot", "monday", "--yes").code == 0
    assert "volume data is deleted" in zn("volume", "rm", "data", "--yes").out
    assert zn("volume", "rm", "copy", "--yes", "--snapshots").code == 0
    assert zn("volume", "ls", "--json").json() == []


def test_a_volume_that_is_there_is_not_made_again(pooled: HostNode, zn: Zn) -> None:
    for words in (("data", "64M", "--pool", "fast"), ("scratch", "64M", "--memory")):
        assert zn("volume", "create", *words).code == 0
        said = zn("volume", "create", words[0], "32M", *words[2:])
        assert (said.code, "there is one of that name" in said.err) == (3, True), said
    said = zn("volume", "clone", "data", "data")
    assert said.code == 3
    assert {one["size"] for one in zn("volume", "ls", "--json").json()} == {64 << 20}


def test_a_volume_in_memory(pooled: HostNode, zn: Zn) -> None:
    made = volume(zn("volume", "create", "scratch", "16M", "--memory", "--json"))
    assert made.pool is None
    assert "ends with this boot" in zn("volume", "ls").out


def test_who_does_not_agree_keeps_the_volume(
    pooled: HostNode, zn: Zn, monkeypatch: pytest.MonkeyPatch
) -> None:
    zn("volume", "create", "data", "64M", "--pool", "fast")
    monkeypatch.setattr("typer.confirm", lambda question: False)
    for words in (["rm", "data"], ["rollback", "data", "monday"], ["rm", "data", "--snapshot", "monday"]):
        said = zn("volume", *words)
        assert (said.code, "nothing was changed" in said.err) == (3, True)
    assert volume(zn("volume", "show", "data", "--json")).state == "ready"


def test_a_container_is_shown_its_volumes(pooled: HostNode, zn: Zn) -> None:
    zn("volume", "create", "data", "64M", "--pool", "fast")
    words = ("container", "create", "web", "--image", "http://127.0.0.1:9/demo/", "--wait", "0")
    zn(*words, "-v", "data:/var/lib/db", "-v", "data:/seen:ro")
    assert "data:/var/lib/db, data:/seen:ro" in zn("container", "show", "web").out
    assert volume(zn("volume", "show", "data", "--json")).containers == ("web",)
    for wrong in ("data", "data:var", "data:/x:rw", ":/x"):
        said = zn(*words, "-v", wrong)
        assert (said.code, "it is not VOLUME:FOLDER[:ro]" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(["create", "data", "64M"], 2, "give --pool or --memory", id="nowhere"),
        pytest.param(["create", "data", "64 elephants", "--memory"], 2, "write it as 500G", id="no size"),
        pytest.param(
            ["create", "data", "1K", "--memory"], 2, "of 1.0 KiB: 16.0 MiB is the least", id="too small"
        ),
        pytest.param(["create", "data", "64M", "--pool", "slow"], 3, "the node has: fast", id="no pool"),
        pytest.param(["create", "data", "1T", "--pool", "fast"], 3, "pool fast has 4 GiB", id="too large"),
        pytest.param(["show", "none"], 3, "see 'zn volume ls'", id="no volume"),
        pytest.param(["rollback", "none", "monday", "--yes"], 3, "cannot find volume", id="rollback of none"),
    ],
)
def test_what_is_wrong_is_told(pooled: HostNode, zn: Zn, words: list[str], code: int, says: str) -> None:
    said = zn("volume", *words)
    assert (said.code, said.out) == (code, "")
    assert says in said.err


def test_a_snapshot_goes_through_a_file_to_another_volume(pooled: HostNode, zn: Zn, tmp_path: Path) -> None:
    zn("volume", "create", "data", "64M", "--pool", "fast")
    content = os.urandom(5 * MIB)
    (pooled.pools["fast"] / "volumes" / "data" / "file").write_bytes(content)
    zn("volume", "snapshot", "data", "monday")
    file = tmp_path / "stream"
    assert zn("volume", "export", "data", "monday", str(file)).code == 0
    assert file.stat().st_size > 5 * MIB
    words = ("--size", "64M", "--pool", "fast", "--json")
    copy = volume(zn("volume", "import", "copy", "first", str(file), *words))
    assert [one.name for one in copy.snapshots] == ["first"]
    assert (pooled.pools["fast"] / "volumes" / "copy" / "file").read_bytes() == content
    (pooled.pools["fast"] / "volumes" / "data" / "more").write_text("tuesday")
    zn("volume", "snapshot", "data", "tuesday")
    changes = tmp_path / "changes"
    assert zn("volume", "export", "data", "tuesday", str(changes), "--base", "monday").code == 0
    copy = volume(zn("volume", "import", "copy", "second", str(changes), "--json"))
    assert [one.name for one in copy.snapshots] == ["first", "second"]
    said = zn("volume", "export", "data", "monday", str(file))
    assert (said.code, "there is one" in said.err) == (1, True)


def test_an_export_goes_on_with_what_is_there_of_it(pooled: HostNode, zn: Zn, tmp_path: Path) -> None:
    zn("volume", "create", "data", "64M", "--pool", "fast")
    (pooled.pools["fast"] / "volumes" / "data" / "file").write_bytes(os.urandom(5 * MIB))
    zn("volume", "snapshot", "data", "monday")
    whole, file = tmp_path / "whole", tmp_path / "again"
    zn("volume", "export", "data", "monday", str(whole))
    part = tmp_path / "again.part"
    part.write_bytes(whole.read_bytes()[: 3 * MIB])
    assert zn("volume", "export", "data", "monday", str(file)).code == 0
    assert file.read_bytes() == whole.read_bytes()
    part.write_bytes(b"something else")
    said = zn("volume", "export", "data", "monday", str(tmp_path / "again2"))
    assert said.code == 0
    (tmp_path / "other.part").write_bytes(b"something else")
    said = zn("volume", "export", "data", "monday", str(tmp_path / "other"))
    assert (said.code, "what came before is not its beginning" in said.err) == (3, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda data: data[:-100], "it is cut", id="cut"),
        pytest.param(lambda data: b"#!/bin/sh\n", "it is no btrfs stream", id="foreign"),
    ],
)
def test_a_stream_that_is_not_whole_is_refused(
    pooled: HostNode, zn: Zn, tmp_path: Path, change: Callable[[bytes], bytes], says: str
) -> None:
    zn("volume", "create", "data", "64M", "--pool", "fast")
    (pooled.pools["fast"] / "volumes" / "data" / "file").write_bytes(os.urandom(MIB))
    zn("volume", "snapshot", "data", "monday")
    file = tmp_path / "stream"
    zn("volume", "export", "data", "monday", str(file))
    file.write_bytes(change(file.read_bytes()))
    said = zn("volume", "import", "copy", "first", str(file), "--size", "64M", "--pool", "fast")
    assert (said.code, says in said.err) == (3, True), said
    assert [one["name"] for one in zn("volume", "ls", "--json").json()] == ["data"]


def test_the_documents_example_works_as_it_stands(
    pooled: HostNode, zn: Zn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "disks.md").read_text()
    example = page.partition("## Volumes")[2].partition("```sh\n")[2].partition("```")[0]
    lines = [line.partition("#")[0].split() for line in example.splitlines()]
    assert len(lines) > 10
    for program, *words in lines:
        said = zn(*words)
        # a container is wanted here, but only a booted node can run it
        code = 1 if words[:2] == ["container", "create"] else 0
        assert (program, said.code) == ("zn", code), (words, said.err)
        if words[:2] == ["container", "rm"]:
            until_gone(zn)
    assert [one["name"] for one in zn("volume", "ls", "--json").json()] == ["moved", "scratch"]


def until_gone(zn: Zn) -> None:
    for _ in range(200):
        if zn("container", "ls", "--json").json() == []:
            return
    pytest.fail("the container is still there")
