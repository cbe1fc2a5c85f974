"""Manifests and locks: what is refused, and with which words."""

from pathlib import Path

import msgspec
import pytest

from image import lock, manifest
from image.lock import DebFile, Lock, LockError, Wheel
from image.manifest import ContainerManifest, ManifestError, NodeManifest

ROOT = Path(__file__).parents[2]
VIRT = ROOT / "initramfs/virt.toml"
DEB = DebFile("libc6", "2.41-12", "amd64", "debian", "pool/main/g/glibc/libc6.deb", 10, "0" * 64)
WHEEL = Wheel("idna", "3.20", "idna-3.20-py3-none-any.whl", 10, "1" * 64)
LOCK = Lock(lock.SCHEMA, "virt", "amd64", "2" * 64, 1795054374, (DEB,), (WHEEL,))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param('name = "virt"', 'nam = "virt"', "unknown field `nam`", id="unknown key"),
        pytest.param(
            "[packages]\n",
            "[packages]\nignore = []\n",
            r"unknown field `ignore` - at `\$.packages`",
            id="nested key",
        ),
        pytest.param(
            'suite = "trixie"', "suite = 13", r"Expected `str`, got `int` - at `\$.suite`", id="type"
        ),
        pytest.param('kind = "node"', 'kind = "vm"', "Invalid value 'vm'", id="kind"),
        pytest.param('kind = "node"', "kind =", "not TOML", id="syntax"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "virt.toml"
    text = VIRT.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ManifestError, match=message):
        manifest.load(path)


def test_a_manifest_extends_another_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "virt.toml").write_text(VIRT.read_text())
    path = tmp_path / "metal.toml"
    path.write_text('extends = "virt.toml"\nname = "metal"\n[kernel]\nmodules = ["igb"]\n')
    virt, metal = (manifest.load_kind(tmp_path / f"{name}.toml", NodeManifest) for name in ("virt", "metal"))
    changed = msgspec.structs.replace(virt.kernel, modules=(*virt.kernel.modules, "igb"))
    assert metal == msgspec.structs.replace(virt, name="metal", kernel=changed)


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        pytest.param("13", "extends must name another manifest of its folder", id="type"),
        pytest.param(
            '"../virt.toml"', "extends must name another manifest of its folder", id="another folder"
        ),
        pytest.param('"none.toml"', r"cannot read manifest .*none\.toml: No such file", id="none"),
        pytest.param('"metal.toml"', "metal.toml, which it extends, extends one itself", id="itself"),
    ],
)
def test_what_a_manifest_cannot_extend_is_named(tmp_path: Path, extends: str, message: str) -> None:
    path = tmp_path / "metal.toml"
    path.write_text(f"extends = {extends}\n")
    with pytest.raises(ManifestError, match=message):
        manifest.load(path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read manifest .*none\.toml: No such file"):
        manifest.load(tmp_path / "none.toml")


def test_a_manifest_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ManifestError, match="its kind is not 'container'"):
        manifest.load_kind(VIRT, ContainerManifest)


def test_the_kernel_package_follows_the_architecture() -> None:
    virt = manifest.load_kind(VIRT, NodeManifest)
    assert "linux-image-cloud-arm64" in manifest.wanted_packages(virt, "arm64")


@pytest.mark.parametrize("name", ["virt", "metal", "demo"])
def test_the_lock_in_the_repository_answers_its_manifest(name: str) -> None:
    path = ROOT / f"initramfs/{name}.toml"
    target = lock.path_of(path, "amd64")
    asked = manifest.request_checksum(manifest.load(path), "amd64", ROOT)
    lock.check_request(lock.load(target), asked, target)


@pytest.mark.parametrize("name", ["virt", "metal", "demo"])
def test_no_lock_and_no_manifest_names_a_host(name: str) -> None:
    for path in (ROOT / f"initramfs/{name}.toml", ROOT / f"initramfs/{name}.amd64.lock.json"):
        assert "://" not in path.read_text()


def test_the_image_has_the_versions_that_the_host_tests() -> None:
    host = (ROOT / "requirements.lock").read_text()
    for wheel in lock.load(ROOT / "initramfs/virt.amd64.lock.json").wheels:
        assert f"\n{wheel.name}=={wheel.version} " in f"\n{host}"


def test_changing_globs_needs_no_new_lock_but_changing_packages_does() -> None:
    virt = manifest.load_kind(VIRT, NodeManifest)
    asked = manifest.request_checksum(virt, "amd64", ROOT)
    other_files = msgspec.structs.replace(virt, files=manifest.Files())
    other_packages = msgspec.structs.replace(virt, packages=manifest.Packages(("busybox",)))
    assert manifest.request_checksum(other_files, "amd64", ROOT) == asked
    assert manifest.request_checksum(other_packages, "amd64", ROOT) != asked
    assert manifest.request_checksum(virt, "arm64", ROOT) != asked


def test_a_lock_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    lock.save(LOCK, tmp_path / "a.lock.json")
    assert lock.load(tmp_path / "a.lock.json") == LOCK


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param(msgspec.structs.replace(LOCK, schema=9), "schema 9, this builder reads 1", id="schema"),
        pytest.param(
            msgspec.structs.replace(LOCK, packages=(msgspec.structs.replace(DEB, sha256="xyz"),)),
            "libc6: sha256 is not 64 hexadecimal digits",
            id="checksum",
        ),
        pytest.param(
            msgspec.structs.replace(LOCK, wheels=(msgspec.structs.replace(WHEEL, size=0),)),
            "idna: size 0 is not positive",
            id="size",
        ),
        pytest.param(
            msgspec.structs.replace(LOCK, packages=(msgspec.structs.replace(DEB, path="../../etc/passwd"),)),
            "is not a relative path",
            id="path",
        ),
        pytest.param(
            msgspec.structs.replace(LOCK, packages=(msgspec.structs.replace(DEB, path="http://h/a.deb"),)),
            "is not a relative path",
            id="host",
        ),
    ],
)
def test_a_lock_that_cannot_be_right_is_refused(tmp_path: Path, changed: Lock, message: str) -> None:
    lock.save(changed, tmp_path / "a.lock.json")
    with pytest.raises(LockError, match=message):
        lock.load(tmp_path / "a.lock.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "make it anew", id="empty"),
        pytest.param(
            b'{"schema": 1, "colour": 2}', "unknown field `colour`|missing required", id="unknown key"
        ),
        pytest.param(None, "no such file; make it with 'zn image lock'", id="missing"),
    ],
)
def test_a_lock_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "a.lock.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LockError, match=message):
        lock.load(path)


def test_a_lock_for_another_question_says_what_to_do() -> None:
    with pytest.raises(LockError, match="run 'zn image lock --update'"):
        lock.check_request(LOCK, "3" * 64, Path("virt.amd64.lock.json"))


def test_a_changed_lock_shows_as_a_diff() -> None:
    newer = msgspec.structs.replace(LOCK, packages=(msgspec.structs.replace(DEB, version="2.41-13"),))
    assert lock.difference(LOCK, newer)[2:] == [
        "-libc6 2.41-12 000000000000",
        "+libc6 2.41-13 000000000000",
    ]
    assert lock.difference(LOCK, LOCK) == []
