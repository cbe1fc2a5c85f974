"""Building for real from the lock in the repository: the same bytes twice, whatever surrounds the build."""

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.image import cache_folder
from image import bytecode, contents, initramfs, lock, manifest, node, runtime, sources, verify
from image.errors import ImageError
from image.fetch import Cache
from image.manifest import NodeManifest
from image.report import Report
from image.sources import Places
from image.tree import Kind, file

ROOT = Path(__file__).parents[2]
VIRT = ROOT / "initramfs/virt.toml"
BUILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from image import build
    from image.report import Report
    from image.sources import Places
    root, cache, output = map(Path, sys.argv[1:])
    places = Places(root, cache, locked=True, offline=True)
    build.build(build.Request(root / "initramfs/virt.toml", "amd64", output, places), Report())
    """
)


@dataclass(frozen=True)
class Surroundings:
    """What must not matter to a build."""

    environment: dict[str, str]
    umask: int
    folder: Path
    user: tuple[str, ...] = ()


ORDINARY = Surroundings({}, 0o022, ROOT)


@pytest.fixture(scope="session")
def downloads() -> Path:
    """A cache that has every file of the lock."""
    cache = cache_folder()
    wanted = manifest.load_kind(VIRT, NodeManifest)
    try:
        sources.obtain(
            wanted, sources.load_lock(VIRT, wanted, "amd64", ROOT), Places(ROOT, cache, locked=True), Report()
        )
    except ImageError as error:
        pytest.skip(f"the files of the lock are neither cached nor to be had: {error}")
    return cache


def fresh_cache(downloads: Path, folder: Path) -> Path:
    """A cache with the downloads and nothing that a build made of them."""
    for found in lock.load(lock.path_of(VIRT, "amd64")).files:
        target = Cache(folder).path(found.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Cache(downloads).path(found.sha256), target)
    return folder


def tree_with_another_order(folder: Path) -> Path:
    """The parts of the repository that a build reads, copied so that folders list in another order."""
    folder.mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    for name in ("image", "initramfs", "core0", "corex"):
        for path in sorted((ROOT / name).rglob("*"), reverse=True):
            if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts:
                (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / path.relative_to(ROOT), follow_symlinks=False)
    return folder


def built(root: Path, cache: Path, output: Path, surroundings: Surroundings) -> dict[str, str]:
    """The checksums of a build's outputs, by name."""
    command = [*surroundings.user, sys.executable, "-c", BUILD, str(root), str(cache), str(output)]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(root), **surroundings.environment}
    subprocess.run(command, env=environment, umask=surroundings.umask, cwd=surroundings.folder, check=True)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in output.iterdir()}


