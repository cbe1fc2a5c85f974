"""An OCI bundle's config.json as a container's spec, with a line for each of its fields on what becomes of it.

Source: OCI runtime specification 1.2 (config.md, config-linux.md). Every field is `honoured` (it is in the spec),
`by default` (every container is so here), or `not honoured`, with the reason, as one that is not known here.
The file is a stranger's: nothing of it is followed, and what has the wrong shape is refused by its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from cli.outcome import ExitCode, Failure
from core0.wire.types import CAPABILITIES, Limits, MountTarget
from image.seccomp import load_policy

T = TypeVar("T")
Verdict = Literal["honoured", "by default", "not honoured"]
Handler = Callable[[Any, str, "Reading"], None]

LARGEST = 4 << 20
_POLICY = Path(__file__).parents[1] / "initramfs" / "seccomp" / "policy.toml"
# What each container has at these places; an option of a config's mount changes nothing there.
_OWN_MOUNTS = {
    "/proc": ("proc",),
    "/sys": ("sysfs",),
    "/sys/fs/cgroup": ("cgroup", "cgroup2"),
    "/dev": ("tmpfs",),
    "/dev/pts": ("devpts",),
    "/dev/shm": ("tmpfs", "bind"),  # noqa: S108 — of the container
    "/dev/mqueue": ("mqueue",),
}
_OWN_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_HARMLESS_OPTIONS = (
    "nosuid",
    "nodev",
    "noexec",
    "relatime",
    "noatime",
    "strictatime",
    "rw",
    "private",
    "rprivate",
)
_DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero")
_SHM_MIB = 16
# As core0/template/root.py has them.
MASKED = ("acpi", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats")
MASKED_SYS = ("firmware", "dev/block", "devices/virtual/powercap")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
_OPEN_FILES = 65536


class Line(msgspec.Struct, frozen=True):
    """What became of one field: its JSON pointer, the verdict, and how or why."""

    field: str
    verdict: Verdict
    why: str


class Bundle(msgspec.Struct, frozen=True):
    """A config as parts of a container's spec, where its root is, and the report."""

    spec: Mapping[str, object]
    root: str
    report: tuple[Line, ...]

    @property
    def lost(self) -> tuple[Line, ...]:
        """What is not honoured."""
        return tuple(line for line in self.report if line.verdict == "not honoured")


class Reading:
    """What was read so far."""

    def __init__(self, volumes: Mapping[str, str]) -> None:
        self.volumes = volumes
        self.spec: dict[str, Any] = {}
        self.limits: dict[str, Any] = {}
        self.root = ""
        self.lines: list[Line] = []

    def honoured(self, field: str, how: str) -> None:
        """The spec says the same."""
        self.lines.append(Line(field, "honoured", _shown(how)))

    def default(self, field: str, why: str) -> None:
        """Every container is so here."""
        self.lines.append(Line(field, "by default", _shown(why)))

    def lost(self, field: str, why: str) -> None:
        """No container can be so here, or not by an import."""
        self.lines.append(Line(field, "not honoured", _shown(why)))


