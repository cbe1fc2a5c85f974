"""Ordinary images on a booted node, with their own entry points, users and volumes; one machine for all."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from ci.pytest_machines import check_console
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient
from core0.wire.secrets import SecretValue
from core0.wire.storage import PoolSpec, Selector
from core0.wire.types import Container, ContainerSpec, Exit, Limits, PublishedPort, SecretFile, VolumeMount
from core0.wire.volumes import VolumeSpec
from corex.client.client import Client
from corex.wire.api import ExecRequest, LogLine
from corex.wire.health import HealthCheck
from image.server import Running
from tests.disk_images import blank
from tests.vm import ordinary
from tests.vm.inside import TOKEN, inside, running, until
from tests.vm.layouts import BUSYBOX
from tests.vm.shelf import settled as disks_settled

pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs Debian's busybox-static")
SECONDS = 10.0
PASSWORD = "a password that only its secret knows"
DATABASE = "/var/lib/postgresql/data"
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
IDLE = ("sleep", "infinity")
PACKAGE = """set -e
exec 2>&1
export DEBIAN_FRONTEND=noninteractive
mkdir -p /tmp/hello/DEBIAN /tmp/hello/usr/bin
printf 'Package: hello\\nVersion: 1\\nArchitecture: all\\nMaintainer: me\\nDepends: bash\\nDescription: x\\n' \
    > /tmp/hello/DEBIAN/control
