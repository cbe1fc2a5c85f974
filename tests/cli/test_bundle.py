"""OCI bundles as specs: what crun and podman write, what is lost of it, and what strangers write."""

import json
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.bundle import MASKED, MASKED_SYS, READ_ONLY, Bundle, translate
from cli.outcome import Failure
from core0.template import root
from core0.wire.types import Container
from image.rootfs import pack_folder
from tests.cli.conftest import Zn
from tests.host_node import HostNode

BUNDLES = Path(__file__).parent / "bundles"
DROPPED = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
ALLOWING = {"defaultAction": "SCMP_ACT_ALLOW"}
IMAGE = "http://127.0.0.1:9/demo/"


def load(name: str) -> dict[str, Any]:
    """What `crun spec` of Debian wrote, and what podman gives crun."""
    document: dict[str, Any] = json.loads((BUNDLES / f"{name}.json").read_text())
    return document


def read(document: object, **volumes: str) -> Bundle:
    return translate(document, volumes)


def lost(bundle: Bundle) -> dict[str, str]:
    return {line.field: line.why for line in bundle.lost}


def test_what_every_container_is_like_is_as_the_template_makes_it() -> None:
    assert (MASKED, MASKED_SYS, READ_ONLY) == (root._MASKED, root._MASKED_SYS, root._READ_ONLY)


def test_what_crun_writes_is_honoured_but_for_what_is_named() -> None:
    found = read(load("crun"))
    assert found.spec["argv"] == ("sh",)
    assert found.spec["env"] == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": "xterm",
    }
    assert (found.spec["user"], found.spec["cwd"], found.spec["hostname"]) == ("0:0", "/", "crun")
    assert (found.spec["read_only"], found.root) == (True, "rootfs")
    assert found.spec["drop_capabilities"] == DROPPED
    assert lost(found) == {
        "/process/terminal": "the main process has no terminal; its output is in the log",
        "/process/capabilities/ambient": "processes of other users than root have none",
        "/process/capabilities/bounding": "no container has AUDIT_WRITE",
        "/process/rlimits/0": "no limit but RLIMIT_NOFILE 65536 and RLIMIT_CORE 0 is set",
        "/linux/maskedPaths": "not /proc/asound",
    }


def test_what_podman_writes_is_honoured_but_for_what_is_named() -> None:
    found = read(load("podman"))
    assert found.spec["drop_capabilities"] == ()
    assert found.spec["limits"] == {"processes": 2048}
    assert found.spec["labels"]["io.container.manager"] == "libpod"
    said = lost(found)
    assert set(said) <= {
        "/mounts/7",
        "/linux/seccomp",
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/root/path",
    }, said
    assert "/run/containers" in said["/mounts/7"]


def test_every_field_that_says_something_has_a_line() -> None:
    """No field of either is passed over in silence."""
    for name in ("crun", "podman"):
        document = load(name)
        fields = {line.field for line in read(document).report}
        for place in leaves(document, ""):
            assert any(
                place == field or place.startswith(f"{field}/") or field.startswith(f"{place}/")
                for field in fields
            ), place


def leaves(value: object, at: str) -> list[str]:
    if isinstance(value, dict):
        return [place for key, inner in value.items() for place in leaves(inner, f"{at}/{key}")]
    return [at] if value not in (None, "", []) else []


def config(**fields: object) -> dict[str, object]:
    return {"ociVersion": "1.2.0", **fields}


