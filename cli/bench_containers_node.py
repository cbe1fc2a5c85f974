"""A node's PID 1 on a machine of the operator's, for `zn bench containers --here`: begun by the program beside it.

An interpreter of its own, which has loaded what a node's PID 1 has and nothing else: all that it has is copied with
every container. Nothing here is imported by `zn`.
"""

import os
import resource
import socket
import sys
from collections.abc import Mapping

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0 import __main__ as programs
from core0.init import main as init
from core0.init import phases
from core0.linux import cgroups, files, namespaces
from core0.wire import cmdline

# What a node's PID 1 does to the whole machine.
_OF_MACHINE = ("root", "clock", "drivers", "kernel")
_COMMAND_LINE = "/run/cmdline"


def main(command_line: str) -> None:
    """Be PID 1, as far as this machine allows it."""
    namespaces.leave(namespaces.NEWCGROUP)
    _spare_machine()

    def mount(boot: phases.Boot) -> str:
        said = phases.mount_kernel_files(boot)
        with open(_COMMAND_LINE, "w") as file:  # noqa: PTH123 — PID 1 does without pathlib
            file.write(command_line)
        phases._set_loopback_up()
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            files.write(f"/proc/sys/net/{name}", "1")
        return said

    kept = (step for step in phases.STEPS if step.name not in _OF_MACHINE)
    steps = tuple(step._replace(run=mount) if step.name == "mounts" else step for step in kept)
    _replace(init, "_COMMAND_LINE", _COMMAND_LINE)
    _replace(init, "STEPS", steps)
    _spare_disks(command_line)
    programs.main([])


def _replace(module: object, name: str, value: object) -> None:
    setattr(module, name, value)


def _spare_disks(command_line: str) -> None:
    """Let the node daemon see none of this machine's disks; what that takes is loaded by itself alone."""
    run = programs._node

    def run_node(listener: socket.socket | None) -> None:
        from core0.disks import sysfs
        from core0.node import main as node

        _replace(sysfs, "observe", lambda *_: ())
        _replace(node, "_command_line", lambda: cmdline.parse(command_line))
        run(listener)

    _replace(programs, "_node", run_node)


def _spare_machine() -> None:
    """What is not to be had, or not to be done, on a machine that is somebody else's is left out."""
    create, write, setrlimit = cgroups.create, files.write, resource.setrlimit

    def create_without_controllers(path: files.StrPath, limits: Mapping[str, str] | None = None) -> None:
        create(path)
        names = os.listdir(path)  # noqa: PTH208 — as above
        there = {name: value for name, value in (limits or {}).items() if name in names}
        create(path, there)

    def write_what_may_be(path: files.StrPath, text: str) -> None:
        try:
            write(path, text)
        except PermissionError:
            if not str(path).endswith("oom_score_adj"):
                raise

    def limit_within(kind: int, wanted: tuple[int, int]) -> None:
        most = resource.getrlimit(kind)[1]
        setrlimit(kind, wanted if most < 0 else (min(wanted[0], most), min(wanted[1], most)))

    _replace(cgroups, "create", create_without_controllers)
    _replace(files, "write", write_what_may_be)
    _replace(cgroups, "set_idle", lambda *_: None)
    _replace(resource, "setrlimit", limit_within)
    _replace(phases, "forbid_sysrq", list)


if __name__ == "__main__":
    main(sys.argv[1])
