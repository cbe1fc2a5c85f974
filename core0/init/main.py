"""PID 1: boots by a table of phases, then supervises, reaps and waits to be told.

Synchronous and single-threaded; it wakes only for a signal, a uevent, a command or a start that is due.
"""

import errno
import gc
import math
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from core0.init import immortal, phases
from core0.init.phases import LATE, STEPS, Boot, BootError, Step
from core0.init.supervise import Service, Supervisor, ended_children, log, watch_children
from core0.linux import files, mounts, power
from core0.linux.modules import Modules
from core0.wire import cmdline, paths
from core0.wire.console import Phase, announce, format_phase

_COMMANDS = ("reboot", "poweroff")
_COMMAND_LINE = "/proc/cmdline"
# From asking the node's processes to end until they are killed, in seconds.
_STOP_DEADLINE = 5.0
# Seconds from starting the node's processes until the modules are loaded that no boot waits for.
_LATER = 5.0


def main(services: Sequence[Service]) -> NoReturn:
    """Be PID 1. Whatever goes wrong beyond help is printed, and the machine reboots."""
    try:
        _serve(_boot(), services)
    except BootError as error:
        _panic(f"cannot boot: {error}")
    except BaseException:  # noqa: BLE001 — PID 1 must never end
        _panic(traceback.format_exc())


def _panic(cause: str) -> NoReturn:
    """Print the cause, leave it readable for a while, reboot."""
    sys.stderr.write(f"\nzn: panic: {cause}\n")
    seconds = _panic_seconds()
    sys.stderr.write(f"zn: the node reboots in {seconds} s\n")
    sys.stderr.flush()
    time.sleep(seconds)
    power.end_machine("reboot")
    os._exit(1)  # the kernel refused to reboot: its own panic is what is left


def _panic_seconds() -> int:
    """What the command line says; /proc is not there yet when one of the first phases fails."""
    try:
        if not os.path.exists(_COMMAND_LINE):
            mounts.mount("proc", "/proc", "proc")
        return cmdline.parse(files.read_text(_COMMAND_LINE)).panic_seconds
    except OSError:
        return cmdline.CommandLine().panic_seconds


def _boot() -> Boot:
    """Run the table of phases. The boot log starts when /run is there."""
    early = [Phase("init", "done", time.clock_gettime(time.CLOCK_BOOTTIME))]
    os.write(1, (format_phase(early[0]) + "\n").encode())
    boot = Boot()
    for step in STEPS:
        phase = _run_phase(step, boot)
        if os.path.isdir(paths.RUN):
            _keep(early)
            announce(phase.name, phase.state, phase.detail)
        else:
            early.append(phase)
        if step.name == "mounts":
            _read_command_line(boot)
    return boot


def _run_phase(step: Step, boot: Boot) -> Phase:
    try:
        detail = step.run(boot)
    except (OSError, ValueError, KeyError) as error:
        if step.essential:
            raise BootError(f"phase {step.name}: {error}") from error
        return Phase(step.name, "failed", time.clock_gettime(time.CLOCK_BOOTTIME), str(error))
    return Phase(step.name, "done", time.clock_gettime(time.CLOCK_BOOTTIME), detail)


def _keep(early: list[Phase]) -> None:
    """Write the phases from before /run into the boot log, with their own times."""
    if not early:
        return
    with open(paths.BOOT_LOG, "a") as log:
        log.writelines(format_phase(phase) + "\n" for phase in early)
    os.write(1, "".join(format_phase(phase) + "\n" for phase in early[1:]).encode())
    early.clear()


def _read_command_line(boot: Boot) -> None:
    boot.command_line = cmdline.parse(files.read_text(_COMMAND_LINE))
    log(f"Warning: {warning}" for warning in boot.command_line.warnings)
    boot.modules = Modules.of_running_kernel()