@pytest.mark.parametrize(
    ("fields", "spec"),
    [
        (
            {"linux": {"resources": {"memory": {"limit": 256 << 20, "swap": 256 << 20}}}},
            {"limits": {"memory_mib": 256}},
        ),
        ({"linux": {"resources": {"cpu": {"quota": 50_000, "period": 100_000}}}}, {"limits": {"cpus": 0.5}}),
        ({"linux": {"resources": {"cpu": {"shares": 1024}}}}, {"limits": {"cpu_weight": 39}}),
        ({"process": {"oomScoreAdj": 300}}, {"priority": 50}),
        ({"process": {"user": {"uid": 33, "gid": 7}}}, {"user": "33:7"}),
        ({"annotations": {"a": "b"}}, {"labels": {"a": "b"}}),
        (
            {
                "mounts": [
                    {"destination": "/run/", "type": "tmpfs", "options": ["size=1500k", "mode=755", "noexec"]}
                ]
            },
            {"tmpfs": [{"target": "/run", "executable": False, "size_mib": 2, "mode": 0o755}]},
        ),
        (
            {"mounts": [{"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro"]}]},
            {"mounts": [{"volume": "data", "target": "/data", "read_only": True}]},
        ),
    ],
)
def test_what_we_have_is_taken_over(fields: dict[str, object], spec: dict[str, object]) -> None:
    found = translate(config(**fields), {"/srv/data": "data"})
    assert (found.spec, found.lost) == (spec, ())


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"hooks": {"prestart": [{"path": "/bin/sh"}]}}, "/hooks", "no program of a bundle runs outside"),
        ({"process": {"noNewPrivileges": False}}, "/process/noNewPrivileges", "no process gains any"),
        ({"process": {"user": {"uid": 70000}}}, "/process/user", "0 to 65535"),
        ({"process": {"user": {"umask": 0}}}, "/process/user/umask", "022"),
        ({"process": {"user": {"additionalGids": [5]}}}, "/process/user/additionalGids", "/etc/group"),
        ({"process": {"apparmorProfile": "x"}}, "/process/apparmorProfile", "no AppArmor"),
        ({"process": {"oomScoreAdj": -1000}}, "/process/oomScoreAdj", "end before the node's own"),
        (
            {"process": {"scheduler": {"policy": "SCHED_FIFO"}}},
            "/process/scheduler",
            "nothing here does that",
        ),
        ({"mounts": [{"destination": "/x", "type": "bind", "source": "/"}]}, "/mounts/0", "-v /=VOLUME"),
        ({"mounts": [{"destination": "/x", "type": "nfs"}]}, "/mounts/0", "no nfs at /x"),
        (
            {"mounts": [{"destination": "/sys", "type": "sysfs"}]},
            "/mounts/0",
            "no container can write to /sys",
        ),
        (
            {"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}},
            "/linux/namespaces/0",
            "no other's",
        ),
        (
            {"linux": {"namespaces": [{"type": "pid"}]}},
            "/linux/namespaces",
            "not the node's network, ipc, uts, mount",
        ),
        (
            {"linux": {"devices": [{"path": "/dev/kvm"}]}},
            "/linux/devices/0",
            "no container has the node's /dev/kvm",
        ),
        (
            {"linux": {"resources": {"devices": [{"allow": True, "access": "rwm"}]}}},
            "/linux/resources/devices/0",
            "six",
        ),
        (
            {"linux": {"resources": {"memory": {"limit": -1}}}},
            "/linux/resources/memory/limit",
            "memory_mib -1",
        ),
        ({"linux": {"resources": {"pids": {"limit": -1}}}}, "/linux/resources/pids/limit", "processes -1"),
        (
            {"linux": {"resources": {"cpu": {"cpus": "0-3"}}}},
            "/linux/resources/cpu/cpus",
            "nothing else of them",
        ),
        (
            {"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1 << 20}]}},
            "/linux/uidMappings",
            "65535",
        ),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}, "/linux/seccomp", "lets accept"),
        (
            {
                "linux": {
                    "seccomp": {**ALLOWING, "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}
                }
            },
            "/linux/seccomp",
            "lets chmod pass",
        ),
        ({"linux": {"intelRdt": {"closID": "x"}}}, "/linux/intelRdt", "nothing here does that"),
        ({"linux": {"sysctl": {"kernel.shmmax": "1"}}}, "/linux/sysctl/kernel.shmmax", "the node sets them"),
        ({"windows": {"layerFolders": ["x"]}}, "/windows", "nothing here does that"),
        ({"a/b~c": {"x": 1}}, "/a~1b~0c", "nothing here does that"),
    ],
)
def test_what_no_container_is_like_is_told(fields: dict[str, object], field: str, why: str) -> None:
    found = read(config(**fields))
    assert field in lost(found), found.report
    assert any(why in line.why for line in found.lost if line.field == field), found.lost


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "no ociVersion"),
        ({}, "no ociVersion"),
        ({"ociVersion": "2.0"}, "no ociVersion of 1"),
        (config(process=[1]), "/process"),
        (config(process={"args": "sh"}), "/process/args"),
        (config(process={"args": [1]}), "/process/args"),
        (config(process={"user": {"uid": "root"}}), "/process/user/uid"),
        (config(mounts=[{"type": "proc"}]), "/mounts/0/destination"),
        (config(linux={"namespaces": [{}]}), "/linux/namespaces/0/type"),
        (config(linux={"seccomp": {"syscalls": [{"names": "x"}]}}), "/linux/seccomp/syscalls/0/names"),
        (config(annotations={"a": 1}), "/annotations"),
    ],
)
def test_what_has_the_wrong_shape_is_refused_by_its_place(document: object, why: str) -> None:
    with pytest.raises(Failure, match=f"cannot use the config: .*{why}"):
        read(document)


