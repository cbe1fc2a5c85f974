"""Types of the node's API, shared by server, client and command line. Strict: unknown fields are refused."""

from typing import Annotated, Any, Literal, get_args

import msgspec

from corex.wire.health import HealthCheck, HealthReport, RestartPolicy

# In Python `$` matches before a last line end, too; the look-ahead refuses that, and means nothing in ECMA 262.
ContainerName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$(?!\n)")]
NetworkName = ContainerName
DnsName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$(?!\n)")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
ImageReference = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
# Absolute, without empty parts; `core0.containers.targets` refuses what would climb or hide what is needed.
MountTarget = Annotated[str, msgspec.Meta(pattern=r"^(/[^/\x00-\x1f]+)+$(?!\n)", max_length=1024)]
Mebibytes = Annotated[int, msgspec.Meta(ge=4, le=1 << 24)]
# All that processes of a container can have, which is podman's default set (containers/common,
# pkg/config/default.go), within their user namespace only; a container may go without any of them.
Capability = Literal[
    "ALL",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
]
CAPABILITIES: tuple[str, ...] = tuple(name for name in get_args(Capability) if name != "ALL")

# Bytes per second over a link. Slower than a packet each second or two nothing works.
LinkRate = Annotated[int, msgspec.Meta(ge=1024, le=1 << 40)]

_DiskRate = Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]

ContainerState = Literal[
    "waiting",
    "pulling",
    "creating",
    "running",
    "pausing",
    "paused",
    "resuming",
    "stopping",
    "stopped",
    "failed",
    "removing",
]


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address of a link, as `address/prefix length`."""

    link: str
    interface: str


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this node is.

    Attributes:
        hostname: its host name.
        fingerprint: SHA-256 of its TLS certificate (DER), hexadecimal: what clients pin.
        ephemeral: whether its identity ends with this boot.
        version: the image's version.
        build: the image's build id, made from its content.
        kernel: the kernel's release.
        architecture: as uname(2) names the machine.
        cpus: processors that are online.
        memory_bytes: memory that the kernel manages.
        uptime_seconds: since the kernel's entry.
        addresses: of all links but the loopback.
    """

    hostname: str
    fingerprint: Sha256
    ephemeral: bool
    version: str
    build: str
    kernel: str
    architecture: str
    cpus: int
    memory_bytes: int
    uptime_seconds: float
    addresses: tuple[Address, ...]


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that health is made of: fine or not, and one plain sentence."""

    name: str
    ok: bool
    why: str


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the node can do its work."""

    ok: bool
    checks: tuple[Check, ...]
    memory_available_bytes: int
    processes: tuple["ProcessMemory", ...]


class ProcessMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Memory of one of the node's own processes: its proportional share (PSS) in bytes."""

    name: str
    pid: int
    proportional_bytes: int


class BootPhase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One phase of this boot; `at_seconds` counts from the kernel's entry."""

    name: str
    state: Literal["done", "failed"]
    at_seconds: float
    detail: str = ""


