"""The puller's own container: the whole way to an image within it, and what somebody who took it over would find."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core0.images.model import Job, Outcome, Resolved, parse_reference, sources_of
from core0.wire import paths
from core0.wire.images import ImagesConfig
from tests.core0.images.registry import Registry, digest_of, entry, gzipped, tar_of
from tests.core0.images.test_fetch import certified, known

ROOT = Path(__file__).parents[3]
TAR = tar_of(*(entry(f"file{number}", os.urandom(10_000)) for number in range(50)))
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("mkfs")]

# Runs the puller's verb with the paths of this machine; a test may put something in the place of the pull itself.
PULLER = """
import json, os, sys
sys.path.insert(0, {root!r})
from core0.wire import paths
paths.PULL_SECCOMP, paths.STORAGE = {seccomp!r}, {storage!r}
from core0.images import pull
{instead}
pull.main()
"""
OF_THIS_MACHINE = """
from core0.images import confine
confine._COVERED = tuple(place for place in confine._COVERED if place != "/tmp")
confine._READABLE += (paths.STORAGE, sys.base_prefix)
"""
# What somebody does who has taken over the puller; each try says what became of it.
THIEF = """
import ctypes, errno, socket, subprocess
from core0.images.model import PullError

def trial(what):
    try:
        said = what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return repr(said)

