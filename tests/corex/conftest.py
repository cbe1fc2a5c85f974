"""A real Core-X: PID 1 of a pid namespace, with a real root file system for its children."""

import asyncio
import datetime
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core0.linux import cgroups
from corex.client.client import Client, Endpoint
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


@dataclass(frozen=True)
class Surroundings:
    """What containers of a test session share: the certificate and the node's filter of system calls."""

    identity: Identity
    seccomp: Path


@pytest.fixture(scope="session")
def surroundings(identity: Identity, system_call_filters: Path) -> Surroundings:
    return Surroundings(identity, system_call_filters / "seccomp.bpf")


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


@dataclass
class Container:
    """A running Core-X, seen from outside."""

    process: asyncio.subprocess.Process
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
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(SCRIPT),
        str(listener.fileno()),
        str(late_imports),
        str(root or "-"),
        str(surroundings.seccomp),
        str(group or "-"),
        str(console or FOLDER),
        stdin=asyncio.subprocess.PIPE,
        pass_fds=(listener.fileno(), late_imports),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    os.close(late_imports)
    endpoint = Endpoint(f"127.0.0.1:{listener.getsockname()[1]}", identity.fingerprint, TOKEN)
    listener.close()
    stack.push_async_callback(_end, process)
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(boot))
    process.stdin.close()
    client = await stack.enter_async_context(Client(endpoint))
    return Container(process, client, endpoint, report)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
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
            **processes: ProcessSpec,
        ) -> Container:
            return await launch(surroundings, processes, root, check, checks or {}, group, stack)

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
    pin = aiohttp.Fingerprint(bytes.fromhex(core.endpoint.fingerprint))
    connector = aiohttp.TCPConnector(ssl=pin)
    headers = {"Authorization": f"Bearer {core.endpoint.token}"}
    async with aiohttp.ClientSession(
        f"https://{core.endpoint.address}", connector=connector, headers=headers
    ) as http:
        yield http
