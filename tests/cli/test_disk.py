"""`zn disk`, `zn pool`, `zn operation` against a node's real API, with loop devices where disks would be."""

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core0.wire.operations import Operation
from core0.wire.storage import Disk, Pool
from tests.cli.conftest import Said, Zn
from tests.core0.disks.loop import LoopDisks

pytestmark = pytest.mark.root
SMALL = 600 << 20
POOL = ("pool", "create", "fast", "--format-blank", "--profile", "raid1", "--disk", "one", "--disk", "two")


def until_looked(zn: Zn, count: int) -> dict[str, Disk]:
    """The node's disks, by serial number, once it has looked at all of them."""
    for _ in range(200):
        found = read(zn("disk", "ls", "--json"), tuple[Disk, ...])
        if len(found) == count and all(one.state != "probing" for one in found):
            return {one.serial: one for one in found}
    pytest.fail(f"not all disks were looked at: {found}")


def read(said: Said, kind: Any) -> Any:
    assert said.code == 0, said.err
    return msgspec.json.decode(said.out, type=kind)


def make_ext4(file: Path, label: str) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-L", label, file], check=True)


def test_each_disk_is_listed_with_a_sentence_and_the_remedy(disks: LoopDisks, zn: Zn) -> None:
    disks.plug("one", SMALL)
    make_ext4(disks.plug("two", SMALL), "photos")
    until_looked(zn, 2)
    said = zn("disk", "ls").out
    assert "it is blank; 'zn disk claim virtio-one' gives it to the node" in said
    assert "it holds an ext4 signature labelled 'photos'" in said
    shown = zn("disk", "show", "two").out
    assert "600.0 MiB" in shown
    assert "it does not say" in shown


def test_a_disk_that_holds_something_is_wiped_only_with_the_option_and_a_yes(
    disks: LoopDisks, zn: Zn, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = disks.plug("one", SMALL)
    make_ext4(file, "photos")
    until_looked(zn, 1)
    before = file.read_bytes()
    said = zn("disk", "claim", "one")
    assert (said.code, said.out) == (3, "")
    assert "it holds an ext4 signature labelled 'photos'" in said.err
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    said = zn("disk", "claim", "one", "--wipe")
    assert (said.code, said.out) == (3, "")
    assert "ext4 photos" in said.err
    assert "disk virtio-one was left as it is" in said.err
    assert file.read_bytes() == before
    claimed = read(zn("disk", "claim", "one", "--wipe", "--yes", "--json"), Disk)
    assert claimed.state == "free"


def test_a_pool_that_lacks_disks_says_why_those_that_fit_are_not_used(disks: LoopDisks, zn: Zn) -> None:
    disks.plug("one", 300 << 20)
    make_ext4(disks.plug("two", SMALL), "photos")
    until_looked(zn, 2)
    said = zn(*POOL, "--wait", "0")
    assert said.code == 1
    assert "0 of 2 disks that fit are free, and raid1 needs 2" in said.err
    assert "virtio-one: it is not used: it has 300 MiB, and a pool needs 512 MiB of each disk" in said.err
    assert "virtio-two: it is not touched: it holds an ext4 signature labelled 'photos'" in said.err


def test_an_unknown_disk_is_told(disks: LoopDisks, zn: Zn) -> None:
    said = zn("disk", "claim", "nowhere")
    assert (said.code, said.out) == (3, "")
    assert "there is none of that id or serial number" in said.err


def test_a_pool_from_its_making_to_its_end(disks: LoopDisks, zn: Zn) -> None:
    for name in ("one", "two", "three"):
        disks.plug(name, SMALL)
    until_looked(zn, 3)
    said = zn(*POOL)
    assert said.code == 0, said.err
    assert "it serves, with all 2 disks" in said.out
    made = zn("volume", "create", "data", "64M", "--pool", "fast")
    assert made.code == 0, made.err
    assert zn("volume", "rm", "data", "--yes").code == 0
    assert zn("pool", "ls").out.splitlines()[1].split()[:4] == ["fast", "online", "raid1", "2"]
    scrub = zn("pool", "scrub", "fast")
    assert scrub.code == 0, scrub.err
    assert "scrub of fast: " in scrub.out
    assert "0 errors" in scrub.out
    replaced = read(zn("pool", "replace", "fast", "two", "three", "--json"), Operation)
    assert (replaced.state, replaced.progress) == ("done", 1.0)
    assert [line.split()[1] for line in zn("operation", "ls").out.splitlines()[1:]] == ["replace", "scrub"]
    assert "virtio-three" in zn("pool", "show", "fast").out
    used = zn("disk", "erase", "three", "--yes")
    assert (used.code, used.out) == (3, "")
    assert "it is in use by pool fast" in used.err
    assert zn("pool", "destroy", "fast", "--yes").code == 0
    erased = zn("disk", "erase", "three", "--yes", "--method", "overwrite")
    assert erased.code == 0, erased.err
    assert until_looked(zn, 3)["three"].state == "unclaimed"
    assert read(zn("pool", "ls", "--json"), tuple[Pool, ...]) == ()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("pool", "create", "x", "--profile", "raid5"), "Invalid enum value 'raid5'"),
        (("pool", "create", "x", "--min-size", "huge"), "cannot read the size 'huge'"),
        (("pool", "create", "x", "--encrypt", "rot13"), "Invalid enum value 'rot13'"),
        (("disk", "erase", "one", "--yes", "--method", "hammer"), "Invalid enum value 'hammer'"),
    ],
)
def test_what_can_never_be_is_told_before_the_node_is_asked(
    disks: LoopDisks, zn: Zn, words: tuple[str, ...], reason: str
) -> None:
    disks.plug("one", SMALL)
    until_looked(zn, 1)
    said = zn(*words)
    assert (said.code, said.out) == (2, "")
    assert reason in said.err


