#!/usr/bin/python3.13 -ISB
"""Known ways out of a container, each tried once: what is refused, and by which error.

Run as root of a container, where all of them must be refused, and as root of a node, where they pass: by that a test
knows that an attack is what it says. Prints a JSON object of what each ended with: an error's name, or `passes`.
The attacks on the process that made this one, PID 1 of a container, are tried on a child of this program's on a node.
Sources: the manual pages of the calls, and the numbers of the kernel's headers.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import pty
import signal
import struct
import sys
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
CALLS = {
    "ptrace": 101, "syslog": 103, "personality": 135, "pivot_root": 155, "mount": 165, "umount2": 166, "swapon": 167,
    "reboot": 169, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
    "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "kcmp": 312, "bpf": 321, "userfaultfd": 323,
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_open": 434, "clone3": 435,
    "pidfd_getfd": 438, "mount_setattr": 442, "clone": 56, "acct": 163, "clock_settime": 227, "vhangup": 153,
    "fanotify_init": 300, "sethostname": 170, "prlimit64": 302, "process_madvise": 440,
}  # fmt: skip
NEWNS, NEWUSER, NEWNET, NEWCGROUP = 0x20000, 0x10000000, 0x40000000, 0x2000000
MS_REMOUNT, MS_BIND, MNT_DETACH = 32, 4096, 2
AT_FDCWD, OPEN_TREE_CLONE, PTRACE_ATTACH = -100, 1, 16
TIOCSTI, BTRFS_SUBVOL_CREATE = 0x5412, 0x5000940E


def main() -> None:
    """Try everything; on a node, as a control, in mounts of its own."""
    if sys.argv[1:] == ["control"]:
        be_on_node()
        VICTIM[0] = spare_child()
    print(json.dumps({name: tried(attack) for name, attack in ATTACKS.items()}))


# Whom the attacks on processes are for: Core-X, or on a node a process that nobody needs.
VICTIM = [1]


def be_on_node() -> None:
    """Have a root and the kernel's file systems as the node's own processes have them."""
    sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]
    from core0.init.phases import Boot, leave_initial_root, mount_kernel_files
    from core0.linux import mounts, namespaces

    namespaces.leave(namespaces.NEWNS)
    mounts.set_propagation_private()
    leave_initial_root(Boot())
    mount_kernel_files(Boot())


def spare_child() -> int:
    """A process that waits for its end with this one's (PR_SET_PDEATHSIG)."""
    pid = os.fork()
    if not pid:
        LIBC.prctl(1, signal.SIGKILL)
        signal.pause()
    return pid


def tried(attack: Callable[[], object]) -> str:
    """How an attack ends, in a child, on a node with mounts of its own: it may change both."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        if VICTIM[0] != 1:
            call("unshare", NEWNS)
        os.write(writable, ended(attack).encode())
        os._exit(0)
    os.close(writable)
    with open(readable) as said:
        answer = said.read()
    _, status = os.waitpid(pid, 0)
    return answer or f"killed by {signal.Signals(os.WTERMSIG(status)).name}"


def ended(attack: Callable[[], object]) -> str:
    """The error's name, or `passes`: an error that is no refusal comes from behind the refusals."""
    try:
        attack()
    except OSError as error:
        return errno.errorcode[error.errno or 0] if error.errno in REFUSALS else "passes"
    return "passes"


REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS, errno.ENOENT, errno.ENXIO}


def call(name: str, *words: object) -> int:
    """A system call by its name. Raises OSError."""
    plain = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    ctypes.set_errno(0)
    result: int = LIBC.syscall(ctypes.c_long(CALLS[name]), *plain)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def calls(name: str, *words: object) -> Callable[[], object]:
    """An attack that is one call."""
    return lambda: call(name, *words)


def writes(path: str) -> Callable[[], object]:
    """An attack that is a file opened for writing."""
    return lambda: os.open(path, os.O_WRONLY | os.O_NOCTTY)


def reads(path: str) -> Callable[[], object]:
    """An attack that is a byte of a file of the victim's."""

    def attack() -> None:
        place = path.format(victim=VICTIM[0])
        if place.endswith("/"):
            os.listdir(place)
        else:
            os.read(os.open(place, os.O_RDONLY), 1)

    return attack


