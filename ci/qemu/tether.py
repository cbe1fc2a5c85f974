"""The program between us and QEMU: it ties QEMU's life to its parent's, then becomes QEMU.

Run as `python -IS tether.py PARENT ARGV...`. A function between fork and exec (preexec_fn) would do the same,
but is unsafe once threads exist. prctl(2): the parent-death signal survives execve(2) of an ordinary program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, argv: list[str]) -> None:
    """Ask the kernel for SIGKILL when the parent ends, then exec `argv`.

    Raises:
        OSError: the program cannot be executed.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request: no signal will come
        sys.exit("cannot start the machine: the process that asked for it is gone")
    os.execvp(argv[0], argv)  # noqa: S606  the argument list is the machine's own


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