def read_bundle(path: Path, volumes: Mapping[str, str]) -> tuple[Bundle, Path]:
    """The bundle of a folder or of its config.json, and the folder.

    Args:
        path: the folder, or the file.
        volumes: volumes of the node by the folders that they stand for in the config's bind mounts.

    Raises:
        Failure: it cannot be read, or is no config.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}", ExitCode.USAGE) from None
    if len(data) > LARGEST:
        raise Failure(f"cannot use {file}: it is over {LARGEST >> 20} MiB", ExitCode.USAGE)
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"cannot use {file}: {error}", ExitCode.USAGE) from None
    return translate(document, volumes), file.parent


def translate(document: object, volumes: Mapping[str, str]) -> Bundle:
    """Read a config.

    Raises:
        Failure: it is no config, or a field of it has not the shape that the specification says.
    """
    out = Reading(volumes)
    version = document.get("ociVersion") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise Failure("cannot use the config: it has no ociVersion of 1", ExitCode.USAGE)
    _fields(document, "", _TOP, out)
    if out.limits:
        out.spec["limits"] = out.limits
    return Bundle(out.spec, out.root, tuple(out.lines))


def _fields(value: object, at: str, table: Mapping[str, Handler], out: Reading) -> None:
    """Read each field of an object; one that says nothing is passed over."""
    for key, content in _as(value, dict[str, Any], at).items():
        place = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
        if content not in (None, "", [], {}):
            table.get(key, _unknown)(content, place, out)


def _as(value: object, kind: type[T], at: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Failure(f"cannot use the config: {at or '/'}: {error}", ExitCode.USAGE) from None


def _unknown(_: object, at: str, out: Reading) -> None:
    out.lost(at, "nothing here does that")


def _nested(table: Mapping[str, Handler]) -> Handler:
    return lambda value, at, out: _fields(value, at, table, out)


def _never(why: str) -> Handler:
    return lambda _value, at, out: out.lost(at, why)


def _own(why: str) -> Handler:
    return lambda _value, at, out: out.default(at, why)


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]


# the process


def _args(value: object, at: str, out: Reading) -> None:
    out.spec["argv"] = _as(value, tuple[str, ...], at)
    out.honoured(at, "argv")


def _env(value: object, at: str, out: Reading) -> None:
    pairs = [text.partition("=") for text in _as(value, tuple[str, ...], at)]
    out.spec["env"] = {name: content for name, equals, content in pairs if name and equals}
    if all(name and equals for name, equals, _ in pairs):
        out.honoured(at, "env")
    else:
        out.lost(at, "some are not NAME=VALUE; the others are in env")


def _cwd(value: object, at: str, out: Reading) -> None:
    out.spec["cwd"] = _as(value, str, at)
    out.honoured(at, "cwd")


def _user(value: object, at: str, out: Reading) -> None:
    user = _as(value, dict[str, Any], at)
    ids = [_as(user.get(name, 0), int, f"{at}/{name}") for name in ("uid", "gid")]
    if all(0 <= number <= 65535 for number in ids):
        out.spec["user"] = f"{ids[0]}:{ids[1]}"
        out.honoured(at, f"user {ids[0]}:{ids[1]}")
    else:
        out.lost(at, "a container has the ids 0 to 65535")
    if _as(user.get("umask", 0o022), int, f"{at}/umask") != 0o022:
        out.lost(f"{at}/umask", "processes begin with 022")
    if user.get("additionalGids"):
        out.lost(
            f"{at}/additionalGids", "a user has the groups that the image's /etc/group gives it by its name"
        )


def _terminal(value: object, at: str, out: Reading) -> None:
    if _as(value, bool, at):
        out.lost(at, "the main process has no terminal; its output is in the log")
    else:
        out.default(at, "the main process has none")


def _capabilities(value: object, at: str, out: Reading) -> None:
    sets = _as(value, dict[str, tuple[str, ...]], at)
    for name in ("inheritable", "ambient"):
        if sets.get(name):
            out.lost(f"{at}/{name}", "processes of other users than root have none")
    wanted = {one.removeprefix("CAP_") for one in sets.get("bounding", ())}
    dropped = [name for name in CAPABILITIES if name not in wanted]
    out.spec["drop_capabilities"] = tuple(dropped)
    out.honoured(f"{at}/bounding", f"without {', '.join(dropped)}" if dropped else "as every container")
    beyond = sorted(wanted - set(CAPABILITIES))
    if beyond:
        out.lost(f"{at}/bounding", f"no container has {', '.join(beyond)}")
    for name in ("effective", "permitted"):
        given = {one.removeprefix("CAP_") for one in sets.get(name, ())}
        if given == wanted:
            out.default(f"{at}/{name}", "root has what the bounding set leaves")
        else:
            out.lost(f"{at}/{name}", "root has what the bounding set leaves, no less")


def _rlimits(value: object, at: str, out: Reading) -> None:
    for index, limit in enumerate(_as(value, tuple[dict[str, Any], ...], at)):
        which, soft, hard = (limit.get(name) for name in ("type", "soft", "hard"))
        if (which, soft, hard) in (("RLIMIT_CORE", 0, 0), ("RLIMIT_NOFILE", _OPEN_FILES, _OPEN_FILES)):
            out.default(f"{at}/{index}", f"{which} is that")
        else:
            out.lost(f"{at}/{index}", f"no limit but RLIMIT_NOFILE {_OPEN_FILES} and RLIMIT_CORE 0 is set")


def _no_new_privileges(value: object, at: str, out: Reading) -> None:
    if _as(value, bool, at):
        out.default(at, "no process gains any")
    else:
        out.lost(at, "no process gains any, whoever its program belongs to")


def _oom_score(value: object, at: str, out: Reading) -> None:
    priority = (500 - _as(value, int, at)) / 4
    if priority.is_integer() and -100 <= priority <= 100:
        out.spec["priority"] = int(priority)
        out.honoured(at, f"priority {int(priority)}")
    else:
        out.lost(
            at, "containers have 100 to 900 in steps of 4, so that they end before the node's own processes"
        )


# the root, names, mounts


def _root_path(value: object, at: str, out: Reading) -> None:
    out.root = _as(value, str, at)
    out.honoured(at, "the image has its files")


def _root_read_only(value: object, at: str, out: Reading) -> None:
    out.spec["read_only"] = _as(value, bool, at)
    out.honoured(at, "read_only")


def _hostname(value: object, at: str, out: Reading) -> None:
    out.spec["hostname"] = _as(value, str, at)
    out.honoured(at, "hostname")


def _annotations(value: object, at: str, out: Reading) -> None:
    labels = _as(value, dict[str, str], at)
    out.spec["labels"] = labels
    out.honoured(at, "labels; what other tools do by them is not done")


def _mounts(value: object, at: str, out: Reading) -> None:
    for index, mount in enumerate(_as(value, tuple[dict[str, Any], ...], at)):
        _mount(mount, f"{at}/{index}", out)


def _mount(mount: Mapping[str, Any], at: str, out: Reading) -> None:
    options = _as(mount.get("options") or (), tuple[str, ...], f"{at}/options")
    target = "/" + _as(mount.get("destination"), str, f"{at}/destination").strip("/")
    kind = _as(mount.get("type") or ("bind" if {"bind", "rbind"} & set(options) else ""), str, f"{at}/type")
    if kind in _OWN_MOUNTS.get(target, ()):
        _own_mount(target, options, at, out)
    elif target in _OWN_FILES and kind == "bind":
        out.default(at, f"the node writes {target} for each container")
    elif kind == "tmpfs":
        _tmpfs(target, options, at, out)
    elif kind == "bind":
        _volume(target, _as(mount.get("source"), str, f"{at}/source"), options, at, out)
    else:
        out.lost(at, f"a container has no {kind or 'such mount'} at {target}")


def _own_mount(target: str, options: tuple[str, ...], at: str, out: Reading) -> None:
    if target == "/sys/fs/cgroup" and "ro" not in options:
        out.lost(at, "a container sees its cgroup and cannot change it")
    elif target == "/sys" and "ro" not in options:
        out.lost(at, "no container can write to /sys")
    elif target == "/dev/shm":  # noqa: S108 — of the container
        out.default(at, f"of {_SHM_MIB} MiB")
    else:
        out.default(at, "each container has its own")


def _tmpfs(target: str, options: tuple[str, ...], at: str, out: Reading) -> None:
    wanted: dict[str, object] = {"target": target, "executable": "noexec" not in options}
    other = []
    for option in options:
        name, _, value = option.partition("=")
        if name == "size" and _bytes(value) is not None:
            wanted["size_mib"] = max(1, -(-(_bytes(value) or 0) >> 20))
        elif name == "mode" and value.isdigit() and set(value) <= set("01234567"):
            wanted["mode"] = int(value, 8) & 0o1777
        elif option not in (*_HARMLESS_OPTIONS, "exec", "tmpcopyup"):
            other.append(option)
    out.spec.setdefault("tmpfs", []).append(wanted)
    out.honoured(at, "tmpfs")
    if other or "tmpcopyup" in options:
        out.lost(f"{at}/options", f"{', '.join(other) or 'tmpcopyup'}: it begins empty, and is no other way")


def _bytes(text: str) -> int | None:
    """A size as tmpfs(5) has it."""
    unit = {"k": 10, "m": 20, "g": 30}.get(text[-1:].lower())
    digits = text[:-1] if unit else text
    return int(digits) << (unit or 0) if digits.isascii() and digits.isdigit() and len(digits) < 16 else None


def _volume(target: str, source: str, options: tuple[str, ...], at: str, out: Reading) -> None:
    volume = out.volumes.get(source)
    if volume is None:
        out.lost(
            at, f"{source} is a folder of another machine; -v {source}=VOLUME shows a volume in its place"
        )
        return
    _as(target, MountTarget, f"{at}/destination")
    out.spec.setdefault("mounts", []).append(
        {"volume": volume, "target": target, "read_only": "ro" in options}
    )
    out.honoured(at, f"volume {volume}")


# Linux


def _namespaces(value: object, at: str, out: Reading) -> None:
    there = set()
    for index, one in enumerate(_as(value, tuple[dict[str, Any], ...], at)):
        kind = _as(one.get("type"), str, f"{at}/{index}/type")
        there.add(kind)
        if one.get("path"):
            out.lost(f"{at}/{index}", f"a container is in no other's {kind} namespace")
        elif kind in _NAMESPACES:
            out.default(f"{at}/{index}", f"each container has its own {kind} namespace")
        else:
            out.lost(f"{at}/{index}", f"no container has a {kind} namespace of its own")
    shared = [kind for kind in _NAMESPACES if kind not in there | {"user", "cgroup"}]
    if shared:
        out.lost(at, f"not the node's {', '.join(shared)}: each container has its own")


def _id_maps(value: object, at: str, out: Reading) -> None:
    maps = _as(value, tuple[dict[str, Any], ...], at)
    highest = max(_as(one.get("containerID"), int, at) + _as(one.get("size"), int, at) for one in maps)
    if highest <= 65536:
        out.default(at, "each container has 0 to 65535, mapped to a range of its own that the node chooses")
    else:
        out.lost(at, "a container has the ids 0 to 65535")


def _devices(value: object, at: str, out: Reading) -> None:
    for index, one in enumerate(_as(value, tuple[dict[str, Any], ...], at)):
        path = _as(one.get("path"), str, f"{at}/{index}/path")
        if path in _DEVICES:
            out.default(f"{at}/{index}", "each container has it")
        else:
            out.lost(f"{at}/{index}", f"no container has the node's {path}")


def _device_rules(value: object, at: str, out: Reading) -> None:
    for index, rule in enumerate(_as(value, tuple[dict[str, Any], ...], at)):
        if rule.get("allow") is True:
            out.lost(f"{at}/{index}", "no container has more than the six devices that each has")
        else:
            out.default(f"{at}/{index}", "no container can make or open others than its six")


def _memory_limit(value: object, at: str, out: Reading) -> None:
    _limit("memory_mib", _as(value, int, at) >> 20, at, out)


def _processes(value: object, at: str, out: Reading) -> None:
    _limit("processes", _as(value, int, at), at, out)


def _limit(field: str, value: float, at: str, out: Reading) -> None:
    """A limit as our type takes it, or none."""
    try:
        msgspec.convert({field: value}, Limits)
    except msgspec.ValidationError as error:
        out.lost(at, f"{field} {value:g}: {str(error).partition(' - ')[0]}")
    else:
        out.limits[field] = value
        out.honoured(at, f"{field} {value:g}")


def _swap(value: object, at: str, out: Reading) -> None:
    _as(value, int, at)
    out.default(at, "a node has no swap")


def _cpu(value: object, at: str, out: Reading) -> None:
    cpu = _as(value, dict[str, Any], at)
    quota, period = _as(cpu.get("quota") or 0, int, at), _as(cpu.get("period") or 100_000, int, at)
    if quota > 0 and period > 0:
        _limit("cpus", quota / period, f"{at}/quota", out)
    shares = _as(cpu.get("shares") or 0, int, f"{at}/shares")
    if shares >= 2:
        _limit("cpu_weight", 1 + (shares - 2) * 9999 // 262142, f"{at}/shares", out)
    for name in cpu.keys() - {"quota", "period", "shares"}:
        if cpu[name] not in (None, "", 0):
            out.lost(
                f"{at}/{name}", "a container has a number and a share of processors, and nothing else of them"
            )


def _block_io(_: object, at: str, out: Reading) -> None:
    out.lost(
        at, "disks of another machine; a container's limits are read_bps, write_bps, read_iops, write_iops"
    )


def _paths(known: tuple[str, ...]) -> Handler:
    def handle(value: object, at: str, out: Reading) -> None:
        other = [path for path in _as(value, tuple[str, ...], at) if path not in known]
        if len(other) < len(_as(value, tuple[str, ...], at)):
            out.default(at, "so are these, but for what is named below" if other else "so are they")
        if other:
            out.lost(at, f"not {', '.join(dict.fromkeys(other))}")

    return handle


def _sysctl(value: object, at: str, out: Reading) -> None:
    for name in _as(value, dict[str, str], at):
        if name == "net.ipv4.ping_group_range":
            out.default(f"{at}/{name}", "every group may ping")
        else:
            out.lost(f"{at}/{name}", "the node sets them")


def _propagation(value: object, at: str, out: Reading) -> None:
    if _as(value, str, at) in ("private", "rprivate"):
        out.default(at, "nothing that is mounted shows elsewhere")
    else:
        out.lost(at, "nothing that is mounted shows elsewhere, and nothing from there comes")


def _seccomp(value: object, at: str, out: Reading) -> None:
    """Their filter is not used; the node's is as strict, or it is told what it lets pass that theirs would not."""
    theirs = _as(value, dict[str, Any], at)
    rules = _as(theirs.get("syscalls") or (), tuple[dict[str, Any], ...], f"{at}/syscalls")
    policy = load_policy(_POLICY)
    ours = {*policy.allowed, *policy.conditional, *policy.only}
    whole, partly = set[str](), set[str]()
    for index, rule in enumerate(rules):
        names = _as(rule.get("names") or (), tuple[str, ...], f"{at}/syscalls/{index}/names")
        allows = rule.get("action") in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
        (partly if rule.get("args") else whole).update(names if allows else ())
        if theirs.get("defaultAction") in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
            partly |= set(names) - whole
    if theirs.get("defaultAction") in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        looser = sorted(ours & partly)
    else:
        looser = sorted((set(policy.allowed) - whole) | (ours - whole - partly))
    if looser:
        out.lost(at, f"all containers have the node's filter, which lets {', '.join(looser)} pass")
    else:
        out.default(
            at, "all containers have the node's filter, which lets nothing pass that this one would not"
        )