def follows(path: str) -> Callable[[], object]:
    """An attack that is a link of the victim's."""
    return lambda: os.readlink(path.format(victim=VICTIM[0]))


def makes_folder(path: str) -> Callable[[], object]:
    """An attack that is a folder made, and removed."""

    def attack() -> None:
        os.mkdir(path)
        os.rmdir(path)

    return attack


def makes_device(kind: int, major: int, minor: int) -> Callable[[], object]:
    """An attack that is a device of the node."""

    def attack() -> None:
        os.mknod("/tmp/attack-device", kind | 0o600, os.makedev(major, minor))
        os.unlink("/tmp/attack-device")

    return attack


def types_into_a_terminal() -> None:
    """TIOCSTI, which types what another process of the terminal will read."""
    _, terminal = pty.openpty()
    fcntl.ioctl(terminal, TIOCSTI, b"x")


def makes_a_subvolume() -> None:
    """Files in a subvolume of one's own count to no limit of the volume's."""
    fcntl.ioctl(os.open("/tmp", os.O_RDONLY), BTRFS_SUBVOL_CREATE, bytearray(4096))


def attaches() -> None:
    """ptrace(2) of the victim."""
    call("ptrace", PTRACE_ATTACH, VICTIM[0], 0, 0)


def reads_memory() -> None:
    """process_vm_readv(2) of the victim."""
    space = ctypes.create_string_buffer(8)
    iovec = struct.pack("=QQ", ctypes.addressof(space), 8)
    call("process_vm_readv", VICTIM[0], iovec, 1, iovec, 1, 0)


def takes_a_descriptor() -> None:
    """pidfd_getfd(2): the victim's socket, or what else it has."""
    call("pidfd_getfd", call("pidfd_open", VICTIM[0], 0), 0, 0)


def enters_by_process() -> None:
    """setns(2) into what the victim has."""
    call("setns", call("pidfd_open", VICTIM[0], 0), NEWNET)


def loads_a_program() -> None:
    """bpf(2): a map of one element."""
    call("bpf", 0, struct.pack("=IIII56x", 2, 4, 4, 1), 72)


def watches_the_processor() -> None:
    """perf_event_open(2): the clock of this process."""
    attributes = struct.pack("=IIQ", 1, 112, 0) + bytes(96)
    call("perf_event_open", attributes, 0, -1, -1, 0)