def test_a_pool_that_is_there_is_changed_only_when_told(disks: LoopDisks, zn: Zn) -> None:
    disks.plug("one", SMALL)
    until_looked(zn, 1)
    words = ("pool", "create", "fast", "--format-blank", "--disk", "one")
    assert zn(*words).code == 0
    said = zn(*words, "--compress", "lzo")
    assert (said.code, "cannot create pool fast: there is one of that name" in said.err) == (3, True), said
    assert zn(*words, "--compress", "lzo", "--update").code == 0


def test_a_refusal_of_the_node_names_the_field(disks: LoopDisks, zn: Zn) -> None:
    disks.plug("one", SMALL)
    until_looked(zn, 1)
    said = zn("pool", "create", "fast", "--profile", "raid1", "--disk", "one")
    assert (said.code, said.out) == (3, "")
    assert "raid1 needs 2 disks, and 1 are named" in said.err


def test_the_documents_example_works_as_it_stands(
    disks: LoopDisks, zn: Zn, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda *said, **__: bool(asked.append(str(said)) or True))
    disks.plug("S4EW001", SMALL, bus="nvme")
    disks.plug("S4EW002", SMALL, bus="nvme")
    make_ext4(disks.plug("WD-4711", SMALL, bus="ata"), "photos")
    until_looked(zn, 3)
    page = (Path(__file__).parents[2] / "docs" / "disks.md").read_text()
    example = page.partition("## A worked example")[2].partition("```sh\n")[2].partition("```")[0]
    commands = [line.partition("#")[0].split() for line in example.splitlines() if line[0] != "#"]
    shown = [line.split() for line in example.splitlines() if line.startswith("# ") and "-" in line]
    listed = [line.split() for line in zn("disk", "ls").out.splitlines()[1:]]
    assert len(shown) == len(listed) == 3
    for wanted, found in zip(shown, sorted(listed, key=lambda row: "WD" in row[0]), strict=True):
        _, disk, _, media, _, _, state, _, *why = wanted
        assert (disk, media, state) == (found[0], found[2], found[5])
        assert " ".join(found[7:]).startswith(" ".join(why[:8]))
    for program, *words in commands:
        said = zn(*words)
        assert (program, said.code) == ("zn", 0), (words, said.err)
    assert len(asked) == 1
    found = {one.name: one for one in read(zn("pool", "ls", "--json"), tuple[Pool, ...])}
    assert {name: [one.disk for one in pool.members] for name, pool in found.items()} == {
        "fast": ["nvme-S4EW001", "nvme-S4EW002"],
        "slow": ["ata-WD-4711"],
    }