def test_orders_to_a_terminal_do_not_reach_it() -> None:
    found = read(config(mounts=[{"destination": "/\x1b[2J", "type": "\x1b]0;x\x07"}]))
    assert all(line.why.isprintable() for line in found.report)


# the command


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "rootfs" / "bin").mkdir(parents=True)
    (folder / "rootfs" / "bin" / "sh").write_text("a program")
    (folder / "config.json").write_text(json.dumps(config(process={"args": ["sh"]}, root={"path": "rootfs"})))
    return folder


def test_a_report_needs_no_node(bundle: Path, zn: Zn) -> None:
    said = zn("container", "import", "web", str(bundle))
    assert said.code == 0
    assert "/process/args" in said.out
    lines = msgspec.json.decode(zn("container", "import", "web", str(bundle / "config.json"), "--json").out)
    assert {line["verdict"] for line in lines} == {"honoured", "by default"}


def test_a_bundle_becomes_a_container(served: HostNode, bundle: Path, zn: Zn, tmp_path: Path) -> None:
    words = ["--image", IMAGE, "--pack", str(tmp_path / "oci"), "--strict", "--wait", "0", "--json"]
    made = msgspec.json.decode(zn("container", "import", "web", str(bundle), *words).out, type=Container)
    assert (made.spec.image, made.spec.argv) == (IMAGE, ("sh",))
    assert (tmp_path / "oci" / "index.json").exists()


def test_strictly_nothing_may_be_lost(served: HostNode, bundle: Path, zn: Zn) -> None:
    (bundle / "config.json").write_text(json.dumps(config(hooks={"poststop": [{"path": "/x"}]})))
    said = zn("container", "import", "web", str(bundle), "--image", IMAGE, "--strict")
    assert (said.code, "not honoured are /hooks" in said.err) == (3, True)
    assert [one["name"] for one in zn("container", "ls", "--json").json()] == ["demo"]  # type: ignore[index, union-attr]


@pytest.mark.parametrize("path", ["../other", "/etc", "", ".", "link"])
def test_no_folder_outside_of_the_bundle_is_packed(bundle: Path, zn: Zn, tmp_path: Path, path: str) -> None:
    (tmp_path / "other").mkdir()
    (bundle / "link").symlink_to("/etc")
    (bundle / "config.json").write_text(json.dumps(config(root={"path": path})))
    said = zn("container", "import", "web", str(bundle), "--image", IMAGE, "--pack", str(tmp_path / "oci"))
    assert (said.code, "no folder inside of the bundle" in said.err) == (2, True)
    assert not (tmp_path / "oci").exists()


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b" " * (5 << 20)])
def test_what_is_no_config_is_exit_code_2(tmp_path: Path, zn: Zn, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert zn("container", "import", "web", str(tmp_path)).code == 2
    assert zn("container", "import", "web", str(tmp_path / "absent")).code == 2


def test_the_same_folder_is_the_same_image(tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc" / "file").write_bytes(b"content")
    (rootfs / "etc" / "link").symlink_to("/outside")
    (rootfs / "hard").hardlink_to(rootfs / "etc" / "file")
    digests = {pack_folder(rootfs, tmp_path / name, "amd64", {"Cmd": ["x"]}) for name in ("one", "two")}
    assert len(digests) == 1
    (digest,) = digests
    blobs = tmp_path / "one" / "blobs" / "sha256"
    manifest = json.loads((blobs / digest.removeprefix("sha256:")).read_text())
    layer = blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")
    with tarfile.open(layer) as archive:
        kinds = {one.name: one.type for one in archive.getmembers()}
    assert kinds == {
        "etc": tarfile.DIRTYPE,
        "etc/file": tarfile.REGTYPE,
        "etc/link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
    }