def _serve(boot: Boot, services: Sequence[Service]) -> NoReturn:
    """The loop: start what is due, reap, load drivers of new devices, obey."""
    reaper, control = watch_children(), _control_socket()
    supervisor = Supervisor(services, time.monotonic())
    selector = selectors.DefaultSelector()
    selector.register(reaper, selectors.EVENT_READ)
    selector.register(control, selectors.EVENT_READ)
    if boot.hotplug:
        selector.register(boot.hotplug, selectors.EVENT_READ)
    immortal.freeze()
    log(supervisor.start_due(time.monotonic()))
    announce("supervise")
    log(phases.forbid_sysrq())
    gc.enable()
    later = time.monotonic() + (_LATER if phases.has_card() else 0.0)
    while True:
        due = min(supervisor.next_due() or math.inf, later)
        ready = selector.select(max(0.0, due - time.monotonic()) if due < math.inf else None)
        if time.monotonic() >= later:
            late = _run_phase(LATE, boot)
            announce(late.name, late.state, late.detail)
            traceback.format_exc()  # loads now what loads late (core0.importer): a panic may not be able to
            later = math.inf
        for key, _ in ready:
            if key.fileobj is control:
                _obey(control, supervisor)
            elif key.fileobj is reaper:
                _reap(reaper, supervisor)
            else:
                _load_drivers(boot)
        log(supervisor.start_due(time.monotonic()))


def _control_socket() -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    control.bind(paths.INIT_SOCKET)
    os.chmod(paths.INIT_SOCKET, 0o600)
    return control


# How a line of /proc/PID/cgroup begins for a process of a container, whether its cgroup is there or gone. Where
# version 1 of cgroups is in use, too (`zn bench containers --here`), there are more lines.
_OF_CONTAINERS = f"0::{paths.CGROUP_CONTAINERS.removeprefix(paths.CGROUP)}/"


def _reap(reaper: socket.socket, supervisor: Supervisor) -> None:
    """Reap every ended child: services start again, a container's end is written down for the node.

    Nobody asks for the end of others: what a service that died had started comes here, too.
    """
    of_containers: set[int] = set()

    def look(pid: int) -> None:
        try:
            groups = files.read_text(f"/proc/{pid}/cgroup").splitlines()
        except OSError:  # one file too many is better than a container whose end nobody knows
            groups = [_OF_CONTAINERS]
        if any(group.startswith(_OF_CONTAINERS) for group in groups):
            of_containers.add(pid)

    for pid, status in ended_children(reaper, look):
        said = supervisor.ended(pid, status, time.monotonic())
        if said:
            log([said])
        elif pid in of_containers:
            _record_exit(pid, status)


def _record_exit(pid: int, status: int) -> None:
    """Leave a container's wait status in a file that appears whole, for a node daemon that may be starting."""
    files.replace(f"{paths.EXITS}/{pid}", str(status).encode())


def _load_drivers(boot: Boot) -> None:
    for event in boot.hotplug.pending() if boot.hotplug else ():
        if event.action == "add" and event.modalias:
            log(boot.modules.load_all(boot.modules.matching(event.modalias)))


def _obey(control: socket.socket, supervisor: Supervisor) -> None:
    command = control.recv(64).decode(errors="replace")
    if command not in _COMMANDS:
        log([f"Command {command!a} ignored: known are {', '.join(_COMMANDS)}"])
        return
    log([f"Machine ends by command {command}"])
    supervisor.drain()
    end_processes()
    power.end_machine(command)


def end_processes() -> None:
    """SIGTERM to every process of the node and of its containers; SIGKILL to what has not ended by the deadline."""
    end = time.monotonic() + _STOP_DEADLINE
    _signal_all(signal.SIGTERM)
    while time.monotonic() < end:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.02)
    _signal_all(signal.SIGKILL)


def _signal_all(number: int) -> None:
    """Signal every process but this one and the kernel's own (kill(2), pid -1)."""
    try:
        os.kill(-1, number)
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise
