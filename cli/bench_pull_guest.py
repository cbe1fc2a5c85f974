"""The program of `zn bench pull` beside a node: it has the node pull an image, and fetches the same layers by wget.

It begins and obeys as that of `zn bench containers` does, which lies in a folder beside it. Nothing here is imported
by `zn`.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode", "/bench.d"]

from cli import bench_containers_guest as beside
from core0.wire import paths

_PLAIN = "/plain"
_LONG = 1200.0
_LOOK_EVERY = 0.02


class Bench(beside.Bench):
    """What can be typed."""

    def pull(self, image: str) -> float:
        """Seconds from the request until the image is here; it is removed again."""
        begun = time.perf_counter()
        operation = self._ask("POST", "/v1/images/pull", {"image": image})
        end = time.monotonic() + _LONG
        while operation["state"] == "running" and time.monotonic() < end:
            operation = self._ask("GET", f"/v1/operations/{operation['id']}?wait=60")
        taken = time.perf_counter() - begun
        if operation["state"] != "done":
            raise OSError(f"the pull is {operation['state']}: {operation}")
        self._ask("POST", "/v1/images/gc")
        return taken

    def memory(self, image: str) -> int:
        """The most bytes that the puller's processes had at a time; what they wrote is not theirs."""
        found, ended = [0], threading.Event()

        def look() -> None:
            while not ended.wait(_LOOK_EVERY):
                found.extend(_anonymous(group) for group in Path(paths.CGROUP_SYSTEM).glob("pull-*"))

        watch = threading.Thread(target=look)
        watch.start()
        try:
            self.pull(image)
        finally:
            ended.set()
            watch.join()
        return max(found)

    def plain(self, *layers: str) -> float:
        """Seconds in which wget, gzip and tar fetch, unpack and list layers, one behind the other."""
        script = "for layer; do wget -q -O - $layer | gzip -d | tar -t; done"
        begun = time.perf_counter()
        subprocess.run(
            ["/usr/bin/sh", "-ec", script, "sh", *layers],
            env={"PATH": "/usr/bin"},
            stdout=subprocess.DEVNULL,
            check=True,
            preexec_fn=lambda: os.chroot(_PLAIN),
        )
        return time.perf_counter() - begun


def _anonymous(group: Path) -> int:
    with contextlib.suppress(FileNotFoundError, OSError):  # it ends when it is done
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        return next(int(value) for name, value in lines if name == "anon")
    return 0


if __name__ == "__main__":
    beside.main(Bench)