def _personality(value: object, at: str, out: Reading) -> None:
    given = _as(value, dict[str, Any], at)
    if given.get("domain") == "LINUX" and not given.get("flags"):
        out.default(at, "it is the kernel's own")
    else:
        out.lost(at, "programs see the kernel as it is")


_PROCESS: Mapping[str, Handler] = {
    "args": _args,
    "env": _env,
    "cwd": _cwd,
    "user": _user,
    "terminal": _terminal,
    "consoleSize": _never("the main process has no terminal"),
    "capabilities": _capabilities,
    "rlimits": _rlimits,
    "noNewPrivileges": _no_new_privileges,
    "oomScoreAdj": _oom_score,
    "apparmorProfile": _never("the node's kernel confines by namespaces and filters; there is no AppArmor"),
    "selinuxLabel": _never("the node's kernel confines by namespaces and filters; there is no SELinux"),
}
_MEMORY: Mapping[str, Handler] = {
    "limit": _memory_limit,
    "swap": _swap,
    "swappiness": _own("a node has no swap"),
    "useHierarchy": _own("cgroup v2 is so"),
}
_RESOURCES: Mapping[str, Handler] = {
    "devices": _device_rules,
    "memory": _nested(_MEMORY),
    "cpu": _cpu,
    "pids": _nested({"limit": _processes}),
    "blockIO": _block_io,
}
_LINUX: Mapping[str, Handler] = {
    "namespaces": _namespaces,
    "uidMappings": _id_maps,
    "gidMappings": _id_maps,
    "devices": _devices,
    "cgroupsPath": _own("each container has its own cgroup"),
    "resources": _nested(_RESOURCES),
    "rootfsPropagation": _propagation,
    "seccomp": _seccomp,
    "maskedPaths": _paths((*(f"/proc/{one}" for one in MASKED), *(f"/sys/{one}" for one in MASKED_SYS))),
    "readonlyPaths": _paths(tuple(f"/proc/{one}" for one in READ_ONLY)),
    "sysctl": _sysctl,
    "mountLabel": _never("the node's kernel confines by namespaces and filters; there is no SELinux"),
    "personality": _personality,
}
_TOP: Mapping[str, Handler] = {
    "ociVersion": _own("it is of version 1"),
    "process": _nested(_PROCESS),
    "root": _nested({"path": _root_path, "readonly": _root_read_only}),
    "hostname": _hostname,
    "mounts": _mounts,
    "hooks": _never("no program of a bundle runs outside of its container"),
    "annotations": _annotations,
    "linux": _nested(_LINUX),
}
