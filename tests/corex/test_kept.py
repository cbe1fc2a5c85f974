"""What people changed outlives Core-X: layers of the plan and identities, whole or as they were before."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corex.client.client import Client, Endpoint, NotAllowedError, RefusedError
from corex.http.problem import ProblemError
from corex.rest import kept as kept_module
from corex.rest.kept import Kept
from corex.wire.identities import IdentitySpec
from corex.wire.plan import Layer, ProcessLayer
from corex.wire.process import ProcessSpec

WEB = {"web": Layer("the shop", {"web": ProcessLayer(argv=("web",))})}
BOB = {"bob": IdentitySpec("viewer", "ab" * 32)}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "kept", os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


def test_the_newest_change_is_there_again(file: int) -> None:
    kept = Kept(file)
    kept.keep_layers(WEB)
    kept.keep_identities(BOB)
    again = Kept(file)
    assert again.known == kept.known
    assert (again.known.layers, again.known.identities) == (WEB, BOB)
    again.keep_layers({"container": None})
    assert Kept(file).known.layers == {"container": None}


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 400), junk=st.binary(min_size=1, max_size=64))
def test_whatever_is_half_written_leaves_what_was_before(cut: int, junk: bytes) -> None:
    file = os.memfd_create("kept")
    try:
        kept = Kept(file)
        for number in range(4):
            kept.keep_layers({f"layer{number}": Layer("x" * 100)})
        whole = len(os.pread(file, 1000, 0))
        os.pwrite(file, junk, cut % whole)  # into the slot of the last one
        assert list(Kept(file).known.layers) in (["layer2"], ["layer3"])
    finally:
        os.close(file)


@pytest.mark.parametrize(
    "junk", [b"", b"\0" * 100, b"core-x 1" + b"\xff" * 60], ids=["empty", "zeros", "boasting"]
)
def test_what_is_none_counts_as_nothing(file: int, junk: bytes) -> None:
    os.pwrite(file, junk, 0)
    kept = Kept(file)
    assert kept.known == kept_module.Known()
    kept.keep_layers(WEB)
    assert Kept(file).known.layers == WEB


def test_more_than_there_is_room_for_is_refused_and_less_is_always_taken(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(file)
    kept.keep_layers({"a": Layer("x" * 400), "b": Layer("x" * 400)})
    monkeypatch.setattr(kept_module, "LARGEST", 500)
    with pytest.raises(ProblemError, match="of at most 500") as refused:
        kept.keep_layers({"a": Layer("x" * 400), "b": Layer("x" * 500)})
    assert refused.value.problem.status == 507
    kept.keep_layers({"a": Layer("x" * 400), "b": Layer("x" * 200)})
    assert len(Kept(file).known.layers["b"].summary) == 200  # type: ignore[union-attr]  # it is a layer


def test_a_file_that_takes_nothing_refuses_the_change(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    kept = Kept(descriptor)
    with pytest.raises(ProblemError, match="for the next start"):
        kept.keep_identities(BOB)
    assert kept.known.identities == {}
    os.close(descriptor)


def sleeper(**fields: Any) -> ProcessSpec:
    return ProcessSpec(("/bin/sleep", "1000"), **fields)


async def test_after_a_crash_core_x_has_what_people_told_it(
    start: Any, busybox_root: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    made = {"main": sleeper(), "old": sleeper()}
    first = await start(busybox_root, kept=kept, **made)
    token = "bob's token"
    spec = IdentitySpec("operator", hashlib.sha256(token.encode()).hexdigest())
    await first.client.put_identity("bob", spec)
    await first.client.put_identity("eve", msgspec.structs.replace(spec, token_sha256="cd" * 32))
    await first.client.delete_identity("eve")
    await first.client.put_layer("shop", Layer("shop", {"web": ProcessLayer(argv=("/bin/sleep", "2000"))}))
    await first.client.put("extra", sleeper(env={"A": "b"}))
    await first.client.put("old", sleeper(enabled=False))
    first.process.kill()
    await first.process.wait()

    second = await start(busybox_root, kept=kept, **made)
    found = {one.name: one for one in await second.client.processes()}
    assert {name: one.layers for name, one in found.items()} == {
        "main": ("container",),
        "old": ("container", "edits"),
        "web": ("shop",),
        "extra": ("edits",),
    }
    for name in ("main", "web", "extra"):
        await second.until(name, "running")
    assert found["extra"].spec.env == {"A": "b"}
    assert found["old"].wanted == "stopped"
    async with Client(Endpoint(second.endpoint.address, second.endpoint.fingerprint, token)) as bob:
        assert [(one.name, one.role) for one in await bob.identities()] == [
            ("bob", "operator"),
            ("owner", "admin"),
        ]
        await bob.delete_layer("shop")
        with pytest.raises(RefusedError, match="needs the role admin"):
            await bob.delete_identity("bob")
    await second.client.delete_identity("bob")
    second.process.kill()
    await second.process.wait()

    third = await start(busybox_root, kept=kept, **made)
    assert [one.name for one in await third.client.processes()] == ["main", "old", "extra"]
    async with Client(Endpoint(third.endpoint.address, third.endpoint.fingerprint, token)) as bob:
        with pytest.raises(NotAllowedError):
            await bob.identities()


async def test_what_was_kept_and_makes_no_plan_with_another_image_is_left_out(
    start: Any, busybox_root: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    first = await start(busybox_root, kept=kept, main=sleeper(), db=sleeper())
    await first.client.put_layer(
        "shop", Layer("", {"web": ProcessLayer(argv=("/bin/sleep", "1"), after={"db": "ready"})})
    )
    first.process.kill()
    await first.process.wait()
    second = await start(busybox_root, kept=kept, main=sleeper())
    assert [one.name for one in await second.client.processes()] == ["main"]


async def test_a_container_ends_with_what_is_left_of_what_it_was_created_with(
    start: Any, busybox_root: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    brief = ProcessSpec(("/bin/sh", "-c", "exit 3"))
    first = await start(busybox_root, kept=kept, main=sleeper(), brief=brief)
    layers = {layer.name: layer.layer for layer in await first.client.layers()}
    left = {"brief": layers["container"].processes["brief"]}
    await first.client.put_layer("container", msgspec.structs.replace(layers["container"], processes=left))
    first.process.kill()
    await first.process.wait()
    second = await start(busybox_root, kept=kept, main=sleeper(), brief=brief)
    assert await second.exit_code() == 3