class Boot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this boot went: its phases, and what of the kernel command line could not be used."""

    phases: tuple[BootPhase, ...]
    warnings: tuple[str, ...]


class PublishedPort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port of the node that leads into the container.

    Attributes:
        node: the port of the node.
        container: where it leads; in a routed network this one is reached at the container's address, too.
        protocol: TCP or UDP.
        address: the one address of the node that it is published at; None publishes it at all.
    """

    node: Port
    container: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    address: Annotated[str, msgspec.Meta(min_length=2, max_length=45)] | None = None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container may use at most; all of it changes while one runs.

    Attributes:
        memory_mib: memory, without the files that it writes; over that the kernel ends all of the container.
        cpus: processors.
        processes: processes and threads.
        storage_mib: files that it writes, which are in memory, too; not less than it has.
        receive_bps: bytes per second that come over its network link; None is no limit.
        send_bps: bytes per second that it sends over it; the same.
        memory_high_mib: memory, files included, over which the kernel slows it down and takes back what it can.
        cpu_weight: its share of processors that others want, too, as against their weights.
        read_bps: bytes per second that it reads from each disk of its volumes; what a volume allows is no more then.
        write_bps: bytes per second that it writes to each.
        read_iops: reads per second from each.
        write_iops: writes per second to each.
    """

    memory_mib: Mebibytes = 128
    cpus: Annotated[float, msgspec.Meta(ge=0.01, le=1024)] = 1.0
    processes: Annotated[int, msgspec.Meta(ge=4, le=4_000_000)] = 512
    storage_mib: Mebibytes = 64
    receive_bps: LinkRate | None = None
    send_bps: LinkRate | None = None
    memory_high_mib: Mebibytes | None = None
    cpu_weight: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    read_bps: _DiskRate | None = None
    write_bps: _DiskRate | None = None
    read_iops: _DiskRate | None = None
    write_iops: _DiskRate | None = None


class VolumeMount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A volume that a container sees.

    Attributes:
        volume: its name.
        target: the folder in the container that it is seen at, made if the image has none.
        read_only: whether the container cannot write to it.
    """

    volume: ContainerName
    target: MountTarget
    read_only: bool = False


class TmpfsMount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in memory that a container sees, empty each time it starts; they count as its memory.

    Attributes:
        target: the folder that they are seen at, made if the image has none.
        size_mib: what they may take.
        mode: the folder's permissions.
        executable: whether programs may be run from there.
    """

    target: MountTarget
    size_mib: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 16
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o1777)] = 0o1777
    executable: bool = False


class SecretFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret of the node that a container sees as a file below /run/secrets, in memory and read-only.

    Attributes:
        secret: its name.
        file: the file's name; None for the secret's.
        mode: the file's permissions.
        uid: whose it is, in the container.
        gid: the same.
    """

    secret: ContainerName
    file: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o400
    uid: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    gid: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class ContainerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container shall be.

    Attributes:
        image: an OCI image layout's folder (`http://host:port/path/`), or a repository of a registry
            (`http://host:port/name:tag`, `…@sha256:…`).
        token_sha256: SHA-256 of the bearer token for its Core-X; the token itself stays with the client.
        argv: what to run instead of the image's entry point and command.
        env: added to the image's environment.
        user: who runs it instead of the image's user.
        cwd: where it starts instead of the image's working directory.
        restart: what follows the end of its process.
        ports: the node's ports that lead to it.
        limits: what it may use.
        mounts: the volumes that it sees.
        network: the network that it is in.
        ipv4: the address that it has there; None lets the node choose. It has one number for both families.
        ipv6: the same.
        hostname: what it takes itself for; None for its name, by which the others of its network know it anyway.
        read_only: whether its root cannot be written to; what is mounted there can.
        tmpfs: files in memory that it sees.
        drop_capabilities: what its processes go without.
        priority: the higher, the earlier it starts with the node, and the later it ends if the node has no memory.
        labels: what the operator notes; others are no reason to make it anew.
        secrets: the node's secrets that it sees.
        after: containers without which it does not begin, and what they must be then.
        health: how Core-X sees whether it is well.
        plan: processes and checks that Core-X runs instead of the one that argv or the image names: a layer as its
            PUT /v1/layers/NAME takes it, over the image's environment, user, folder and program for each process.
        dns_names: host names by which its Core-X may be asked, besides its own and the node's: those that the
            operator's own name servers have for them.
    """

    image: ImageReference
    token_sha256: Sha256
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    user: str | None = None
    cwd: str | None = None
    restart: RestartPolicy = "always"
    ports: tuple[PublishedPort, ...] = ()
    limits: Limits = Limits()
    mounts: Annotated[tuple[VolumeMount, ...], msgspec.Meta(max_length=16)] = ()
    network: NetworkName = "default"
    ipv4: Annotated[str, msgspec.Meta(max_length=45)] | None = None
    ipv6: Annotated[str, msgspec.Meta(max_length=45)] | None = None
    hostname: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    read_only: bool = False
    tmpfs: Annotated[tuple[TmpfsMount, ...], msgspec.Meta(max_length=16)] = ()
    drop_capabilities: Annotated[tuple[Capability, ...], msgspec.Meta(max_length=16)] = ()
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    labels: Annotated[dict[str, str], msgspec.Meta(max_length=64)] = {}
    secrets: Annotated[tuple[SecretFile, ...], msgspec.Meta(max_length=16)] = ()
    after: Annotated[dict[ContainerName, Literal["running", "healthy"]], msgspec.Meta(max_length=16)] = {}
    health: HealthCheck | None = None
    plan: dict[str, Any] | None = None
    dns_names: Annotated[tuple[DnsName, ...], msgspec.Meta(max_length=16)] = ()


class CoreX(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a container's Core-X answers: a port of the node, and the certificate to pin (SHA-256 of its DER)."""

    port: Port
    fingerprint: Sha256


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What went over a container's link since it was made, as the container sees it.

    Attributes:
        received_bytes: with the headers of Ethernet, as all here.
        received_packets: packets may be larger than the MTU here: the kernel cuts them later.
        received_dropped: not handed to it, for its limit or because it took none.
        sent_bytes: that left it.
        sent_packets: the same.
        sent_dropped: that left it and found no room.
        sent_refused: packets that the filter did not let go where the container wanted, or with that address.
    """

    received_bytes: int
    received_packets: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_dropped: int
    sent_refused: int


class Exit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a container's first process ended: by its own code, or by a signal's number; and if for want of memory."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False


class ContainerStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container uses, all of its processes together (Documentation/admin-guide/cgroup-v2.rst).

    Attributes:
        memory_bytes: memory, with its files and what the kernel has for it.
        memory_peak_bytes: the most of that since it was made.
        memory_limit_bytes: as much as it may have, its volumes in memory included.
        memory_kills: processes that were ended because it had no more.
        processes: processes and threads.
        processes_limit: as many as there may be.
        processor_seconds: processor time, the kernel's for it included.
        throttled_seconds: for how long it wanted a processor and had used up its share.
        read_bytes: from disks.
        written_bytes: to disks.
        reads: operations that read.
        writes: operations that wrote.
        traffic: over its link.
    """

    memory_bytes: int
    memory_peak_bytes: int
    memory_limit_bytes: int
    memory_kills: int
    processes: int
    processes_limit: int
    processor_seconds: float
    throttled_seconds: float
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int
    traffic: Traffic | None = None


