"""The program of `zn bench corex` beside a node: a container's Core-X, and other managers in containers of their own.

It begins and obeys as that of `zn bench containers` does, which lies in a folder beside it. The others run in the
same kind of container, as a process of a Core-X that has nothing else to do, and whether services run is seen the
same way for all: by the processes of the container's cgroup. Nothing here is imported by `zn`.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode", "/bench.d"]

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage

from cli import bench_containers_guest as beside
from core0.linux import mounts
from core0.wire import paths
from corex.wire.sessions import SESSION_PROTOCOL

_NAME, _TOKEN = "one", beside._TOKEN
_SECONDS = 120.0
_LOOK_EVERY = 0.01
# Seconds for which a connection certainly waits for the next request.
_KEPT = 20.0
# Seconds that everything has to come to rest before memory or idle time is looked at.
_REST = 2.0
_BUSYBOX = "/usr/bin/busybox"
_SERVICE = (_BUSYBOX, "sleep", "1000000")
_LIMITS = {"memory_mib": 1024, "cpus": os.cpu_count(), "processes": 16384, "storage_mib": 128}
_TMPFS = [{"target": "/services", "size_mib": 512, "executable": True}]
_PEERS: dict[str, tuple[str, ...]] = {
    "s6": ("/usr/bin/s6-svscan", "-C", "4096", "/services/s6"),
    "runit": ("/usr/bin/runsvdir", "/services/runit"),
    "supervisord": ("/usr/bin/python3", "/usr/bin/supervisord", "-c", "/services/supervisord/conf"),
}
# What tells each to end all that it runs, by its manual.
_ENDED_BY = {"s6": signal.SIGTERM, "runit": signal.SIGHUP, "supervisord": signal.SIGTERM}
_WRITTEN = 1_000_000
_LINE = "%07d of the lines that a service writes about what it was asked for, and by whom"
_WRITER = f'BEGIN {{ for (i = 1; i <= {_WRITTEN}; i++) printf "{_LINE}\\n", i }}'
_HEAD = struct.Struct("!BQ")
_BELIEVING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_BELIEVING.check_hostname, _BELIEVING.verify_mode = False, ssl.CERT_NONE  # only we are here


# Natively the node has process ids of its own, which this program is not among.
_PROC = "/run/bench-proc"
_FOLLOWED = "/run/followed"


class Bench(beside.Bench):
    """What can be typed."""

    def prepare(self, image: str) -> str:
        """Have the image, once the node answers."""
        said = super().prepare(image)
        Path(_PROC).mkdir()
        mounts.mount("proc", _PROC, "proc")
        return said

    def many(self, manager: str, count: int, idle: float) -> dict[str, float]:
        """Have so many services: until all run and until none does, what each takes, what they cost at rest.

        Args:
            manager: `ours`, or one of the others.
            count: services.
            idle: seconds to look at what the manager does while nothing happens; 0 for not at all.

        Returns:
            Seconds `start` and `stop`; bytes for `each` service; at rest the `busy` part of a processor, and how many
            `switches` there were per second.
        """
        with self._container() as container:
            runs = _Ours(container) if manager == "ours" else _Peer(container, manager)
            before = runs.memory_without()
            found = {"start": runs.start(count)}
            time.sleep(_REST)
            found["each"] = (_memory(runs.managers()) - before) / count
            if idle:
                found |= _at_rest(runs.managers(), idle)
            found["stop"] = runs.stop()
        return found

    def own(self, others: int) -> dict[str, float]:
        """Seconds from the request for a container to its Core-X's answer, and what Core-X takes at rest.

        Returns:
            Seconds to the `answer`; bytes of `memory` as the only one of the node, and `among` so many others.
        """
        begun = time.perf_counter()
        with self._container() as container:
            taken = time.perf_counter() - begun
            time.sleep(_REST)
            alone = _memory([container.first()])
            made = self._make(others)
            time.sleep(_REST)
            among = _memory([container.first()])
            for one in made:
                self._ask("DELETE", f"/v1/containers/{one['name']}")
        return {"answer": taken, "memory": alone, "among": among}

    def lines(self) -> dict[str, float]:
        """Write lines as fast as they are taken, with somebody who follows.

        Returns:
            `seconds` from the request to start what writes until Core-X has all of it and its end, and how many lines
            were `written`, `received`, and `declared` as a gap.
        """
        with self._container() as container:
            container.run("sh", "-c", f"{_BUSYBOX} awk '{_WRITER}' > /services/lines")
            argv = (_BUSYBOX, "dd", "if=/services/lines", "bs=64k", "status=none")
            container.ask("PUT", "/v1/processes/writer", {"argv": argv})
            reader = _keep(container.stream("/v1/processes/writer/logs?follow=true"))
            begun = time.perf_counter()
            container.ask("POST", "/v1/processes/writer/start")
            container.wait_for("writer", "exited")
            taken = time.perf_counter() - begun
            time.sleep(_REST)
        os.waitpid(reader, 0)
        records = [json.loads(line) for line in Path(_FOLLOWED).read_bytes().splitlines()]
        received = sum("text" in one for one in records)
        declared = sum(one.get("lost", 0) for one in records)
        return {"seconds": taken, "written": _WRITTEN, "received": received, "declared": declared}

    def echo(self, keys: int, flood: bool) -> list[float]:
        """Seconds from each keystroke in a terminal to its echo, maybe while another process floods its log."""
        with self._container() as container:
            if flood:
                container.ask("PUT", "/v1/processes/flood", {"argv": (_BUSYBOX, "yes"), "env": {}})
                container.ask("POST", "/v1/processes/flood/start?wait=10")
            spec = {"argv": (_BUSYBOX, "cat"), "window": {"rows": 24, "columns": 80}}
            session = container.ask("POST", "/v1/sessions", spec)["id"]
            terminal = _Terminal(container, session)
            terminal.strike()
            taken = [terminal.strike() for _ in range(keys)]
            terminal.close()
            return taken

    @contextlib.contextmanager
    def _container(self) -> "Iterator[_Container]":
        """A container whose one service of its own does nothing."""
        spec = {**self._spec(), "limits": _LIMITS, "tmpfs": _TMPFS}
        made = beside._running(self._ask("PUT", f"/v1/containers/{_NAME}?wait=60", spec))
        beside._wait_answer(made["corex"]["port"])
        container = _Container(made["corex"]["port"])
        try:
            yield container
        finally:
            container.close()
            self._connect()  # the API was not asked for longer than it keeps a connection
            self._drop([_NAME])


class _Container:
    """A container, by its Core-X and by its cgroup."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._http, self._asked = self._connect(), time.monotonic()
        self._group = Path(paths.CGROUP_CONTAINERS, _NAME)

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=_SECONDS, context=_BELIEVING)

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {_TOKEN}"} | (
            {"Content-Type": "application/json"} if data else {}
        )
        if time.monotonic() - self._asked > _KEPT:
            self._http.close()  # the next request opens it again
        self._http.request(method, path, data, headers)
        answer = self._http.getresponse()
        self._asked = time.monotonic()
        said = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status}: {said.decode()}")
        return json.loads(said) if said else None

    def stream(self, path: str) -> http.client.HTTPResponse:
        """An answer without an end, on a connection of its own."""
        connection = self._connect()
        connection.request("GET", path, headers={"Authorization": f"Bearer {_TOKEN}"})
        return connection.getresponse()

    def websocket(self, path: str) -> ssl.SSLSocket:
        """A connection that has become a WebSocket."""
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _BELIEVING.wrap_socket(plain)
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAuthorization: Bearer {_TOKEN}\r\n"
            "Upgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            f"Sec-WebSocket-Protocol: {SESSION_PROTOCOL}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        if b" 101 " not in head:
            raise OSError(f"there is no WebSocket: {head!r}")
        return connection

    def run(self, *command: str) -> None:
        """Run a command of busybox's to its end."""
        request = {"argv": (_BUSYBOX, *command), "timeout": _SECONDS}
        said = self.ask("POST", "/v1/exec", request)
        if said["exit"].get("code") != 0:
            raise OSError(f"{command} failed: {said}")

    def wait_for(self, process: str, state: str) -> None:
        """Wait until a process enters a state."""
        cursor = 0
        while True:
            page = self.ask("GET", f"/v1/events?after={cursor}&wait=60")
            if any(one["process"] == process and one["state"] == state for one in page["events"]):
                return
            cursor = page["next"]

    def processes(self) -> list[int]:
        """All processes of its cgroup."""
        lists = self._group.rglob("cgroup.procs")
        return [int(pid) for one in lists for pid in one.read_text().split()]

    def first(self) -> int:
        """Its Core-X."""
        return min(self.processes())


