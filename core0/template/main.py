"""The template process: preloads what the node's own processes and Core-X need, and forks them all.

First the node daemon and the API process: sharing their modules saves 12 MB and importing them again at boot
(docs/decisions/0004-one-template.md). Then, on request, one Core-X per container, and with the first of them the
process that answers for names. A container becomes a child of PID 1 (CLONE_PARENT), so containers survive the loss of
the template and of everything else but PID 1.

The template holds no secret and reads one fixed message per container, with descriptors.
"""

import array
import gc
import importlib
import os
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Sequence

import msgspec

from core0.init import immortal
from core0.init.supervise import (
    Service,
    Supervisor,
    end_leftovers,
    ended_children,
    log,
    start,
    watch_children,
)
from core0.linux import cgroups, mounts, namespaces
from core0.linux.libc import in_words
from core0.template.child import Descriptors, be_container
from core0.template.messages import NAMES, Forked, Go
from core0.wire import paths

# Imported before the first fork: what the template writes after one is copied page by page.
_SHARED = (
    "asyncio",
    "core0.wire.control",
    "core0.wire.types",
    "corex.http.server",
    "corex.http.openapi",
)
_LARGEST = 4096
_GROUP = f"{paths.CGROUP_SYSTEM}/template"
# cgroup folder, the child's half of the talk with the node, Core-X's listening socket, its start message, its log.
_DESCRIPTORS = 5


def main(node: Service, api: Service, names: Service) -> None:
    """Serve for ever. The socket is root's only, and so is this process until it has forked."""
    for module in _SHARED:
        importlib.import_module(module)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # OpenSSL looks its algorithms up once, for all forks
    immortal.freeze()
    children, supervisor = watch_children(), Supervisor((node, api), time.monotonic())
    log(supervisor.start_due(time.monotonic()))
    _preload()
    runtime = mounts.clone_tree("/")
    mounts.set_attributes(runtime, mounts.ATTR_RDONLY | mounts.ATTR_NOSUID | mounts.ATTR_NODEV)
    listener = _listen()
    with selectors.DefaultSelector() as selector:
        selector.register(children, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            due = supervisor.next_due()
            for key, _ in selector.select(None if due is None else max(0.0, due - time.monotonic())):
                if key.fileobj is listener:
                    _accept(listener, runtime, names)
            ended = (supervisor.ended(*child, time.monotonic()) for child in ended_children(children))
            log(said for said in ended if said)
            log(supervisor.start_due(time.monotonic()))


def _preload() -> None:
    """Load Core-X and warm it up, when nobody else wants the processor: a boot waits for the other two."""
    cgroups.set_idle(_GROUP, True)
    from core0.node.identity import make_certificate
    from core0.template.density import fill_holes, gather
    from core0.template.immortal import make_immortal
    from core0.template.written import WRITTEN
    from corex.preload import preload
    from corex.process.memory import release

    certificate, key, _ = make_certificate("warm-up", for_browsers=True)
    msgspec.json.Decoder(Go)  # msgspec looks at a type when it first meets it
    gather(WRITTEN)  # all of it has been imported, and nothing has run that is warmed up
    preload(certificate, key)
    if not make_immortal():
        log(["Warning: containers share less memory: this image's interpreter is not one that is known"])
    release()  # the pages that the warm-up needed and nothing is left on
    fill_holes()
    gc.enable()
    cgroups.set_idle(_GROUP, False)


def _accept(listener: socket.socket, runtime: int, names: Service) -> None:
    connection, _ = listener.accept()
    with connection:
        _serve(connection, listener, runtime, names)


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    if os.path.exists(paths.TEMPLATE_SOCKET):
        os.unlink(paths.TEMPLATE_SOCKET)
    listener.bind(paths.TEMPLATE_SOCKET)
    os.chmod(paths.TEMPLATE_SOCKET, 0o600)
    listener.listen(16)
    return listener


def _serve(connection: socket.socket, listener: socket.socket, runtime: int, names: Service) -> None:
    """Answer the requests of one connection; the node daemon keeps it short."""
    connection.settimeout(10)
    while True:
        try:
            data, descriptors = receive(connection, _DESCRIPTORS)
        except OSError:
            return
        if not data:
            return
        try:
            if data == NAMES:
                answer = _start(names, descriptors)
            else:
                answer = _fork(descriptors, runtime, (listener, connection))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        try:
            connection.send(msgspec.json.encode(answer))
        except OSError:  # the node daemon has ended; the fork sees that, too, and ends
            return


def _start(service: Service, descriptors: Sequence[int]) -> Forked:
    """Start a process whose supervisor is who asks: it has the other end of the process's socket."""
    if len(descriptors) != 1:
        return Forked(error=f"cannot start {service.name}: {len(descriptors)} descriptors came, not 1")
    try:
        end_leftovers(service)
        with socket.socket(fileno=os.dup(descriptors[0])) as talk:
            return Forked(start(service, talk))
    except OSError as error:
        return Forked(error=f"cannot start {service.name}: {in_words(error)}")


def _fork(descriptors: Sequence[int], runtime: int, own: Sequence[socket.socket]) -> Forked:
    if len(descriptors) != _DESCRIPTORS:
        return Forked(error=f"cannot fork: {len(descriptors)} descriptors came, not {_DESCRIPTORS}")
    cgroup, talk, listener, boot, log = descriptors
    try:
        pid = namespaces.fork_into(cgroup, namespaces.CONTAINER, sibling=True)
    except OSError as error:
        return Forked(error=in_words(error))
    if pid:
        return Forked(pid)
    for one in own:
        one.detach()
    be_container(Descriptors(talk=talk, listener=listener, boot=boot, log=log, runtime=runtime))
    sys.exit(1)  # not reached: be_container never returns


def receive(connection: socket.socket, most: int, largest: int = _LARGEST) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, close-on-exec."""
    space = socket.CMSG_SPACE(most * array.array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(largest, space, socket.MSG_CMSG_CLOEXEC)
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in received:
            os.close(descriptor)
        raise OSError("cannot receive: the message or its descriptors were cut")
    return data, list(received)
