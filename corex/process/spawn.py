"""Spawning: the only module that starts processes.

Core-X stays on the node's read-only runtime, its children live in the container's root. Both are one process,
so one thread of it, the spawner, leaves the shared root and working directory (unshare(2), CLONE_FS), enters
the container's root once and starts all children from there; a child's root is that of the thread that forks
it. What must be looked up by path inside the container (the program, the working directory, the accounts) is
looked up by the same thread, so no path of the container is ever resolved on the runtime's root. /proc/self has
links that lead there all the same, past any root (proc_pid_root(5); CVE-2024-21626): they are not followed.

`_posixsubprocess.fork_exec` is what subprocess itself uses: C between vfork and exec, with session, ids,
descriptors and signals in one call. `subprocess.Popen` around it waits for children that cannot be exec'd,
which in PID 1 is the reaper's job alone; os.posix_spawn has no user, group and error report.

What it cannot do between fork and exec (a terminal, limits, nice, a cgroup) is done by Python in an ordinary fork,
which costs a copy of the page tables: only children that ask for such a thing are made so.

The filter of system calls, no_new_privs and the bounding set are inherited from Core-X and not touched.
"""

import _posixsubprocess
import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import queue
import resource
import signal
import stat
import struct
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from corex.files.openat import AT_FDCWD, NO_MAGIC_LINKS, openat2
from corex.process import accounts
from corex.process.accounts import Account

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SPAWN_TIMEOUT = 30.0  # seconds; longer means that the container's storage does not answer
UMASK = 0o022
_MOST_DESCRIPTORS = 1 << 20
_CLONE_FS = 0x200

_PTMX = os.makedev(5, 2)  # Documentation/admin-guide/devices.txt
# asm-generic/ioctls.h: unlock the child's end, open it
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441

_libc = ctypes.CDLL(None, use_errno=True)