def clones_into_namespaces() -> None:
    """clone3(2), whose flags no filter sees."""
    if call("clone3", struct.pack("=QQQQQQQQ", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64) == 0:
        os._exit(0)


def enters_a_user_namespace() -> None:
    """clone(2) with all of them, as an unprivileged container tool does."""
    if call("clone", NEWUSER | NEWNS | NEWCGROUP | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


def calls_by_the_32_bit_gate() -> None:
    """A call by int 0x80, getpid: filters that know one architecture only are passed so."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("53 b814000000 cd80 5b c3"))  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def walks_out_of_a_root() -> None:
    """The old way out of chroot(2): a working directory outside of a new root leads up to the mount's root."""
    if VICTIM[0] != 1:  # on a node, out of a root that is not the mount's
        os.makedirs("/tmp/attack-tree/tmp")
        os.chroot("/tmp/attack-tree")
    inside = os.stat("/")
    os.mkdir("/tmp/attack-root")
    place = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/attack-root")
    os.fchdir(place)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    if (os.stat("/").st_dev, os.stat("/").st_ino) == (inside.st_dev, inside.st_ino):
        raise PermissionError(errno.EPERM, "it is the same root")


ATTACKS: dict[str, Callable[[], object]] = {
    # mounts
    "mount a tmpfs": calls("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "mount proc anew, without masks": calls("mount", b"proc", b"/tmp", b"proc", 0, None),
    "mount cgroups, for release_agent": calls("mount", b"none", b"/tmp", b"cgroup2", 0, None),
    "make /sys writable": calls("mount", None, b"/sys", None, MS_REMOUNT | MS_BIND, None),
    "take a mask from /proc": calls("umount2", b"/proc", MNT_DETACH),
    "copy a mount": calls("open_tree", AT_FDCWD, b"/", OPEN_TREE_CLONE),
    "move a mount": calls("move_mount", AT_FDCWD, b"/proc", AT_FDCWD, b"/tmp", 0),
    "open a file system": calls("fsopen", b"tmpfs", 0),
    "change a mount's attributes": calls(
        "mount_setattr", AT_FDCWD, b"/", 0, struct.pack("=4Q", 0, 0, 0, 0), 32
    ),
    "turn the root": calls("pivot_root", b"/tmp", b"/tmp"),
    "walk out of the root": walks_out_of_a_root,
    "open a file by its handle": calls("open_by_handle_at", AT_FDCWD, struct.pack("=Ii8x", 8, 1), 0),
    # namespaces
    "have a user namespace of one's own": calls("unshare", NEWUSER),
    "have mounts of one's own": calls("unshare", NEWNS),
    "clone into namespaces": enters_a_user_namespace,
    "clone3 into namespaces": clones_into_namespaces,
    "enter namespaces by a process": enters_by_process,
    # the kernel
    "write core_pattern": writes("/proc/sys/kernel/core_pattern"),
    "write modprobe": writes("/proc/sys/kernel/modprobe"),
    "press a SysRq key": writes("/proc/sysrq-trigger"),
    "write below /sys": writes("/sys/kernel/mm/transparent_hugepage/enabled"),
    "leave the cgroup": writes("/sys/fs/cgroup/cgroup.procs"),
    "make a cgroup": makes_folder("/sys/fs/cgroup/attack"),
    "load a module": calls("init_module", b"x", 1, b""),
    "unload a module": calls("delete_module", b"erofs", os.O_NONBLOCK),
    "load another kernel": calls("kexec_load", 0, 0, None, 0),
    "reboot": calls("reboot", 0xFEE1DEAD, 672274793, 0, None),
    "read the kernel's log": calls("syslog", 10, None, 0),
    "load a program into the kernel": loads_a_program,
    "watch the processor": watches_the_processor,
    "have io_uring": calls("io_uring_setup", 1, bytes(120)),
    "have page faults handled": calls("userfaultfd", 0),
    "have ports": calls("iopl", 3),
    "watch all files": calls("fanotify_init", 0, 0),
    "set the clock": calls("clock_settime", 0, None),
    "swap": calls("swapon", b"/tmp", 0),
    "account processes": calls("acct", None),
    "ask for quota": calls("quotactl", 0, None, 0, None),
    "make a subvolume": makes_a_subvolume,
    "use the 32-bit gate": calls_by_the_32_bit_gate,
    # keys
    "add a key": calls("add_key", b"user", b"attack", b"x", 1, -2),
    "ask for a key": calls("request_key", b"user", b"attack", None, 0),
    "read a keyring": calls("keyctl", 0, -3, 0),
    # devices and terminals
    "make a disk's device": makes_device(0o060000, 1, 0),
    "make the memory's device": makes_device(0o020000, 1, 1),
    "write to the console": writes("/dev/console"),
    "write to the kernel's log": writes("/dev/kmsg"),
    "write to the memory": writes("/dev/mem"),
    "type into a terminal": types_into_a_terminal,
    # Core-X
    "trace Core-X": attaches,
    "read Core-X's memory": reads_memory,
    "compare with Core-X": lambda: call("kcmp", os.getpid(), VICTIM[0], 1, 0, 0),
    "take a descriptor of Core-X": takes_a_descriptor,
    "open Core-X's memory": reads("/proc/{victim}/mem"),
    "open Core-X's maps": reads("/proc/{victim}/maps"),
    "open Core-X's environment": reads("/proc/{victim}/environ"),
    "list Core-X's descriptors": reads("/proc/{victim}/fd/"),
    "list Core-X's root": reads("/proc/{victim}/root/"),
    "list Core-X's folder": reads("/proc/{victim}/cwd/"),
    "find Core-X's program": follows("/proc/{victim}/exe"),
    "find Core-X's namespaces": follows("/proc/{victim}/ns/mnt"),
}

if __name__ == "__main__":
    main()