def steal(job, tell):
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number, *arguments):
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "no")

    found = {{
        "processes": trial(lambda: os.listdir("/proc")),
        "run": trial(lambda: sorted(os.listdir("/run"))),
        "sys": trial(lambda: os.listdir("/sys")),
        "tmp": trial(lambda: os.listdir("/tmp")),
        "root": trial(lambda: os.listdir("/root")),
        "secret": trial(lambda: open({secret!r}).read()),
        "write": trial(lambda: open("/usr/theft", "w")),
        "write etc": trial(lambda: open("/etc/theft", "w")),
        "write run": trial(lambda: open("/run/theft", "w")),
        "own folder": trial(lambda: open("/run/pull/mine", "w").write("x")),
        "pid": trial(os.getpid),
        "parent": trial(os.getppid),
        "kill": trial(lambda: os.kill({victim}, 9)),
        "unix": trial(lambda: socket.socket(socket.AF_UNIX)),
        "packet": trial(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "unshare": trial(lambda: call(272, 0x10000000)),
        "mount": trial(lambda: call(165, b"none", b"/run", b"tmpfs", 0, None)),
        "umount": trial(lambda: call(166, b"/proc", 2)),
        "ptrace": trial(lambda: call(101, 0, 0, 0, 0)),
        "bpf": trial(lambda: call(321, 0, 0, 0)),
        "io_uring": trial(lambda: call(425, 1, 0)),
        "keyctl": trial(lambda: call(250, 0, -3, 0)),
        "setuid": trial(lambda: os.setuid(0) if os.getuid() else call(105, 1)),
        "mknod": trial(lambda: call(133, b"/run/pull/node", 0o20666, 0x103)),
        "descriptors": trial(lambda: [one for one in range(3, 256) if is_open(one)]),
        "processes made": trial(lambda: subprocess.run(["/bin/true"]).returncode),
    }}
    raise PullError(json.dumps(found))

def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

pull.pull = steal
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The work folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run(job: Job, seccomp: Path, instead: str = "") -> list[Resolved | Outcome]:
    """What the puller says, in a process of its own."""
    program = PULLER.format(root=str(ROOT), seccomp=str(seccomp), storage=paths.STORAGE, instead=instead)
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        input=msgspec.json.encode(job),
        capture_output=True,
        timeout=60,
        cwd="/",
        env={"PATH": "/usr/bin"},
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    return [msgspec.json.decode(line, type=Resolved | Outcome) for line in done.stdout.splitlines()]


def test_an_image_comes_through_the_container(
    registry: Registry, work: Path, system_call_filters: Path
) -> None:
    digest = registry.push(gzipped(TAR), gzipped(tar_of(entry("x"))))["digest"]
    said = run(registry.job(work), system_call_filters / "pull.bpf", OF_THIS_MACHINE)
    assert len(said) == 2, said
    resolved, outcome = said
    assert isinstance(outcome, Outcome), said
    assert outcome.image, outcome.error
    assert (resolved, outcome.image.digest) == (Resolved(digest), digest)
    assert (work / f"{digest_of(TAR).removeprefix('sha256:')}.erofs").stat().st_size > 400_000
    assert len(list(work.iterdir())) == 2


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs Debian's zstd")
def test_tls_and_zstd_work_in_the_container(work: Path, tmp_path: Path, system_call_filters: Path) -> None:
    trust, ca = certified(tmp_path)
    packed = subprocess.run(["zstd", "-q"], input=TAR, capture_output=True, check=True).stdout
    with Registry(trust) as registry:
        digest = registry.push((TAR, packed, "+zstd"))["digest"]
        job = registry.job(work, config=known(registry, ca=ca))
        *_, outcome = run(job, system_call_filters / "pull.bpf", OF_THIS_MACHINE)
    assert isinstance(outcome, Outcome)
    assert outcome.image, outcome.error
    assert outcome.image.digest == digest


def test_a_registry_is_found_by_its_name_from_the_container(
    registry: Registry, work: Path, system_call_filters: Path
) -> None:
    digest = registry.push(gzipped(TAR))["digest"]
    named = parse_reference(f"{registry.origin.replace('127.0.0.1', 'localhost')}/demo:latest")
    job = Job(named, str(work), (), 1 << 30, sources_of(named, ImagesConfig()))
    *_, outcome = run(job, system_call_filters / "pull.bpf", OF_THIS_MACHINE)
    assert isinstance(outcome, Outcome)
    assert outcome.image, outcome.error
    assert outcome.image.digest == digest


def test_who_takes_the_puller_over_has_its_work_folder_and_the_network(
    registry: Registry, work: Path, tmp_path: Path, system_call_filters: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the node's key")
    with subprocess.Popen(["sleep", "60"]) as victim:
        thief = THIEF.format(secret=str(secret), victim=victim.pid)
        (outcome,) = run(registry.job(work), system_call_filters / "pull.bpf", thief)
        assert victim.poll() is None
        victim.kill()
    assert isinstance(outcome, Outcome)
    found: Mapping[str, Any] = json.loads(outcome.error)
    assert (work / "mine").read_text() == "x"
    assert {name: found[name] for name in EXPECTED} == EXPECTED


EXPECTED = {
    "processes": "['meminfo']",
    "run": "['pull']",
    "sys": "EACCES",
    "tmp": "EACCES",
    "root": "EACCES",
    "secret": "ENOENT",
    "write": "EACCES",
    "write etc": "EACCES",
    "write run": "EACCES",
    "own folder": "1",
    "pid": "1",
    "parent": "0",
    "kill": "ESRCH",
    "unix": "EPERM",
    "packet": "EPERM",
    "unshare": "ENOSYS",
    "mount": "ENOSYS",
    "umount": "ENOSYS",
    "ptrace": "ENOSYS",
    "bpf": "ENOSYS",
    "io_uring": "ENOSYS",
    "keyctl": "ENOSYS",
    "setuid": "ENOSYS",
    "mknod": "ENOSYS",
    "descriptors": "[]",
    "processes made": "0",
}


def test_a_puller_that_cannot_be_confined_fetches_nothing(
    registry: Registry, work: Path, tmp_path: Path
) -> None:
    registry.push(gzipped(TAR))
    (outcome,) = run(registry.job(work), tmp_path / "absent.bpf")
    assert isinstance(outcome, Outcome)
    assert "absent.bpf" in outcome.error
    assert (outcome.image, outcome.passing, registry.asked) == (None, True, [])


def test_a_puller_ends_with_the_process_that_started_it(
    registry: Registry, work: Path, system_call_filters: Path
) -> None:
    seccomp = system_call_filters / "pull.bpf"
    waits = "pull.pull = lambda job, tell: (tell(pull.Resolved('sha256:' + '0' * 64)), os.read(hold, 1))"
    reader, writer = os.pipe()
    program = PULLER.format(
        root=str(ROOT), seccomp=str(seccomp), storage=paths.STORAGE, instead=f"hold = {reader}\n{waits}"
    )
    words = [sys.executable, "-B", "-c", program]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(reader,)
    ) as started:
        assert started.stdin
        assert started.stdout
        started.stdin.write(msgspec.json.encode(registry.job(work)))
        started.stdin.close()
        assert started.stdout.readline(), "it runs"
        started.kill()
        assert started.stdout.read() == b"", "the container had the other end, and is gone"
    os.close(reader)
    os.close(writer)