class Command(msgspec.Struct, frozen=True):
    """What to exec, and as what.

    Attributes:
        argv: the program and its arguments.
        env: the whole environment; without HOME it gets the user's from the container's /etc/passwd.
        cwd: the working directory.
        user: as in `ProcessSpec.user`.
        groups: supplementary groups by name or number; None takes the user's.
        umask: the file mode creation mask.
        limits: soft and hard value by the name of `ProcessSpec.limits`.
        nice: the nice value (setpriority(2)); 0 leaves Core-X's own.
        door: a descriptor of the cgroup's file that it enters its cgroup by; -1 to stay in Core-X's.
        terminal: rows and columns of the terminal that it gets instead of pipes, if it does.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str
    groups: tuple[str, ...] | None = None
    umask: int = UMASK
    limits: Mapping[Any, tuple[int, int]] = {}
    nice: int = 0
    door: int = -1
    terminal: tuple[int, int] | None = None

    @property
    def is_special(self) -> bool:
        """Whether it asks for what only an ordinary fork can do."""
        return bool(self.terminal or self.limits or self.nice or self.door >= 0)


class Child(msgspec.Struct, frozen=True):
    """A started child and our ends of its pipes; it leads its own session and process group.

    Of a terminal `stdin` and `stdout` are descriptors of the same end, and `stderr` is -1.
    """

    pid: int
    stdin: int
    stdout: int
    stderr: int


class SpawnError(Exception):
    """A child could not be started.

    Attributes:
        exit_code: what a shell would exit with: 127 for a program that is not there, else 126.
        pid: of a child that came into being and could not exec; the reaper gets it.
    """

    def __init__(self, reason: str, exit_code: int = 126, pid: int | None = None) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.pid = pid


class Spawner:
    """The spawner thread, seen from the event loop."""

    def __init__(self, root: int | None) -> None:
        """Prepare; `root` is a descriptor of the container's root folder, None to stay on our own root."""
        self._root = root
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="spawner", daemon=True)
        self._entered = threading.Event()
        self._refusal: OSError | None = None

    def start(self) -> None:
        """Start the thread and enter the root.

        Raises:
            OSError: the root cannot be entered.
        """
        self._thread.start()
        self._entered.wait()
        if self._refusal is not None:
            cause = os.strerror(self._refusal.errno or 0)
            raise OSError(self._refusal.errno, f"cannot enter the container's root: {cause}")

    def stop(self) -> None:
        """Let the thread end after what it does now."""
        self._orders.put(None)

    async def spawn(self, command: Command) -> Child:
        """Start a child.

        Raises:
            SpawnError: with the cause.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Child] = loop.create_future()
        self._orders.put(lambda: _answer(loop, answer, command))
        try:
            async with asyncio.timeout(SPAWN_TIMEOUT):
                return await answer
        except TimeoutError:
            raise SpawnError(f"the container's storage did not answer for {SPAWN_TIMEOUT:.0f} s") from None

    async def read(self, path: str) -> bytes:
        """The head of a regular file of the container, nothing if there is none.

        Raises:
            TimeoutError: the container's storage does not answer.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._orders.put(lambda: _tell(loop, _give, answer, _read_file(path)))
        async with asyncio.timeout(SPAWN_TIMEOUT):
            return await answer

    def _work(self) -> None:
        try:
            self._enter()
        except OSError as error:
            self._refusal = error
            return
        finally:
            self._entered.set()
        while order := self._orders.get():
            order()

    def _enter(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if _libc.unshare(_CLONE_FS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        if self._root is not None:
            os.fchdir(self._root)
            os.chroot(".")


def _answer(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Child], command: Command) -> None:
    try:
        child = spawn_now(command)
    except SpawnError as error:
        _tell(loop, _refuse, answer, error)
    else:
        _tell(loop, _hand_over, answer, child)


def _refuse(answer: asyncio.Future[Child], error: SpawnError) -> None:
    if not answer.done():
        answer.set_exception(error)


def _hand_over(answer: asyncio.Future[Child], child: Child) -> None:
    if answer.done():
        abandon(child)
    else:
        answer.set_result(child)


def _give(answer: asyncio.Future[bytes], data: bytes) -> None:
    if not answer.done():
        answer.set_result(data)


def _tell(loop: asyncio.AbstractEventLoop, deliver: Callable[..., None], *arguments: object) -> None:
    # The loop is closed when the container ends while a spawn is under way: nobody needs the answer.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(deliver, *arguments)


def abandon(child: Child) -> None:
    """Kill a child that nobody waits for any more."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for descriptor in (child.stdin, child.stdout, child.stderr):
        if descriptor >= 0:
            os.close(descriptor)


def spawn_now(command: Command) -> Child:
    """Start a child from the calling thread, in its root.

    Raises:
        SpawnError: with the cause.
    """
    account = _account(command)
    env = command.env if "HOME" in command.env else {**command.env, "HOME": _home(command.user)}
    _enter_folder(command.cwd, account)
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as childs:
        if command.terminal:
            stdin, stdout, child_end = _terminal(ours, childs, account, command.terminal)
            stderr, child_in, child_out, child_err = -1, child_end, child_end, child_end
        else:
            child_in, stdin = _pipe(childs, ours)
            stdout, child_out = _pipe(ours, childs)
            stderr, child_err = _pipe(ours, childs)
        report, child_report = _pipe(ours, childs)
        make = _fork_set_exec if command.is_special else _fork_exec
        pid = make(command, env, account, (child_in, child_out, child_err, child_report), report)
        childs.close()
        _check_report(report, pid, command)
        os.close(report)
        ours.pop_all()
        return Child(pid, stdin, stdout, stderr)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    try:
        ends = os.pipe()
    except OSError as error:
        raise SpawnError(f"no pipe: {error.strerror}") from None
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


def _terminal(
    ours: contextlib.ExitStack,
    childs: contextlib.ExitStack,
    account: Account | None,
    size: tuple[int, int],
) -> tuple[int, int, int]:
    """A terminal of the container's own devpts (pty(7)): our end, twice, and the child's, which its user owns."""
    try:
        end = _open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        ours.callback(os.close, end)
        if os.fstat(end).st_rdev != _PTMX:
            raise SpawnError("no terminal: the container's /dev/ptmx is something else")
        fcntl.ioctl(end, _TIOCSPTLCK, struct.pack("i", 0))
        # by the descriptor: whatever the container has put at /dev/pts is not looked at
        child_end = fcntl.ioctl(end, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        childs.callback(os.close, child_end)
        fcntl.ioctl(child_end, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        if account:
            os.fchown(child_end, account.uid, -1)
        second = os.dup(end)
    except OSError as error:
        raise SpawnError(
            f"no terminal: {error.strerror}; the container needs /dev/ptmx and /dev/pts"
        ) from None
    ours.callback(os.close, second)
    return second, end, child_end


def _fork_exec(
    command: Command,
    env: Mapping[str, str],
    account: Account | None,
    ends: tuple[int, int, int, int],
    report: int,
) -> int:
    child_in, child_out, child_err, child_report = ends
    ids: tuple[Any, Any, Any] = (
        (account.gid, list(account.groups), account.uid) if account else (None, None, None)
    )
    nothing: Any = None
    try:
        return _posixsubprocess.fork_exec(
            [os.fsencode(word) for word in command.argv],
            _candidates(command),
            True,  # close every other descriptor
            (child_report,),
            nothing,  # the working directory is the thread's
            [os.fsencode(f"{name}={value}") for name, value in env.items()],
            child_in,
            -1,
            -1,
            child_out,
            -1,
            child_err,
            report,
            child_report,
            True,  # give signals that Python ignores their default action again
            True,  # setsid
            -1,  # setsid made the group
            *ids,
            command.umask,
            nothing,
            True,  # vfork where no user is changed
        )
    except OSError as error:
        raise SpawnError(f"no process: {error.strerror}") from None
    except (ValueError, OverflowError) as error:
        raise SpawnError(str(error)) from None


def _fork_set_exec(
    command: Command,
    env: Mapping[str, str],
    account: Account | None,
    ends: tuple[int, int, int, int],
    _report: int,
) -> int:
    """The same with what only an ordinary fork can do; the child's report is the same, too."""
    try:
        pid = os.fork()
    except OSError as error:
        raise SpawnError(f"no process: {error.strerror}") from None
    if pid == 0:
        _become(command, env, account, ends)
    return pid


def _become(
    command: Command, env: Mapping[str, str], account: Account | None, ends: tuple[int, int, int, int]
) -> NoReturn:
    """In the child: never returns, never raises."""
    phase = "setup"
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.setsid()
        os.umask(command.umask)
        for ours, number in zip(ends, (0, 1, 2), strict=False):
            os.dup2(ours, number)
        if command.terminal:
            phase = "terminal"
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # ioctl_tty(2): its session's own
        if command.door >= 0:
            phase = "cgroup"
            os.write(command.door, b"0")
        os.closerange(3, ends[3])
        os.closerange(ends[3] + 1, _MOST_DESCRIPTORS)
        if command.nice:
            phase = "nice"
            os.setpriority(os.PRIO_PROCESS, 0, command.nice)
        for name, (soft, hard) in command.limits.items():
            phase = f"limit {name}"
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
        phase = "noexec"
        if account is not None:
            os.setgroups(account.groups)
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
        phase = ""
        _exec(_candidates(command), [os.fsencode(word) for word in command.argv], env)
    except OSError as error:
        os.write(ends[3], f"OSError:{error.errno or 0:x}:{phase}".encode())
    except ValueError:  # what setrlimit(2) calls EPERM: the type has ruled out the rest
        os.write(ends[3], f"OSError:{errno.EPERM:x}:{phase}".encode())
    except BaseException:  # noqa: BLE001  # whatever it is: this must not go on as Core-X
        os.write(ends[3], f"OSError:{errno.EINVAL:x}:{phase}".encode())
    finally:
        os._exit(255)


def _exec(candidates: list[bytes], argv: list[bytes], env: Mapping[str, str]) -> None:
    """Try one place after another; an error that says more than that it is not there is the one that counts."""
    environment = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
    kept: OSError | None = None
    for program in candidates:
        try:
            os.execve(program, argv, environment)  # noqa: S606  # no shell is what is wanted
        except OSError as error:
            if kept is None or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                kept = error
    raise kept or FileNotFoundError(errno.ENOENT, "")


def _candidates(command: Command) -> list[bytes]:
    program = command.argv[0]
    if "/" in program:
        return [os.fsencode(program)]
    folders = command.env.get("PATH", DEFAULT_PATH).split(":")
    return [os.fsencode(f"{folder}/{program}") for folder in folders if folder] or [
        b"/" + os.fsencode(program)
    ]


def _check_report(report: int, pid: int, command: Command) -> None:
    """Read the child's report: empty after exec, else `exception:errno in hexadecimal:phase`."""
    data = b""
    while piece := os.read(report, 1000):
        data += piece
    if not data:
        return
    _kind, number, phase = (*data.decode("ascii", "replace").split(":", 2), "", "")[:3]
    code = int(number or "0", 16)
    if phase.startswith("noexec"):
        raise SpawnError(f"it cannot become user {command.user[:80]}: {os.strerror(code)}", pid=pid)
    if phase:
        raise SpawnError(f"it cannot get its {phase}: {os.strerror(code)}", pid=pid)
    raise SpawnError(_exec_refusal(command, code), 127 if code == errno.ENOENT else 126, pid)


def _exec_refusal(command: Command, code: int) -> str:
    program = command.argv[0][:200]
    if code != errno.ENOENT:
        return f"{program!a}: {os.strerror(code)}"
    if "/" in program:
        return f"{program!a} or its interpreter is not in the container"
    return f"{program!a} is in no folder of PATH ({command.env.get('PATH', DEFAULT_PATH)[:300]})"


def _account(command: Command) -> Account | None:
    """The ids to change to, None if they are ours already."""
    user, groups = command.user, command.groups
    if groups is None and user in {"0", "0:0", "root"} and os.geteuid() == 0:
        return None
    try:
        found = accounts.resolve(user, _read_file("/etc/passwd"), _read_file("/etc/group"))
        if groups is not None:
            found = accounts.with_groups(found, groups, _read_file("/etc/group"))
    except LookupError as error:
        raise SpawnError(str(error)) from None
    unchanged = (found.uid, found.gid) == (os.geteuid(), os.getegid()) and os.geteuid() != 0
    return None if unchanged else found


def _home(user: str) -> str:
    return accounts.home_of(user, _read_file("/etc/passwd"))


def _read_file(path: str) -> bytes:
    """The head of a regular file, b'' if there is none; a pipe or device in its place is not waited for."""
    try:
        descriptor = _open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return b""
        try:
            return file.read(accounts.MAX_FILE)
        except OSError:
            return b""


def _enter_folder(folder: str, account: Account | None) -> None:
    with _with_access_of(account):
        try:
            descriptor = _open(folder, os.O_PATH | os.O_DIRECTORY)
            try:
                os.fchdir(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            why = "it leads through links of /proc" if error.errno == errno.ELOOP else error.strerror
            raise SpawnError(f"its working directory {folder[:200]!a}: {why}") from None


def _open(path: str, flags: int) -> int:
    """Open a path of the container; a link like /proc/self/root is not followed (ELOOP): it leads out of its root."""
    return openat2(AT_FDCWD, os.fsencode(path), flags | os.O_CLOEXEC, NO_MAGIC_LINKS)


@contextlib.contextmanager
def _with_access_of(account: Account | None) -> Iterator[None]:
    """Resolve paths with a user's rights: setfsuid(2) is the thread's own and drops CAP_DAC_OVERRIDE."""
    if account is None:
        yield
        return
    group, user = _libc.setfsgid(account.gid), _libc.setfsuid(account.uid)
    try:
        yield
    finally:
        _libc.setfsuid(user)
        _libc.setfsgid(group)