printf '#!/bin/sh\\nchown nobody:nogroup /usr/bin/hello\\n' > /tmp/hello/DEBIAN/postinst
chmod 755 /tmp/hello/DEBIAN/postinst
printf '#!/bin/sh\\necho installed\\n' > /tmp/hello/usr/bin/hello
chmod 755 /tmp/hello/usr/bin/hello
dpkg-deb --build /tmp/hello /tmp/hello.deb
apt-get install --yes /tmp/hello.deb
hello
stat -c %U /usr/bin/hello
"""


class Host:
    """The machine with a pool on its one disk, and what tests ask of it."""

    def __init__(self, machine: Machine, client: NodeClient, images: str) -> None:
        self.machine = machine
        self.client = client
        self._images = images

    def spec(self, image: str, **wanted: object) -> ContainerSpec:
        """A container of an ordinary image."""
        return ContainerSpec(
            f"{self._images}/{image}/",
            hashlib.sha256(TOKEN.encode()).hexdigest(),
            **wanted,  # type: ignore[arg-type]
        )

    async def volume(self, name: str, mib: int) -> None:
        await self.client.put_volume(name, VolumeSpec(mib << 20, "fast"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def host(
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    connect: Callable[[Machine], Awaitable[NodeClient]],
    server: Running,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Host]:
    folder = tmp_path_factory.mktemp("ordinary")
    spec = MachineSpec("ordinary", direct_boot, memory=1536, disks=(blank(folder, "one", 1 << 30),))
    async with Machine(spec, acceleration, folder) as machine:
        await machine.wait_for_phase("ready", SECONDS)
        async with await connect(machine) as client:
            await disks_settled(client, 1)
            pool = await client.put_pool("fast", PoolSpec(Selector(), format_blank=True), wait=60)
            assert pool.state == "online", pool.why
            yield Host(machine, client, f"http://10.0.2.2:{server.port}/oci/ordinary")
    check_console(machine.console, spec.name)


@pytest.fixture(scope="module")
def images(oci: Path) -> Path:
    """The folder of the images of this module."""
    folder = oci / "ordinary"
    folder.mkdir(exist_ok=True)
    return folder


async def said(corex: Client, *argv: str, env: dict[str, str] | None = None, user: str = "0") -> str:
    """What a command in a container says, which ends well."""
    paths = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    request = ExecRequest(argv, env={**paths, **(env or {})}, user=user, timeout=300)
    done = await corex.execute(request)
    assert done.exit.code == 0, done.stdout.data + done.stderr.data
    return done.stdout.data + done.stderr.data


async def logged(corex: Client) -> str:
    """What its processes said, as far as Core-X keeps it."""
    return "\n".join(line.text for line in (await corex.logs()).records if isinstance(line, LogLine))


async def restarted(host: Host, name: str) -> Container:
    await host.client.stop_container(name, wait=60)
    container = await host.client.start_container(name, wait=60)
    assert container.state == "running", container.why
    return container


async def test_scratch_has_one_static_program_and_nobody_by_name(host: Host, images: Path) -> None:
    ordinary.write_scratch(images / "scratch")
    container = await running(host.client, "scratch", host.spec("scratch"))
    async with inside(host.machine, container) as corex:

        async def told() -> bool:
            return ordinary.SAID.decode().strip() in await logged(corex)

        await until(told)
    await host.client.put_container("scratch", host.spec("scratch", restart="never"))
    ended = await host.client.container_end("scratch", wait=60)
    assert (ended.state, ended.exit) == ("failed", Exit(code=7)), (
        "the image's user is 7, and so is the exit code"
    )


async def test_busybox_ends_with_its_shell_and_serves_as_another_user(host: Host, images: Path) -> None:
    ordinary.write_busybox(images / "busybox")
    await host.client.put_container("once", host.spec("busybox", restart="never"))
    ended = await host.client.container_end("once", wait=60)
    assert (ended.state, ended.exit) == ("stopped", Exit(code=0)), (
        "a shell that has no input has nothing to do"
    )
    await host.volume("www", 32)
    served = host.spec(
        "busybox",
        argv=("httpd", "-f", "-p", "8000", "-h", "/var/www"),
        user="www-data",
        mounts=(VolumeMount("www", "/var/www"),),
        ports=(PublishedPort(node=8000, container=8000),),
    )
    container = await running(host.client, "web", served)
    async with inside(host.machine, container) as corex:
        await said(corex, "sh", "-c", "echo of a volume > /var/www/index.html")
        assert "www-data" in await said(corex, "ps", "-o", "user,args")
        assert await said(corex, "id", user="www-data") == "uid=33(www-data) gid=33(www-data)\n"
        assert await fetched(host.machine, 8000) == "of a volume\n"


async def fetched(machine: Machine, port: int) -> str:
    there = await machine.wait_for_port(port, SECONDS)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{there}/") as answer:
        assert answer.status == 200
        return await answer.text()


async def test_nginx_serves_by_workers_of_its_own_user(host: Host, images: Path) -> None:
    await ordinary.write_packed(images / "nginx", "demo")
    container = await running(
        host.client, "nginx", host.spec("nginx", ports=(PublishedPort(node=8080, container=80),))
    )
    assert "<html" in (await fetched(host.machine, 8080)).lower()
    async with inside(host.machine, container) as corex:
        assert (await corex.process("main")).spec.stop_signal == "SIGQUIT"
    stopped = await host.client.stop_container("nginx", wait=60)
    assert stopped.state == "stopped", stopped.why


async def test_redis_keeps_what_was_set_on_its_volume(host: Host, images: Path) -> None:
    await ordinary.write_packed(images / "redis", "redis")
    await host.volume("cache", 64)
    wanted = host.spec(
        "redis",
        mounts=(VolumeMount("cache", "/data"),),
        ports=(PublishedPort(node=6379, container=6379),),
        health=HealthCheck(argv=("redis-cli", "ping"), interval=1),
    )
    container = await running(host.client, "redis", wanted)
    await until(well(host.client, "redis"))
    assert await asked(host.machine, b"SET motd kept\r\n") == b"+OK\r\n"
    async with inside(host.machine, container) as corex:
        assert await said(corex, "redis-cli", "save") == "OK\n"
        assert await said(corex, "stat", "-c", "%U", "/data", "/data/dump.rdb") == "redis\nredis\n"
    await restarted(host, "redis")
    await until(well(host.client, "redis"))
    assert await asked(host.machine, b"GET motd\r\n") == b"$4\r\n"


def well(client: NodeClient, name: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        health = (await client.container(name)).health
        return health is not None and health.state == "healthy"

    return check


async def asked(machine: Machine, question: bytes) -> bytes:
    """The first line of redis's answer."""
    port = await machine.wait_for_port(6379, SECONDS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_postgres_makes_its_database_once_and_keeps_it(host: Host, images: Path) -> None:
    await ordinary.write_packed(images / "postgres", "postgres")
    await host.volume("db", 256)
    await host.client.put_secret("db", SecretValue(PASSWORD.encode()))
    wanted = host.spec(
        "postgres",
        user="postgres",
        env={"POSTGRES_PASSWORD_FILE": "/run/secrets/db"},
        mounts=(VolumeMount("db", DATABASE),),
        secrets=(SecretFile("db", uid=999, gid=999),),
        ports=(PublishedPort(node=5432, container=5432),),
        limits=Limits(memory_mib=256),
        health=HealthCheck(argv=("pg_isready", "-q"), interval=1, start_period=600),
    )
    container = await running(host.client, "postgres", wanted)
    await until(well(host.client, "postgres"), 300)
    async with inside(host.machine, container) as corex:
        await queried(corex, "CREATE TABLE notes (note text); INSERT INTO notes VALUES ('kept')")
        assert await said(corex, "stat", "-c", "%U %a", DATABASE) == "postgres 700\n"
        assert "FATAL:  password authentication failed" in await refused(corex)
    assert await asked_for_tls(host.machine) == b"N"
    container = await restarted(host, "postgres")
    await until(well(host.client, "postgres"), 120)
    async with inside(host.machine, container) as corex:
        assert await queried(corex, "SELECT note FROM notes") == "kept\n"
        assert "initdb" not in await logged(corex)


CLIENT = ("psql", "-h", "127.0.0.1", "-U", "postgres", "-tA", "-c")
POSTGRES_PATH = {"PATH": "/usr/lib/postgresql/17/bin"}


async def queried(corex: Client, query: str) -> str:
    """Ask by TCP, as a client with the password does."""
    return await said(corex, *CLIENT, query, env={**POSTGRES_PATH, "PGPASSWORD": PASSWORD})


async def refused(corex: Client) -> str:
    done = await corex.execute(
        ExecRequest((*CLIENT, "SELECT 1"), env={**POSTGRES_PATH, "PGPASSWORD": "another"})
    )
    assert done.exit.code == 2
    return done.stderr.data


async def asked_for_tls(machine: Machine) -> bytes:
    """What the server says through its published port to a client that would like TLS: one letter."""
    port = await machine.wait_for_port(5432, SECONDS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(SSL_REQUEST)
    answer = await reader.readexactly(1)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_debian_slim_installs_a_package_and_changes_users(host: Host, images: Path) -> None:
    await ordinary.write_packed(images / "slim", "slim")
    container = await running(
        host.client, "slim", host.spec("slim", argv=IDLE, limits=Limits(memory_mib=256))
    )
    async with inside(host.machine, container) as corex:
        assert "13." in await said(corex, "cat", "/etc/debian_version")
        assert await said(corex, "dpkg", "--audit") == ""
        assert "ii  apt " in await said(corex, "dpkg", "-l", "apt")
        assert "C.utf8" in await said(corex, "locale", "-a")
        lines = (await said(corex, "bash", "-c", PACKAGE)).splitlines()
        assert lines[-2:] == ["installed", "nobody"]
        become = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        assert (
            await said(corex, *become, "id") == "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n"
        )
        assert (
            await said(corex, *become, "bash", "-c", "echo x > /dev/shm/x && stat -c %U /dev/shm/x")
            == "nobody\n"
        )
        assert await said(corex, "cat", "/proc/sys/kernel/hostname") == "slim\n"
