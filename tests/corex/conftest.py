"""A real Core-X: PID 1 of a pid namespace, with a real root file system for its children."""

import asyncio
import datetime
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli import context
from cli.context import Context, CoreXEndpoint
from core0.linux import cgroups
from corex.client.client import Client, Endpoint
from corex.client.pin import Pin
from corex.console.assets import FOLDER
from corex.http.server import listen
from corex.wire.api import LogLine, ProcessInfo, State
from corex.wire.boot import Boot
from corex.wire.health import HealthCheck, HealthReport
from corex.wire.process import CheckSpec, ProcessSpec

TOKEN = "t" * 43
BUSYBOX = Path("/bin/busybox")
APPLETS = (
    *("sh", "sleep", "cat", "id", "pwd", "ls", "env", "dd", "tr", "setsid", "httpd", "test"),
    *("stty", "tty", "head", "wc", "yes", "kill"),
)
SCRIPT = Path(__file__).parent / "container.py"
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Identity:
    certificate: str
    key: str
    fingerprint: str


@pytest.fixture(scope="session")
def identity() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "corex-test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Identity(
        certificate.public_bytes(pem).decode(),
        key.private_bytes(pem, private, serialization.NoEncryption()).decode(),
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container's root made of Debian's static busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed: apt install busybox-static")
    root = tmp_path_factory.mktemp("root")
    for folder in ("bin", "dev/pts", "etc", "tmp", "proc", "home/web", "secret"):
        (root / folder).mkdir(parents=True)
    root.chmod(0o755)
    (root / "secret").chmod(0o700)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    if os.geteuid() == 0:
        os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))  # the shell needs it for '&'
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "bin/script").write_text("#!/missing/interpreter\n")
    (root / "bin/script").chmod(0o755)
    (root / "bin/data").write_text("not a program")
    (root / "bin/data").chmod(0o644)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nweb:x:1001:\naudio:x:29:web,other\n")
    return root


