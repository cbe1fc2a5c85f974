"""What a container on a booted node can do: no more than one by crun as podman runs it, and no known way out."""

import json
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from ci.pytest_machines import watched_during
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient
from core0.wire.secrets import SecretValue
from core0.wire.types import Container, ContainerSpec, SecretFile, TmpfsMount, VolumeMount
from core0.wire.volumes import VolumeSpec
from corex.client.client import RefusedError as CoreXRefusedError
from corex.wire.api import ExecRequest, ExecResult
from image.tree import Entry
from tests.core0.images.registry import entry, tar_of
from tests.vm import comparison, crun, python_root
from tests.vm.inside import gone, inside, running, settled, until
from tests.vm.layouts import layer_of_busybox, write_layout
from tests.vm.sabotage import brought, order, sabotage

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "containers.md"
BEGIN, END = "<!-- written by test_confinement.py -->\n", "<!-- to here -->\n"
COMMAND = "./zn test tests/vm/test_confinement.py --update-golden"
SECONDS, PROBE_SECONDS = 20.0, 300.0
PROGRAMS = ("prober.py", "attacker.py")
NODE, LAN, METADATA = "10.0.2.15", "10.0.2.2", "169.254.169.254"
Spec = Callable[..., ContainerSpec]
Connect = Callable[[Machine], Awaitable[NodeClient]]


@dataclass(frozen=True)
class Jail:
    """A node with a saboteur and a container that has Python."""

    machine: Machine
    node: NodeClient
    container: Container

    async def run(self, *argv: str, cwd: str = "/") -> ExecResult:
        """Run a program in the container."""
        async with inside(self.machine, self.container) as corex:
            return await corex.execute(ExecRequest(argv, cwd=cwd, timeout=PROBE_SECONDS))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def jail(
    image: Path,
    debian: list[Entry],
    oci: Path,
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    spec: Spec,
    connect: Connect,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Jail]:
    """One for all tests here."""
    write_layout(oci / "python", python_root.layer(image, *PROGRAMS))
    files = [*debian, *crun.files(image, "prober.py"), brought(HERE / "attacker.py")]
    boot = sabotage(direct_boot, tmp_path_factory.mktemp("jail"), files=files)
    async with Machine(
        MachineSpec("jail", boot), acceleration, tmp_path_factory.mktemp("machine")
    ) as machine:
        await machine.wait_for_line("saboteur: listens", SECONDS)
        await machine.wait_for_phase("ready", SECONDS)
        async with await connect(machine) as node:
            container = await running(node, "ours", spec("oci/python/", argv=python_root.WAIT))
            yield Jail(machine, node, container)


@pytest.fixture(autouse=True)
def watched(jail: Jail, request: pytest.FixtureRequest) -> Iterator[None]:
    with watched_during(request.node, jail.machine):
        yield


async def test_nothing_is_looser_than_by_crun_as_podman_runs_it_but_what_is_listed(
    jail: Jail, spec: Spec, request: pytest.FixtureRequest
) -> None:
    neighbour = await running(jail.node, "neighbour", spec())
    port = re.findall(r":(\d+)/", neighbour.spec.image)[0]
    both = [
        f"lan/{LAN}/{port}",
        f"node/{NODE}/8443",
        f"metadata/{METADATA}/80",
        f"neighbour/{neighbour.address}/80",
    ]
    theirs, own = await crun.run(
        jail.machine, *python_root.PYTHON, "/prober.py", *both, "gateway/10.89.0.1/8443"
    )
    done = await jail.run(*python_root.PYTHON, "/prober.py", *both, "gateway/169.254.1.1/8443")
    assert done.exit.code == 0, done.stderr.data
    names = comparison.call_names(ROOT / "initramfs/seccomp/syscalls.amd64.tsv")
    ours, its = (comparison.prepared(crun.unpacked(rows), own, names) for rows in (done.stdout.data, theirs))
    for row, words in KNOWN.items():
        assert its.get(row, set()) == words, f"the probe is wrong: {row}"
    assert len(its) > 10_000, "the probe did not look everywhere"

    if request.config.getoption("--update-golden"):
        write_page("\n".join(comparison.table(ours, its)))
    looser = [one for one in comparison.compare(ours, its) if one.looser and not one.reason]
    assert not looser