class Container(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A container as it is.

    Attributes:
        name: its name.
        state: where it is in its life.
        why: one plain sentence on the state.
        spec: what it shall be.
        image_digest: digest of the manifest that its image turned out to be, once pulled.
        address: its IPv4 address in its network, once created.
        address6: its IPv6 address there.
        corex: where its Core-X answers, once running.
        pid: its first process as the node sees it, while running.
        traffic: over its link; of one container that is asked for, not in a list nor in the answer to a change.
        exit: how it last ended by itself, if it did since the node daemon began.
        health: what its check says, while it runs and has one.
    """

    name: ContainerName
    state: ContainerState
    why: str
    spec: ContainerSpec
    image_digest: str | None = None
    address: str | None = None
    address6: str | None = None
    corex: CoreX | None = None
    pid: int | None = None
    traffic: Traffic | None = None
    exit: Exit | None = None
    health: HealthReport | None = None


class Rename(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container shall be called."""

    name: ContainerName


class Containers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All containers, by name."""

    containers: tuple[Container, ...]


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happened. `cursor` grows by one per event; `at` is seconds since 1970, UTC."""

    cursor: int
    at: float
    kind: str
    subject: str
    message: str


class Events(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events after a cursor, and the cursor to ask with next. `lost` counts those that were dropped unread."""

    events: tuple[Event, ...]
    cursor: int
    lost: int = 0


class PowerRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the machine shall do now."""

    action: Literal["reboot", "poweroff"]
