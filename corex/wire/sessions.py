"""Sessions: commands with a terminal or pipes that people attach to, and what is said on their WebSockets."""

from typing import Annotated, Literal

import msgspec

from corex.wire.api import Cursor, Exit
from corex.wire.process import ProcessName

# Own subprotocol: output by offset, input by offset, credit. docs/corex.md has its messages.
SESSION_PROTOCOL = "v1.session.zeronode"
# Kubernetes' remote command protocol (k8s.io/apimachinery, remotecommand constants): its channels' numbers.
KUBERNETES_PROTOCOL = "v5.channel.k8s.io"

Size = Annotated[int, msgspec.Meta(ge=1, le=4096)]
SessionId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]
# Names a client across its connections, so that it sends nothing twice.
ClientName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A terminal's size in characters."""

    rows: Size = 24
    columns: Size = 80


class SessionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A command to attach to.

    Attributes:
        argv: the program and its arguments; a program without a slash is looked up in env's PATH.
        env: the whole environment; without HOME it gets the user's of the container's /etc/passwd.
        cwd: working directory inside the container.
        user: as in `ProcessSpec.user`.
        window: the size of its terminal; None for pipes instead of a terminal.
        keep: seconds that it outlives its last viewer: who comes back within them finds it as it was, ended or not.
    """

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    cwd: str = "/"
    user: str = "0"
    window: Window | None = None
    keep: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 60.0


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session.

    Attributes:
        id: names it, until it is forgotten.
        spec: what it runs; the size of its terminal as it is now.
        state: whether its command runs.
        pid: process id inside the container, while it runs.
        since: when it was made, seconds since 1970 UTC.
        exit: how its command ended.
        viewers: how many are attached.
        written: bytes that the command has written so far.
    """

    id: SessionId
    spec: SessionSpec
    state: Literal["running", "ended"]
    pid: int | None
    since: float
    exit: Exit | None
    viewers: int
    written: int


class SessionList(msgspec.Struct, frozen=True):
    """All sessions, in the order of their making."""

    sessions: list[Session]


class BySession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Path of one session."""

    id: SessionId


class AttachQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to attach to a session.

    Attributes:
        id: which.
        after: how many bytes of its output are known already; the newest are sent where older ones are gone.
        client: a name of the client's own choice: under the same one it may come back and send what got lost.
    """

    id: SessionId
    after: Cursor = 0
    client: ClientName = "-"


class AttachProcessQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to attach to the terminal of a declared process, as in `AttachQuery`."""

    name: ProcessName
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    client: ClientName = "-"


class ExecQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command to run and attach to at once, as Kubernetes' clients ask for it; it ends with its WebSocket.

    Attributes:
        command: the program and its arguments, each in a parameter of its own.
        stdin: whether it gets a standard input.
        stdout: whether its standard output is wanted.
        stderr: whether its standard error is wanted.
        tty: whether it gets a terminal.
        container: Kubernetes' clients may name one; there is one only.
    """

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False
    container: str = ""


# What is said in text messages of the own subprotocol. Bytes go in binary ones with a head of nine bytes: the stream
# (0 input, 1 output, 2 error output) and in network byte order the number of bytes before them.


class Hello(msgspec.Struct, frozen=True, tag_field="kind", tag="hello"):
    """The first message: where output begins, how many bytes of this client's input have arrived, the size."""

    after: int
    accepted: int
    window: Window | None


class Lost(msgspec.Struct, frozen=True, tag_field="kind", tag="lost"):
    """So many bytes of output are gone that were not sent."""

    bytes: int


class Accepted(msgspec.Struct, frozen=True, tag_field="kind", tag="accepted"):
    """So many bytes of this client's input have arrived in all."""

    bytes: int


class Resized(msgspec.Struct, frozen=True, tag_field="kind", tag="resized"):
    """Somebody gave the terminal another size."""

    window: Window


class Ended(msgspec.Struct, frozen=True, tag_field="kind", tag="ended"):
    """The command has ended, and all of its output was sent."""

    exit: Exit


class Credit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="credit"):
    """The client takes so many bytes of output more."""

    bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]


class Resize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="resize"):
    """The client gives the terminal another size."""

    window: Window


class EndOfInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="eof"):
    """No more input: a pipe is closed, a terminal gets its end-of-file character."""


FromServer = Hello | Lost | Accepted | Resized | Ended
FromClient = Credit | Resize | EndOfInput
INPUT, OUTPUT, ERRORS = 0, 1, 2
# Bytes of output that a client takes before it has given any credit.
FIRST_CREDIT = 64 * 1024
# Bytes of input that a client may have sent without being told that they were accepted.
INPUT_AHEAD = 256 * 1024