# What is known of podman's default: a probe that does not see that sees nothing.
KNOWN = {
    "call getpid": {"passes"},
    "call pause": {"passes"},
    "call fork": {"passes"},
    "call exit_group": {"passes"},
    "call mount": {"passes"},
    "call bpf": set(),
    "call io_uring_setup": set(),
    "i386 call 20": {"passes"},
    "unshare NEWUSER": {"passes"},
    "unshare NEWNET": set(),
    "mknod null": set(),
    "socket of family 2, stream": {"made"},
    "socket of family 2, raw": set(),
    "capabilities bnd": {"0", "1", "3", "4", "5", "6", "7", "8", "10", "18", "31"},
    "capabilities amb": set(),
    "path /proc/kcore": set(),
    "path /proc/sys/kernel/hostname": {"read"},
    "path /dev/null": {"read", "write"},
    "mount /sys": set(),
    "reach lan": {"answers"},
    "reach node": {"answers"},
    "reach gateway": {"answers"},
    "reach metadata": {"answers"},
    "reach neighbour": {"answers"},
}  # fmt: skip


def write_page(table: str) -> None:
    """Put the table into the documentation."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    said = f"{datetime.now(UTC):%Y-%m-%d}, by `{COMMAND}`:\n\n{table}\n\n"
    PAGE.write_text(f"{before}{BEGIN}{said}{END}{after}")


# By which error each is refused where it is not EPERM. What the kernel or the mount refuses comes behind the filter.
REFUSED_BY = {
    "clone3 into namespaces": "ENOSYS",
    "have io_uring": "ENOSYS",
    "use the 32-bit gate": "killed by SIGSYS",
    **dict.fromkeys(("make a cgroup", "leave the cgroup"), "EROFS"),
    **dict.fromkeys(("write to the console", "write to the kernel's log", "write to the memory"), "ENOENT"),
}
# What belongs to the node's root, whom the container has not, and what Core-X keeps to itself.
NOT_OURS = re.compile("write .*_|write modprobe|press|write below|.*(list|find|open) Core-X")


async def test_no_known_way_leads_out_of_a_container(jail: Jail) -> None:
    done = await jail.run(*python_root.PYTHON, "/attacker.py")
    assert done.exit.code == 0, done.stderr.data
    ended = json.loads(done.stdout.data)
    control = json.loads(await order(jail.machine, "run", "attacker.py", "control"))
    expected = {name: "EACCES" if NOT_OURS.match(name) else "EPERM" for name in control} | REFUSED_BY
    assert ended == expected
    assert control == dict.fromkeys(control, "passes"), "an attack that passes nowhere shows nothing"
    assert (await jail.node.container("ours")).pid == jail.container.pid


LEAKS = (
    *(f"/proc/self/fd/{number}" for number in range(3, 24)),
    "/proc/self/cwd",
    "/proc/self/root",
    "/proc/1/root",
)
# What the node's own files have and the container's root has not.
NODES_OWN = "usr/lib/zeronode"
LOOK = "import os; print(os.path.exists('/prober.py'), any(os.path.exists('../' * up + '{}') for up in range(9)))"
REFUSED = "it leads through links of /proc|No such file|Permission denied|Not a directory"


async def test_no_descriptor_nor_folder_of_core_x_leads_to_the_nodes_files(jail: Jail) -> None:
    """CVE-2024-21626: a working directory by a descriptor that the runtime has open outside of the container."""
    look = (*python_root.PYTHON, "-c", LOOK.format(NODES_OWN))
    assert (await jail.run(*look)).stdout.data == "True False\n"
    for leak in LEAKS:
        for below in ("", f"/{NODES_OWN}", "/../../../.."):
            with pytest.raises(CoreXRefusedError, match=REFUSED):
                await jail.run(*look, cwd=f"{leak}{below}")


async def test_the_program_of_core_x_cannot_be_written(jail: Jail) -> None:
    """CVE-2019-5736: a container's program that is the runtime's own, by /proc/self/exe."""
    script = "import os; print(os.open('/proc/self/exe', os.O_RDWR))"
    done = await jail.run("/proc/self/exe", *python_root.PYTHON[1:], "-c", script)
    assert "Permission denied" in done.stderr.data, "the runtime is the program, and nobody can write to it"
    with pytest.raises(CoreXRefusedError, match="Permission denied"):
        await jail.run("/proc/1/exe", *python_root.PYTHON[1:], "-c", script)


NO_FOLDER = "step root: cannot use the image: its /{} is no folder"
LINKS = {
    "proc": ("proc", NO_FOLDER.format("proc")),
    "sys": ("sys", NO_FOLDER.format("sys")),
    "dev": ("dev", NO_FOLDER.format("dev")),
    "etc": ("etc", NO_FOLDER.format("etc")),
    "the secrets' place": (
        "run",
        "step root: cannot open run in the container's root: Too many levels of symbolic",
    ),
    "a tmpfs's place": (
        "cache",
        "step root: cannot open cache in the container's root: Too many levels of symbolic",
    ),
    "a volume's place": (
        "data",
        "step root: cannot open data/here in the container's root: Too many levels of symbolic",
    ),
}


@pytest.mark.parametrize(("name", "refusal"), LINKS.values(), ids=LINKS)
async def test_a_link_of_an_image_in_place_of_a_folder_is_refused(
    jail: Jail, spec: Spec, oci: Path, name: str, refusal: str
) -> None:
    write_layout(oci / f"linked-{name}", tar_of(entry(name, type=tarfile.SYMTYPE, linkname="/tmp")))
    await jail.node.put_volume("data", VolumeSpec(16 << 20))
    await jail.node.put_secret("key", SecretValue(b"secret"))
    mounts, tmpfs = (VolumeMount("data", "/data/here"),), (TmpfsMount("/cache/here"),)
    wanted = spec(
        f"oci/linked-{name}/", argv=("/x",), mounts=mounts, tmpfs=tmpfs, secrets=(SecretFile("key"),)
    )
    await jail.node.put_container("linked", wanted)
    container = await settled(jail.node, "linked")
    assert container.state == "failed"
    assert refusal in container.why
    await jail.node.delete_container("linked")
    await until(gone(jail.node, "linked"))


async def test_devices_of_an_image_are_not_what_hides_files(jail: Jail, spec: Spec, oci: Path) -> None:
    """CVE-2025-31133: a /dev/null of the image that leads elsewhere, by which a runtime would hide /proc/kcore."""
    shown = entry("dev/null", type=tarfile.SYMTYPE, linkname="/proc/sysrq-trigger")
    folder = entry("dev", type=tarfile.DIRTYPE, mode=0o755)
    write_layout(oci / "nulls", joined(layer_of_busybox(), tar_of(folder, shown)))
    container = await running(jail.node, "nulls", spec("oci/nulls/"))
    script = "stat -c %F:%t:%T /dev/null /proc/kcore /proc/keys; cat /proc/kcore /proc/keys | wc -c"
    async with inside(jail.machine, container) as corex:
        done = await corex.execute(ExecRequest(("/bin/busybox", "sh", "-c", script)))
    assert done.stdout.data == "character special file:1:3\n" * 3 + "0\n", done.stderr.data
    await jail.node.delete_container("nulls")
    await until(gone(jail.node, "nulls"))


def joined(first: bytes, second: bytes) -> bytes:
    """One tar of two."""
    end = len(first.rstrip(b"\0"))
    return first[: end + -end % tarfile.BLOCKSIZE] + second


async def test_no_two_containers_have_a_user_in_common(jail: Jail, spec: Spec) -> None:
    other = await running(jail.node, "other", spec())
    ranges = []
    for container, program in ((jail.container, python_root.PYTHON[0]), (other, "/bin/cat")):
        words = (
            ("-c", "print(open('/proc/self/uid_map').read())")
            if program.endswith("3.13")
            else ("/proc/self/uid_map",)
        )
        async with inside(jail.machine, container) as corex:
            done = await corex.execute(ExecRequest((program, *words)))
        inner, outer, count = map(int, done.stdout.data.split())
        assert (inner, count) == (0, 65536)
        ranges.append(range(outer, outer + count))
    assert set(ranges[0]).isdisjoint(ranges[1])
    assert min(one.start for one in ranges) > 65535, "nor with the node"