class Process:
    """Who waits for a Core-X, seen as asyncio shows processes.

    Attributes:
        returncode: Core-X's exit code, once it has ended.
    """

    def __init__(self, pid: int, report: int) -> None:
        """Wait for a process that tells an exit code by a pipe, or ends without a word."""
        self.pid = pid
        self.returncode: int | None = None
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._loop.add_reader(report, self._read)

    def _read(self) -> None:
        told = os.read(self._report, 1)
        self.returncode = told[0] if told else -signal.SIGKILL
        self._loop.remove_reader(self._report)
        os.close(self._report)
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Templates:
    """Processes that have loaded Core-X and fork it, one for each folder of a console's files."""

    def __init__(self, identity: Identity, seccomp: Path) -> None:
        self._identity, self._seccomp = identity, seccomp
        self._known: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}

    def fork(self, console: str, request: dict[str, str], descriptors: list[int]) -> int:
        """Fork a Core-X; the process id of who waits for it."""
        if console not in self._known:
            self._known[console] = self._start(console)
        _, talk = self._known[console]
        socket.send_fds(talk, [json.dumps(request).encode()], descriptors)
        return int(talk.recv(64))

    def _start(self, console: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = str(theirs.fileno())
        words = (sys.executable, "-W", "error", str(SCRIPT), number, str(self._seccomp), console)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with theirs:
            template = subprocess.Popen(
                words, stdin=subprocess.PIPE, pass_fds=(theirs.fileno(),), env=environment
            )
        assert template.stdin is not None
        warm_up = {"certificate": self._identity.certificate, "key": self._identity.key}
        template.stdin.write(json.dumps(warm_up).encode())
        template.stdin.close()
        return template, ours

    def close(self) -> None:
        for template, talk in self._known.values():
            talk.close()
            template.wait(30)


@dataclass(frozen=True)
class Surroundings:
    """What containers of a test session share: the certificate, and what forks them."""

    identity: Identity
    templates: Templates


@pytest.fixture(scope="session")
def surroundings(identity: Identity, system_call_filters: Path) -> Iterator[Surroundings]:
    templates = Templates(identity, system_call_filters / "seccomp.bpf")
    yield Surroundings(identity, templates)
    templates.close()


def children(pid: int) -> list[int]:
    """Of all threads of a process: the spawner's children belong to the spawner."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for listed in lists for child in listed.read_text().split()]


async def eventually(is_so: Callable[[], bool], seconds: float = 10) -> None:
    """Wait, by polling, until something that the kernel does not tell of is so."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


def state_of(pid: int) -> str:
    """The letter of proc(5), or nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


@asynccontextmanager
async def plain_http(
    endpoint: Endpoint, headers: dict[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP to a Core-X and nothing more; it leaves no connection behind that still says goodbye."""
    pin = Pin(bytes.fromhex(endpoint.fingerprint))
    connector = aiohttp.TCPConnector(ssl=pin)
    origin = f"https://{endpoint.address}"
    try:
        async with aiohttp.ClientSession(origin, connector=connector, headers=headers) as http:
            yield http
    finally:
        pin.end()
        await asyncio.sleep(0)


@dataclass
class Container:
    """A running Core-X, seen from outside."""

    process: Process
    client: Client
    endpoint: Endpoint
    late_imports: int

    async def exit_code(self, seconds: float = 30) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    @property
    def pid(self) -> int:
        """Core-X's process id on the host."""
        return children(self.process.pid)[0]

    def zombies(self) -> list[int]:
        """Core-X's dead children that nobody has reaped."""
        return [pid for pid in children(self.pid) if state_of(pid) == "Z"]

    async def until(self, name: str, state: State, seconds: float = 20) -> ProcessInfo:
        """Wait by events, not by polling, until a process is in a state."""
        cursor = 0
        async with asyncio.timeout(seconds):
            while (info := await self.client.process(name)).state != state:
                cursor = (await self.client.events(cursor, wait=5)).next
        return info

    async def until_health(self, accept: Callable[[HealthReport], bool], seconds: float = 20) -> HealthReport:
        """Wait, by polling, until what its check says is as wanted."""
        async with asyncio.timeout(seconds):
            while True:
                report = (await self.client.system()).health
                if report and accept(report):
                    return report
                await asyncio.sleep(0.02)

    async def output(self, name: str, lines: int, seconds: float = 20) -> list[str]:
        """Wait for a number of output lines of a process."""
        texts: list[str] = []
        async with asyncio.timeout(seconds), aclosing(self.client.follow(name)) as records:
            async for record in records:
                texts.append(record.text if isinstance(record, LogLine) else f"gap {record.lost}")
                if len(texts) == lines:
                    break
        return texts

    def imported_late(self) -> list[str]:
        with suppress(BlockingIOError):
            return os.read(self.late_imports, 65536).decode().split()
        return []


async def launch(
    surroundings: Surroundings,
    processes: dict[str, ProcessSpec],
    root: Path | None,
    check: HealthCheck | None,
    checks: dict[str, CheckSpec],
    group: Path | None,
    stack: AsyncExitStack,
    console: Path | None = None,
    name: str = "test",
    kept: Path | None = None,
) -> Container:
    """A Core-X that ends with the stack."""
    identity = surroundings.identity
    listener = listen("127.0.0.1", 0)
    report, late_imports = os.pipe()
    os.set_blocking(report, False)
    stack.callback(os.close, report)
    boot = Boot(
        name,
        identity.certificate,
        identity.key,
        hashlib.sha256(TOKEN.encode()).hexdigest(),
        processes,
        check,
        checks,
    )
    ended, telling = os.pipe()
    start_message = os.memfd_create("start message")
    os.write(start_message, msgspec.json.encode(boot))
    os.lseek(start_message, 0, os.SEEK_SET)
    request = {"root": str(root or "-"), "group": str(group or "-"), "kept": str(kept or "-")}
    descriptors = [listener.fileno(), late_imports, telling, start_message]
    pid = surroundings.templates.fork(str(console or FOLDER), request, descriptors)
    for descriptor in (late_imports, telling, start_message):
        os.close(descriptor)
    process = Process(pid, ended)
    endpoint = Endpoint(f"127.0.0.1:{listener.getsockname()[1]}", identity.fingerprint, TOKEN)
    listener.close()
    stack.push_async_callback(_end, process)
    client = await stack.enter_async_context(Client(endpoint))
    return Container(process, client, endpoint, report)


async def _end(process: Process) -> None:
    process.kill()
    await process.wait()


Start = Callable[..., Awaitable[Container]]


@pytest.fixture
async def start(surroundings: Surroundings) -> AsyncIterator[Start]:
    """Starts a Core-X: give it the root folder, its health check and the declared processes by name."""
    if os.geteuid() != 0:
        pytest.skip("pid namespaces need root")
    async with AsyncExitStack() as stack:

        async def container(
            root: Path | None = None,
            check: HealthCheck | None = None,
            checks: dict[str, CheckSpec] | None = None,
            group: Path | None = None,
            kept: Path | None = None,
            **processes: ProcessSpec,
        ) -> Container:
            return await launch(surroundings, processes, root, check, checks or {}, group, stack, kept=kept)

        yield container


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup of version 2, removed with all that is in it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2" and "rw" in fields[3].split(",")]
    if os.geteuid() != 0 or not places:
        pytest.skip("needs root and a cgroup file system of version 2")
    made = Path(tempfile.mkdtemp(prefix="corex-test-", dir=places[0]))
    yield made
    (made / "cgroup.kill").write_text("1")
    cgroups.remove(made)


@pytest.fixture
async def core(start: Start, busybox_root: Path) -> Container:
    """A Core-X without declared processes, its children in the busybox root."""
    container = await start(busybox_root)
    await container.client.health()
    return container


@pytest.fixture
def sh() -> Callable[..., ProcessSpec]:
    """Makes a specification that runs a shell script."""

    def specification(script: str, **fields: object) -> ProcessSpec:
        return msgspec.structs.replace(ProcessSpec(("sh", "-c", script)), **fields)

    return specification


@pytest.fixture
async def browser(core: Container) -> AsyncIterator[aiohttp.ClientSession]:
    """Asks that Core-X as a program that knows HTTP and nothing else."""
    async with plain_http(core.endpoint, {"Authorization": f"Bearer {core.endpoint.token}"}) as http:
        yield http


@dataclass(frozen=True)
class Done:
    """What `zn` printed, and its exit code."""

    code: int
    out: str
    err: str


Zn = Callable[..., Awaitable[Done]]


@pytest.fixture
def contexts(core: Container, tmp_path: Path) -> Path:
    path = tmp_path / "contexts.toml"
    token = context.write_token(path, "local-demo", core.endpoint.token)
    demo = CoreXEndpoint(core.endpoint.address, core.endpoint.fingerprint, token)
    context.put(path, "local", Context("127.0.0.1:1", "00" * 32, "operator.pem", container={"demo": demo}))
    return path


@pytest.fixture
def zn(contexts: Path) -> Zn:
    async def run(*words: str, stdin: bytes = b"", noun: str = "process", at: Path = contexts) -> Done:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli",
            "--contexts",
            str(at),
            noun,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1"},
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    return run
