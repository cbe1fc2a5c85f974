"""What all containers together may have: what the config says, and never what the node itself needs."""

from pathlib import Path

from core0.containers.observe import observe_machine
from core0.linux import cgroups
from core0.wire.config import ContainersConfig
from core0.wire.control import Report
from core0.wire.room import memory_of_containers, processes_of_containers

_PERIOD = 100_000


def limit_all(config: ContainersConfig, group: Path, report: Report) -> None:
    """Limit the cgroup of all containers.

    Less memory than they have in use would end some of them: it is left as it was then, and told.
    """
    machine = observe_machine()
    memory = memory_of_containers(machine.memory)
    wanted = min(memory, config.memory_mib << 20) if config.memory_mib else memory
    used = cgroups.memory_in_use(group)
    if used > wanted:
        said = (
            f"they use {-(-used >> 20)} MiB of memory, more than the {wanted >> 20} MiB that they shall have"
        )
        report("config", "containers", f"Warning: {said}; stop some, and apply the config again")
    processes = processes_of_containers(machine.processes)
    limits = {
        **({} if used > wanted else {"memory.max": str(wanted)}),
        "pids.max": str(min(processes, config.processes or processes)),
        "cpu.max": f"{int(config.cpus * _PERIOD)} {_PERIOD}" if config.cpus else f"max {_PERIOD}",
    }
    try:
        cgroups.create(group, limits)
    except OSError as error:
        report("config", "containers", f"Alert: {error.strerror or error}")
