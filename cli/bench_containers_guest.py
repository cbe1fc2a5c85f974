"""The program of `zn bench containers` beside a node: it makes containers by the node's API, and by other runtimes.

In a machine it is the first program, leaves a process behind and becomes the real /init, as `bench_guest.py` does. On
a machine of the operator's (`--here`) it begins in a folder that has the image's files, and its child is the node's
PID 1, in namespaces. Either way it does what is typed: a line is a JSON list of a verb and its arguments, the answer
is one line of JSON. Nothing here is imported by `zn`.
"""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.init import phases
from core0.linux import mounts, namespaces, tools
from core0.linux.modules import Modules
from core0.node.identity import make_certificate
from core0.wire import paths, ports

_FILES = "/bench.d"
# Of other runtimes' Core-X; nothing of the node's is there.
_PORT = 8900
_TOKEN = "bench" * 8
_SECONDS, _LONG = 120.0, 1200.0
_VOLUME = 16 << 20
_LOOK_EVERY = 0.005
# Hundreds of requests whose median counts.
_ROUNDS = 5
# Requests between two looks whether containers are gone.
_ANSWERS_AT_ONCE = 10
_REST = 0.5
_BELIEVING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_BELIEVING.check_hostname, _BELIEVING.verify_mode = False, ssl.CERT_NONE  # only we are here
# Become a node's PID 1 on a machine of the operator's.
_NODE = ("/usr/bin/python3.13", "-ISB", f"{_FILES}/node")
_SLEEP = ("/usr/bin/busybox", "sleep", "1000000")


def main(verbs: "Callable[[], Bench]") -> None:
    """Leave the process behind, become /init; with `--here` it is the node that is left behind."""
    if sys.argv[1:2] == ["--here"]:
        _begin_here(verbs(), *sys.argv[2:])
    elif os.fork() == 0:
        _serve_beside(verbs())
    else:
        os.execv("/init", ["/init", *sys.argv[1:]])  # noqa: S606 — the node's own first program


def _serve_beside(bench: "Bench") -> None:
    """In a machine: in mounts of its own."""
    os.setsid()
    namespaces.leave(namespaces.NEWNS)
    boot = phases.Boot()
    phases.leave_initial_root(boot)
    phases.mount_kernel_files(boot)
    console = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
    with os.fdopen(console, "rb") as lines:
        _obey(bench, lines, lambda said: os.write(console, said))


def _begin_here(bench: "Bench", command_line: str) -> None:
    """On the operator's machine: the node in namespaces of its own, but for the network, which is this process's.

    The kernel's settings stay as they are. Limits without a controller in version 2 of its cgroups are not set.
    """
    namespaces.leave(namespaces.NEWNS | namespaces.NEWPID | namespaces.NEWUTS | namespaces.NEWIPC)
    mounts.set_propagation_private()
    answers = os.dup(1)
    os.dup2(2, 1)
    node = os.fork()
    if node == 0:
        os.close(answers)  # else who reads them would not notice that this program has failed
        os.execv(_NODE[0], [*_NODE, command_line])  # noqa: S606 — with nothing loaded but what a node has
    _obey(bench, sys.stdin.buffer, lambda said: os.write(answers, said))
    os.kill(node, signal.SIGKILL)
    os.waitpid(node, 0)


def _obey(bench: "Bench", lines: Iterable[bytes], say: Callable[[bytes], object]) -> None:
    for line in lines:
        verb, *rest = json.loads(line)
        say(f"bench: {json.dumps(getattr(bench, verb)(*rest))}\n".encode())


class Bench:
    """What can be typed."""

    def __init__(self) -> None:
        self._api: http.client.HTTPSConnection | None = None
        self._image = ""

    def prepare(self, image: str) -> str:
        """Have the image, once the node answers, and make a container that is not measured."""
        self._image = image
        self.reach()
        self.ours()
        return "prepared"

    def reach(self) -> str:
        """Wait until the node answers."""
        end = time.monotonic() + _SECONDS
        while True:
            try:
                self._connect()
                self._ask("GET", "/v1/node")
            except (OSError, http.client.HTTPException):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return "reached"

    def _connect(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(f"{_FILES}/client.pem")
        self._api = http.client.HTTPSConnection("127.0.0.1", ports.API, timeout=_SECONDS, context=context)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        assert self._api  # noqa: S101 — `prepare` comes first
        text = None if body is None else json.dumps(body)
        self._api.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = self._api.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status}: {data.decode()}")
        return json.loads(data) if data else None

    def _spec(self) -> dict[str, Any]:
        return {"image": self._image, "token_sha256": hashlib.sha256(_TOKEN.encode()).hexdigest()}

    def ours(self) -> float:
        """Seconds from the request until the container's Core-X has answered, with network, cgroup and volume.

        The node is at rest before it, as it is between most containers: it has the next certificate ready.
        """
        self._ask("PUT", "/v1/volumes/one", {"size": _VOLUME})
        spec = {**self._spec(), "mounts": [{"volume": "one", "target": "/data"}]}
        time.sleep(_REST)
        begun = time.perf_counter()
        made = self._ask("PUT", "/v1/containers/one?wait=60", spec)
        _running(made)
        _wait_answer(made["corex"]["port"])
        taken = time.perf_counter() - begun
        self._drop(["one"])
        self._ask("DELETE", "/v1/volumes/one")
        return taken

    def _drop(self, names: Iterable[str]) -> list[float]:
        """Have containers gone; seconds that the API's answers took meanwhile."""
        for name in names:
            self._ask("DELETE", f"/v1/containers/{name}")
        end, taken = time.monotonic() + _SECONDS, []
        while self._ask("GET", "/v1/containers")["containers"]:
            if time.monotonic() > end:
                raise OSError("containers do not go")
            taken += [self._answer() for _ in range(_ANSWERS_AT_ONCE)]
        return taken

    def burst(self, count: int) -> dict[str, float]:
        """Seconds until so many containers run that were asked for at once, and until they are gone."""
        begun = time.perf_counter()
        made = self._make(count)
        running = time.perf_counter() - begun
        for one in made:
            _wait_answer(one["corex"]["port"])
        begun = time.perf_counter()
        self._drop(one["name"] for one in made)
        return {"running": running, "gone": time.perf_counter() - begun}

    def _make(self, count: int) -> list[Any]:
        names = [f"c{number}" for number in range(count)]
        for name in names:
            self._ask("PUT", f"/v1/containers/{name}", self._spec())
        return [self._settled(name) for name in names]

    def _settled(self, name: str) -> Any:
        """A container once it runs; those before it have their turns first."""
        end = time.monotonic() + _LONG
        while (found := self._ask("GET", f"/v1/containers/{name}?wait=60"))["state"] in (
            "pulling",
            "creating",
        ):
            if time.monotonic() > end:
                break
        return _running(found)

    def crowd(self, count: int) -> dict[str, Any]:
        """Bytes that so many containers take which all answer, by their cgroups and the machine; the API's answers.

        The first of them has the pages of the image's files, which belong to all.
        """
        alone, available = self._answers(), _available()
        made = self._make(count)
        for one in made:
            _wait_answer(one["corex"]["port"])
        taken = available - _available()
        self._connect()  # the API has not been asked for longer than it keeps a connection
        groups = (Path(paths.CGROUP_CONTAINERS, one["name"], "memory.current") for one in made[1:])
        used = [int(group.read_text()) for group in groups if group.exists()]
        beside = self._answers()
        begun = time.perf_counter()
        meanwhile = self._drop(one["name"] for one in made)
        return {
            "cgroup": sorted(used)[len(used) // 2] if used else None,
            "machine": taken / count,
            "alone": alone,
            "beside": beside,
            "meanwhile": _slowest(meanwhile),
            "gone": time.perf_counter() - begun,
            "left": _leftovers(),
        }

    def _answers(self) -> float:
        """Seconds in which 99 of 100 requests are answered: the median of some hundreds."""
        self._answer()  # the first one connects
        rounds = [_slowest([self._answer() for _ in range(100)]) for _ in range(_ROUNDS)]
        return sorted(rounds)[_ROUNDS // 2]

    def _answer(self) -> float:
        begun = time.perf_counter()
        self._ask("GET", "/v1/node")
        return time.perf_counter() - begun

    def workshop(self) -> str:
        """Have a root with other runtimes, and one for what they run: the node's own files, Core-X among them.

        A root that can be left for another: who is in a changed root only, or in the initial one, cannot.
        """
        if not Path(_FILES, "peers").exists():
            return "no other runtimes are here"
        with contextlib.suppress(OSError):  # a machine of the operator's has it in its kernel
            tools.mount_tools(Modules.of_running_kernel())
            tools.all_modules().load("overlay")
        namespaces.leave(namespaces.NEWNS)  # the node's processes keep their root
        Path("/run/here").mkdir()
        mounts.mount("tmpfs", "/run/here", "tmpfs")
        peers = "/run/here/peers"  # overlayfs does not take a folder over its own parent
        shutil.copytree(f"{_FILES}/peers", peers, symlinks=True)
        shop = _overlay("/run/here/shop", f"{peers}:/")
        Path(shop, "rootfs").mkdir()
        Path(shop, "bundle").mkdir()
        root = _overlay(f"{shop}/rootfs", f"{peers}:/", over="/run/here/of-root")
        certificate, key, _ = make_certificate("bench", for_browsers=True)
        main = {"argv": _SLEEP, "env": {}, "cwd": "/", "user": "0"}
        boot = {
            "name": "bench",
            "certificate": certificate,
            "key": key,
            "token_sha256": self._spec()["token_sha256"],
            "processes": {"main": main},
        }
        Path(root, "boot.json").write_text(json.dumps(boot))
        shutil.copy2(f"{_FILES}/alone", f"{root}/alone")
        for whole in (shop, root):
            Path(whole, "etc/machine-id").write_text("5a4e" * 8 + "\n")
        for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")):
            mounts.mount(kind, f"{shop}{place}", kind)
        mounts.mount("cgroup2", f"{shop}/sys/fs/cgroup", "cgroup2")
        for place in ("/tmp", "/var"):  # noqa: S108 — a root of nobody else's
            Path(shop + place).mkdir(exist_ok=True)
            mounts.mount("tmpfs", f"{shop}{place}", "tmpfs")
        Path(shop, "dev/shm").mkdir(exist_ok=True)
        mounts.pivot_into(os.open(shop, os.O_RDONLY | os.O_DIRECTORY))
        _configure_crun(Path("/bundle"))
        return "prepared"

    def peer(self, name: str) -> float:
        """Seconds from the start of another runtime until the Core-X that it runs has answered."""
        start, end = _PEERS[name]
        begun = time.perf_counter()
        with Path("/run/peer.log").open("wb") as log:
            runs = subprocess.Popen(
                start,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _wait_answer(_PORT, runs)
        taken = time.perf_counter() - begun
        if end:
            subprocess.run(end, env=_ENVIRONMENT, check=False, capture_output=True)
        else:
            os.killpg(runs.pid, signal.SIGTERM)
        runs.wait()
        return taken


_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin",
    "HOME": "/run",
    "SYSTEMD_LOG_LEVEL": "warning",
    "TMPDIR": "/run",
}
_ALONE = ("/usr/bin/python3.13", "-ISB", "/alone", str(_PORT))
_NSPAWN = ("--quiet", "--register=no", "--keep-unit", "--settings=no", "--resolv-conf=off", "--timezone=off")
_PODMAN = ("podman", "--storage-driver=vfs")
_PEERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "crun": (
        ("crun", "--cgroup-manager=cgroupfs", "run", "--bundle=/bundle", "bench"),
        ("crun", "delete", "--force", "bench"),
    ),
    "podman": (
        (*_PODMAN, "run", "--name=bench", "--network=host", "--pids-limit=0", "--rootfs", "/rootfs", *_ALONE),
        (*_PODMAN, "rm", "--force", "--time=0", "bench"),
    ),
    "systemd-nspawn": (("systemd-nspawn", *_NSPAWN, "--directory=/rootfs", *_ALONE), ()),
}


def _overlay(place: str, lower: str, over: str = "") -> str:
    """A writable view of some folders; gives the place."""
    over = over or f"{place}.d"
    for folder in (place, f"{over}/upper", f"{over}/work"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    options: dict[str, str | None] = {
        "lowerdir": lower,
        "upperdir": f"{over}/upper",
        "workdir": f"{over}/work",
    }
    mount = mounts.create("overlay", options)
    mounts.attach(mount, place)
    os.close(mount)
    return place


def _configure_crun(bundle: Path) -> None:
    """As `crun spec` has it, but in the node's network, and with files that can be written."""
    subprocess.run(["crun", "spec"], cwd=bundle, env=_ENVIRONMENT, check=True)
    config = bundle / "config.json"
    said = json.loads(config.read_text())
    said["process"] |= {"terminal": False, "args": _ALONE}
    said["root"] = {"path": "/rootfs", "readonly": False}
    said["linux"]["namespaces"] = [one for one in said["linux"]["namespaces"] if one["type"] != "network"]
    config.write_text(json.dumps(said))


def _running(made: Any) -> Any:
    if made["state"] != "running":
        raise OSError(f"container {made['name']} is {made['state']}: {made['why']}")
    return made


def _wait_answer(port: int, runs: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until a Core-X answers a request with 200."""
    end = time.monotonic() + _SECONDS
    while True:
        corex = http.client.HTTPSConnection("127.0.0.1", port, timeout=_SECONDS, context=_BELIEVING)
        try:
            corex.request("GET", "/v1/processes", headers={"Authorization": f"Bearer {_TOKEN}"})
            answer = corex.getresponse()
            answer.read()
        except OSError:
            if time.monotonic() > end or (runs and runs.poll() not in (None, 0)):
                said = Path("/run/peer.log").read_text() if runs else ""
                raise ValueError(f"nothing answers on port {port}: {said[-2000:]}") from None
            time.sleep(_LOOK_EVERY)
        else:
            if answer.status != 200:
                raise ValueError(f"Core-X said {answer.status}")
            return
        finally:
            corex.close()


def _slowest(taken: list[float]) -> float:
    """What 99 of 100 are within."""
    return sorted(taken)[len(taken) * 99 // 100 - 1] if taken else 0.0


def _available() -> int:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next(int(fields[1]) << 10 for fields in lines if fields[0] == "MemAvailable:")


def _leftovers() -> dict[str, int]:
    """What containers may have left: cgroups, links of the node, folders."""
    return {
        "cgroups": sum(one.is_dir() for one in Path(paths.CGROUP_CONTAINERS).iterdir()),
        "links": sum(one.name.startswith("zc") for one in Path("/sys/class/net").iterdir()),
    }


if __name__ == "__main__":
    main(Bench)
