"""How a command ends: the documented exit codes, and which error means which. docs/cli.md shows the table."""

import enum
from collections.abc import Iterator


class ExitCode(enum.IntEnum):
    """What the shell gets."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    NOT_ALLOWED = 5
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "it was tried and did not work",
    ExitCode.USAGE: "the command line or the contexts file cannot be understood",
    ExitCode.REFUSED: "the node or Core-X said no: not found, in conflict, or invalid",
    ExitCode.UNREACHABLE: "nobody answers at the address",
    ExitCode.NOT_ALLOWED: "the key or token is not accepted, or the other side is not the pinned one",
    ExitCode.INTERRUPTED: "ended by Ctrl-C",
}


class Failure(Exception):  # noqa: N818  the end of a command, not always an error of the program
    """Ends the command with a message for people: cause and remedy, lower case.

    Args:
        message: as in 'cannot start the server: the port is taken; choose another with --port'.
        code: the exit code.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


# By class name along the hierarchy, so that knowing an error needs no import of its package.
_BY_NAME = {
    "core0.client.client.UnreachableError": ExitCode.UNREACHABLE,
    "core0.client.client.NotAllowedError": ExitCode.NOT_ALLOWED,
    "core0.client.client.WrongNodeError": ExitCode.NOT_ALLOWED,
    "core0.client.client.RefusedError": ExitCode.REFUSED,
    "corex.client.session.UnreachableError": ExitCode.UNREACHABLE,
    "corex.client.session.WrongCertificateError": ExitCode.NOT_ALLOWED,
    "corex.client.client.NotAllowedError": ExitCode.NOT_ALLOWED,
    "corex.client.client.RefusedError": ExitCode.REFUSED,
}
# Packages whose errors are written for people.
_SPOKEN = ("cli.", "ci.", "image.", "core0.", "corex.")


def explain(error: BaseException) -> tuple[ExitCode, str] | None:
    """The exit code and message of an error that people can act on; None for a defect of ours."""
    found = _explain(error)
    if found is None:
        return None
    return found[0], "\n".join((found[1], *getattr(error, "__notes__", ())))


def _explain(error: BaseException) -> tuple[ExitCode, str] | None:
    if isinstance(error, Failure):
        return error.code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, "interrupted"
    names = list(_class_names(type(error)))
    code = next((_BY_NAME[name] for name in names if name in _BY_NAME), None)
    if code is not None:  # what others say is one line of ours
        return code, str(error).replace("\n", "\\n")
    if isinstance(error, OSError) or names[0].startswith(_SPOKEN):
        return ExitCode.FAILED, str(error)
    return None


def _class_names(kind: type) -> Iterator[str]:
    for parent in kind.__mro__:
        yield f"{parent.__module__}.{parent.__qualname__}"
