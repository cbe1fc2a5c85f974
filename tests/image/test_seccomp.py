"""The container filter: executed for real in children, and complete against the tables of numbers."""

import ctypes
import errno
import os
import platform
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from image import seccomp

FOLDER = Path(__file__).parents[2] / "initramfs/seccomp"
POLICIES = sorted(FOLDER.glob("*.toml"))
POLICY = seccomp.load_policy(FOLDER / "policy.toml")
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
NUMBERS = seccomp.load_numbers(FOLDER / f"syscalls.{ARCH}.tsv")
FILTER = seccomp.build(POLICY, NUMBERS, ARCH)

CHILD = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
program = bytes.fromhex(sys.argv[1])
class Fprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
fprog = Fprog(len(program) // 8, program)
assert libc.prctl(22, 2, ctypes.byref(fprog), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
call = [ctypes.c_long(int(word)) for word in sys.argv[2:]]
result = libc.syscall(*call)
print(ctypes.get_errno() if result < 0 else 0, flush=True)
"""


def call(number: int, *arguments: int) -> int:
    """The errno of a system call made under the filter, 0 if it succeeded."""
    words = [FILTER.hex(), str(number), *map(str, arguments)]
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return int(done.stdout.split()[0])


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        pytest.param("getpid", (), 0, id="ordinary call passes"),
        pytest.param("mount", (0, 0, 0, 0, 0), errno.EPERM, id="mount is denied"),
        pytest.param("unshare", (0x10000000,), errno.EPERM, id="unshare is denied"),
        pytest.param("bpf", (0, 0, 0), errno.EPERM, id="bpf is denied"),
        pytest.param("keyctl", (0, 0, 0), errno.EPERM, id="keyctl is denied"),
        pytest.param("reboot", (0, 0, 0, 0), errno.EPERM, id="reboot is denied"),
        pytest.param("clone3", (0, 0), errno.ENOSYS, id="clone3 is absent"),
        pytest.param("io_uring_setup", (1, 0), errno.ENOSYS, id="io_uring is absent"),
        pytest.param(
            "clone", (0x10000000 | signal.SIGCHLD, 0, 0, 0, 0), errno.EPERM, id="clone of a user ns"
        ),
        pytest.param("clone", (0x40000000 | signal.SIGCHLD, 0, 0, 0, 0), errno.EPERM, id="clone of a net ns"),
        pytest.param("ioctl", (0, 0x5412, 0), errno.EPERM, id="TIOCSTI is denied"),
        pytest.param("ioctl", (0, 0x5412 | 1 << 32, 0), errno.EPERM, id="TIOCSTI with high bits is denied"),
        pytest.param("ioctl", (99, 0x5000940E, 0), errno.EPERM, id="BTRFS_IOC_SUBVOL_CREATE is denied"),
        pytest.param("ioctl", (99, 0x50009417, 0), errno.EPERM, id="BTRFS_IOC_SNAP_CREATE_V2 is denied"),
        pytest.param("ioctl", (99, 0x50009418, 0), errno.EPERM, id="BTRFS_IOC_SUBVOL_CREATE_V2 is denied"),
        pytest.param("ioctl", (99, 0x5000940F, 0), errno.EPERM, id="BTRFS_IOC_SNAP_DESTROY is denied"),
        pytest.param("ioctl", (99, 0x8030942B, 0), errno.EPERM, id="BTRFS_IOC_QGROUP_LIMIT is denied"),
        pytest.param("ioctl", (99, 0xC0109428, 0), errno.EPERM, id="BTRFS_IOC_QUOTA_CTL is denied"),
        pytest.param("ioctl", (99, 0x40049409, 0), errno.EBADF, id="FICLONE reaches the kernel"),
        pytest.param("ioctl", (99, 0x4020940D, 0), errno.EBADF, id="FICLONERANGE reaches the kernel"),
        pytest.param("ioctl", (99, 0xC0189436, 0), errno.EBADF, id="FIDEDUPERANGE reaches the kernel"),
        pytest.param("ioctl", (99, 0x5401, 0), errno.EBADF, id="another ioctl reaches the kernel"),
        pytest.param("personality", (0xFFFFFFFF,), 0, id="asking for the personality passes"),
        pytest.param("personality", (0x0040000,), errno.EPERM, id="ADDR_NO_RANDOMIZE is denied"),
        pytest.param("socket", (40, 1, 0), errno.EPERM, id="a vsock is denied"),
        pytest.param("socket", (1, 1, 0), 0, id="a Unix socket passes"),
    ],
)
def test_the_kernel_answers_as_the_policy_says(name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert call(NUMBERS[name], *arguments) == expected


@pytest.mark.parametrize("number", [max(NUMBERS.values()) + 1, 5000, 0x40000000 | 39])
def test_unknown_and_x32_numbers_are_absent(number: int) -> None:
    assert call(number) == errno.ENOSYS


def test_fork_and_exec_work_under_the_filter() -> None:
    script = CHILD + "import subprocess; subprocess.run(['/bin/true'], check=True); print('ran')"
    words = [FILTER.hex(), str(NUMBERS["getpid"])]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert "ran" in done.stdout


def test_a_filter_of_another_architecture_kills() -> None:
    other = "arm64" if ARCH == "amd64" else "amd64"
    foreign = seccomp.build(POLICY, seccomp.load_numbers(FOLDER / f"syscalls.{other}.tsv"), other)
    pid = os.fork()
    if pid == 0:
        _install_and_exit(foreign)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGSYS


def _install_and_exit(program: bytes) -> None:
    libc = ctypes.CDLL(None)
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.cast(program, ctypes.c_void_p).value)
    libc.prctl(38, 1, 0, 0, 0)
    libc.prctl(22, 2, fprog, 0, 0)
    os._exit(0)


@pytest.mark.parametrize("file", POLICIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_a_filter_answers_every_number_as_its_policy_says(arch: str, file: Path) -> None:
    policy = seccomp.load_policy(file)
    numbers = seccomp.load_numbers(FOLDER / f"syscalls.{arch}.tsv")
    program = list(struct.iter_unpack("<HBBI", seccomp.build(policy, numbers, arch)))
    denied = {name for group in policy.denied.values() for name in group.calls}
    by_number = {number: name for name, number in numbers.items()}
    for number in range(max(numbers.values()) + 3):
        name = by_number.get(number, "")
        if name in (*policy.conditional, *policy.only):
            continue
        expected = "allow" if name in policy.allowed else "EPERM" if name in denied else "ENOSYS"
        assert run(program, number, arch) == expected, (number, name)


def run(program: list[tuple[int, ...]], number: int, arch: str) -> str:
    """Interpret a filter for a call without arguments: an own reading of the BPF documentation."""
    data = {0: number, 4: {"amd64": 0xC000003E, "arm64": 0xC00000B7}[arch]}
    at = accumulator = 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = data.get(value, 0)
            case 0x05:
                at += value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x06:
                return {0x7FFF0000: "allow", 0x50001: "EPERM", 0x50026: "ENOSYS"}[value]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_every_call_of_a_policy_exists_somewhere(policy: Path) -> None:
    everywhere = {
        name for arch in ("amd64", "arm64") for name in seccomp.load_numbers(FOLDER / f"syscalls.{arch}.tsv")
    }
    assert set(seccomp._names(seccomp.load_policy(policy))) <= everywhere


def test_what_receives_streams_may_neither_mount_nor_reach_a_process() -> None:
    allowed = set(seccomp._names(seccomp.load_policy(FOLDER / "receive.toml")))
    for name in (
        "mount",
        "umount2",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "setns",
        "unshare",
        "kill",
        "tgkill",
    ):
        assert name not in allowed
    assert not allowed & {
        "ptrace",
        "process_vm_writev",
        "bpf",
        "socket",
        "open_by_handle_at",
        "io_uring_setup",
    }


def test_a_call_in_two_places_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('allowed = ["read"]\nconditional = []\nabsent = ["read"]\n[denied]\n')
    with pytest.raises(seccomp.PolicyError, match="read stands in it twice"):
        seccomp.load_policy(path)