class _Runs:
    """What a manager makes of services."""

    def __init__(self, container: _Container) -> None:
        self.container = container
        self._own = container.processes()
        self._known: set[int] = set()

    def _wait(self, count: int) -> None:
        """Wait until so many services run; to see that costs little until there are enough processes."""
        end = time.monotonic() + _SECONDS
        while True:
            others = set(self.container.processes()).difference(self._own)
            if count <= len(others):
                self._known = {pid for pid in others if pid in self._known or _name(pid) == "busybox"}
            if len(self._known) == count:
                return
            if time.monotonic() > end:
                said = self.container.ask("GET", "/v1/logs?limit=20")["records"]
                raise OSError(
                    f"{len(self._known)} services run after {_SECONDS:.0f} s, wanted {count}: {said}"
                )
            time.sleep(_LOOK_EVERY)


class _Ours(_Runs):
    def memory_without(self) -> float:
        time.sleep(_REST)
        return _memory(self.managers())

    def managers(self) -> list[int]:
        return [self.container.first()]

    def start(self, count: int) -> float:
        services = {f"p{number}": {"argv": _SERVICE} for number in range(count)}
        begun = time.perf_counter()
        self.container.ask("PUT", "/v1/layers/bench", {"processes": services})
        self.container.ask("POST", "/v1/plan/apply")
        self._wait(count)
        return time.perf_counter() - begun

    def stop(self) -> float:
        begun = time.perf_counter()
        self.container.ask("DELETE", "/v1/layers/bench")
        self.container.ask("POST", "/v1/plan/apply")
        self._wait(0)
        return time.perf_counter() - begun