def another_user() -> tuple[str, ...]:
    """Words before a command that run it as nobody without capabilities, where the kernel lets us."""
    words = ("unshare", "--user")
    possible = (
        shutil.which("unshare") and not subprocess.run([*words, "true"], capture_output=True).returncode
    )
    return words if possible else ()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_builds_under_different_circumstances_give_the_same_bytes(
    downloads: Path, tmp_path: Path
) -> None:
    here = Surroundings({"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, 0o022, tmp_path)
    there = Surroundings(
        {"TZ": "America/New_York", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"},
        0o077,
        Path("/"),
        another_user(),
    )
    root = tree_with_another_order(tmp_path / "elsewhere")
    one = built(ROOT, fresh_cache(downloads, tmp_path / "cache-one"), tmp_path / "one", here)
    other = built(root, fresh_cache(downloads, tmp_path / "cache-two"), tmp_path / "two", there)
    assert one == other
    assert sorted(one) == [
        "SHA256SUMS",
        "boot.ipxe",
        "cmdline",
        "contents.json",
        "initramfs",
        "sbom.spdx.json",
        "vmlinuz",
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_image_is_whole_small_and_ends_with_its_sentinel(downloads: Path, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    built(ROOT, downloads, folder, ORDINARY)
    assert verify.problems(folder) == []
    made = contents.load(folder)
    assert made.outputs["vmlinuz"].size + made.outputs["initramfs"].size <= 32_000_000
    entries = list(initramfs.entries((folder / "initramfs").read_bytes()))
    assert entries[-1].path == node.SENTINEL
    assert entries[-1].content.decode().strip() == made.build_id
    assert not [entry.path for entry in entries if entry.path.endswith(".py")]
    assert {"usr/lib/zeronode/storage/usr/bin/btrfs", "usr/lib/zeronode/storage/usr/sbin/smartctl"} <= {
        entry.path for entry in made.storage
    }
    assert {package.name: package.installed > 0 for package in made.packages}["btrfs-progs"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_link_of_an_image_leads_nowhere(downloads: Path, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    built(ROOT, downloads, folder, ORDINARY)
    paths = {entry.path: entry for entry in contents.load(folder).unpacked}
    links = [entry for entry in paths.values() if entry.kind is Kind.LINK]
    ends = {
        entry.path: os.path.normpath(Path("/", entry.path).parent / entry.target).lstrip("/")
        for entry in links
    }
    made_by_a_boot = "run/"
    lost = {path: end for path, end in ends.items() if not (end in paths or end.startswith(made_by_a_boot))}
    assert lost == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_damaged_build_folder_is_told_apart(downloads: Path, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    built(ROOT, downloads, folder, ORDINARY)
    (folder / "cmdline").write_text("init=/bin/sh\n")
    (folder / "extra").write_text("")
    (folder / "boot.ipxe").unlink()
    assert verify.problems(folder) == [
        "boot.ipxe: missing",
        "cmdline: its sha256 is not the one in SHA256SUMS",
        "extra: not in SHA256SUMS",
    ]


def test_a_locked_offline_build_without_files_names_them(tmp_path: Path) -> None:
    wanted = manifest.load_kind(VIRT, NodeManifest)
    places = Places(ROOT, tmp_path, locked=True, offline=True)
    with pytest.raises(
        ImageError, match=r"cannot fetch .*libc6.*: not in the cache .*, and the build is offline"
    ):
        sources.obtain(wanted, sources.load_lock(VIRT, wanted, "amd64", ROOT), places, Report())


def test_byte_code_for_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(runtime.ProgramError, match=r"cannot run the image's python3\.13 for arm64"):
        bytecode.compile_sources([], tmp_path, "arm64", "3.13")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_damaged_base_is_named_and_built_again(downloads: Path, tmp_path: Path) -> None:
    cache = fresh_cache(downloads, tmp_path / "cache")
    first = built(ROOT, cache, tmp_path / "one", ORDINARY)
    (base,) = (cache / "base").iterdir()
    (base / "segment.cpio.lz4").write_bytes(b"tampered")
    assert built(ROOT, cache, tmp_path / "two", ORDINARY) == first


def test_a_python_that_cannot_run_here_is_one_message(tmp_path: Path) -> None:
    loader = tmp_path / "usr/lib64/ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    loader.write_bytes(b"\x7fELF of another machine")
    loader.chmod(0o755)
    with pytest.raises(
        runtime.ProgramError, match="cannot run the image's programs on this host: Exec format error"
    ):
        bytecode.compile_sources([file("usr/lib/a.py", b"", "t")], tmp_path, "amd64", "3.13")


def test_a_source_that_python_refuses_is_named(downloads: Path, tmp_path: Path) -> None:
    wanted = manifest.load_kind(VIRT, NodeManifest)
    locked = lock.load(lock.path_of(VIRT, "amd64"))
    unpacked = node.unpack(locked, sources.contents(locked.files, Cache(downloads)))
    runtime.write(node.base_sources(wanted, unpacked), tmp_path)
    broken = file("usr/lib/zeronode/core0/broken.py", b"def (:\n", "t")
    with pytest.raises(
        bytecode.BytecodeError,
        match=r'cannot compile: File "/usr/lib/zeronode/core0/broken\.py", line 1: SyntaxError',
    ):
        bytecode.compile_sources([broken], tmp_path, "amd64", "3.13")
