"""How much of a machine all containers may have together, so that the node's own processes work whatever they do.

PID 1 says so to the kernel at boot, the node daemon again when a config asks for less.
"""

# Bytes of memory and threads that nobody takes from the node; on larger machines a sixteenth.
NODE_MEMORY, _NODE_THREADS, _SHARE = 64 << 20, 256, 16


def memory_of_containers(memory: int) -> int:
    """Bytes of memory, of all that the machine has."""
    return memory - max(NODE_MEMORY, memory // _SHARE)


def processes_of_containers(threads: int) -> int:
    """Processes and threads, of as many as the kernel lets there be."""
    return threads - max(_NODE_THREADS, threads // _SHARE)