class _Peer(_Runs):
    def __init__(self, container: _Container, manager: str) -> None:
        super().__init__(container)
        self._manager = manager
        spec = {
            "argv": _PEERS[manager],
            "env": {"PATH": "/usr/bin"},
            "scope": "process",
            "limits": {"nofile": (16384, 16384)},
        }
        container.ask("PUT", "/v1/processes/peer", spec)
        self.start(1)  # which compiles what is written in Python
        self.stop()

    def memory_without(self) -> float:
        """With one service: not each of them runs without any."""
        self.start(1)
        time.sleep(_REST)
        found = _memory(self.managers())
        self.stop()
        return found

    def managers(self) -> list[int]:
        others = set(self.container.processes()).difference(self._own)
        return [pid for pid in others if _name(pid) != "busybox"]

    def start(self, count: int) -> float:
        self.container.run("sh", "/bench/services", self._manager, str(count))
        begun = time.perf_counter()
        self.container.ask("POST", "/v1/processes/peer/start")
        self._wait(count)
        return time.perf_counter() - begun

    def stop(self) -> float:
        begun = time.perf_counter()
        number = _ENDED_BY[self._manager]
        self.container.ask("POST", "/v1/processes/peer/signal", {"signal": str(int(number))})
        self._wait(0)
        taken = time.perf_counter() - begun
        self.container.ask("POST", "/v1/processes/peer/stop?wait=60")  # until Core-X knows, too
        return taken


class _Terminal:
    """A session's terminal, as a browser has it."""

    def __init__(self, container: _Container, session: str) -> None:
        self._socket = container.websocket(f"/v1/sessions/{session}/attach?client=bench")
        self._frames = Connection(ConnectionType.CLIENT)
        self._typed = self._seen = 0

    def close(self) -> None:
        """Leave without a word."""
        self._socket.close()

    def strike(self) -> float:
        """Type a letter; seconds until it is seen."""
        begun = time.perf_counter()
        message = _HEAD.pack(0, self._typed) + b"x"
        self._socket.sendall(self._frames.send(BytesMessage(message)))
        self._typed += 1
        while self._seen < self._typed:
            self._frames.receive_data(self._socket.recv(65536))
            for event in self._frames.events():
                if isinstance(event, BytesMessage):
                    self._seen += len(event.data) - _HEAD.size
                elif not isinstance(event, TextMessage):
                    raise OSError(f"the session ended: {event}")
        taken = time.perf_counter() - begun
        time.sleep(_LOOK_EVERY)
        return taken


def _keep(answer: http.client.HTTPResponse) -> int:
    """Have a process keep what is received, to be looked at later: that would take the writer's time.

    A thread cannot: who has left its namespace of process ids has no more of them (unshare(2)).
    """
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(http.client.HTTPException, OSError), Path(_FOLLOWED).open("wb") as file:
            while piece := answer.read1(1 << 20):
                file.write(piece)
        os._exit(0)
    return pid


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"{_PROC}/{pid}/comm").read_text().strip()
    return ""


def _memory(pids: list[int]) -> float:
    """Bytes of processes together: of what several share each counts its part (proc_pid_smaps(5), Pss)."""
    found = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            lines = (line.split() for line in Path(f"{_PROC}/{pid}/smaps_rollup").read_text().splitlines())
            found += next(int(fields[1]) << 10 for fields in lines if fields[0] == "Pss:")
    return found


def _at_rest(pids: list[int], seconds: float) -> dict[str, float]:
    before = [_work(pid) for pid in pids]
    time.sleep(seconds)
    after = [_work(pid) for pid in pids]
    used = [(two[0] - one[0], two[1] - one[1]) for one, two in zip(before, after, strict=True)]
    return {
        "busy": sum(time for time, _ in used) / 1e9 / seconds,
        "switches": sum(switches for _, switches in used) / seconds,
    }


def _work(pid: int) -> tuple[int, int]:
    """Nanoseconds that a process's threads had a processor, and how often they got one (sched-stats.rst)."""
    fields = [one.read_text().split() for one in Path(f"{_PROC}/{pid}/task").glob("*/schedstat")]
    return sum(int(one[0]) for one in fields), sum(int(one[2]) for one in fields)


if __name__ == "__main__":
    beside.main(Bench)
