"""Rate limits and counters of links by rtnetlink, for links of containers.

Sources: include/uapi/linux/pkt_sched.h (tbf, fq_codel), rtnetlink.h and if_link.h (statistics), gen_stats.h.
"""

import errno
import struct
from collections.abc import Iterator

import msgspec

from core0.linux import namespaces
from core0.linux.netlink import Link, Netlink, Request, attribute, attributes, number, text

# What the kernel needs for `limit_rate`; fq_codel is part of it.
MODULE = "sch_tbf"

_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_GETSTATS = 94
_CREATE, _REPLACE, _DUMP = 0x400, 0x100, 0x300
_TCMSG = struct.Struct("=BxxxiIII")
# What is asked for by name comes to who asks only if that is said (net/sched/sch_api.c, qdisc_get_notify).
_ECHO = 8
_ROOT, _HANDLE, _CLASS = 0xFFFFFFFF, 0x00010000, 0x00010001
_KIND, _OPTIONS, _STATS2, _STATS_QUEUE = 1, 2, 7, 3
_TBF_PARAMETERS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
# cell log, link layer (Ethernet: without it the kernel wants a table), overhead, cell align, mpu, rate
_RATE = struct.Struct("=BBHhHI")
_ETHERNET = 1
_FQ_CODEL_LIMIT, _FQ_CODEL_MEMORY = 2, 9
# What may wait: flows are told early that they are too fast, and no more of the node's memory is taken.
_MOST_PACKETS, _MOST_BYTES = 1024, 4 << 20
# Bytes that may pass at once: 1/50 s of the rate, and two packets at least.
_BURSTS = 50
_MOST_BURST = 16 << 20
_STATS = struct.Struct("=BxxxII")
_STATS_LINK = 1
_COUNTED = struct.Struct("=8Q")


class Counters(msgspec.Struct, frozen=True):
    """What went over a link since it was made, as seen from its end here."""

    index: int
    received_packets: int
    sent_packets: int
    received_bytes: int
    sent_bytes: int
    received_dropped: int
    sent_dropped: int


def limit_rate(index: int, bps: int, mtu: int) -> list[Request]:
    """Let a link send so many bytes per second at most, its flows side by side.

    Args:
        index: the link's, whose queue is the kernel's own so far.
        bps: bytes per second.
        mtu: of the link.
    """
    low = min(bps, 0xFFFFFFFF)
    rate, none = _RATE.pack(0, _ETHERNET, 0, 0, 0, low), bytes(_RATE.size)
    parameters = rate + none + struct.pack("=III", 0, 0, 0)
    options = attribute(_TBF_PARAMETERS, parameters)
    options += number(_TBF_BURST, min(max(2 * (mtu + 14), bps // _BURSTS), _MOST_BURST))
    if bps > low:
        options += attribute(_TBF_RATE64, struct.pack("=Q", bps))
    queue = number(_FQ_CODEL_LIMIT, _MOST_PACKETS) + number(_FQ_CODEL_MEMORY, _MOST_BYTES)
    doing = f"cannot limit link {index} to {bps} bytes per second"
    return [
        _discipline(index, _HANDLE, _ROOT, "tbf", options, doing),
        _discipline(index, 0, _CLASS, "fq_codel", queue, doing),
    ]


def free_rate(index: int) -> Request:
    """Let a link that was limited send as fast as it likes."""
    body = _TCMSG.pack(0, index, _HANDLE, _ROOT, 0)
    return Request(_DELQDISC, 0, body, f"cannot free link {index} of its limit")


def set_rate(rtnetlink: Netlink, link: Link, bps: int | None) -> None:
    """Limit a link, or free it, whatever it was before."""
    try:
        rtnetlink.apply(limit_rate(link.index, bps, link.mtu) if bps else [free_rate(link.index)])
    except OSError as error:
        if bps or error.errno not in (errno.ENOENT, errno.EINVAL):  # it had no limit
            raise


def limit_within(name: str, bps: int, namespace: int) -> None:
    """Limit a link of another network namespace, or free it if `bps` is 0: a job of a process of its own."""
    namespaces.enter(namespace, namespaces.NEWNET)
    with Netlink() as rtnetlink:
        link = next((link for link in rtnetlink.links() if link.name == name), None)
        if link is None:
            raise OSError(errno.ENODEV, f"cannot limit link {name}: there is none")
        set_rate(rtnetlink, link, bps or None)


def _discipline(index: int, handle: int, parent: int, kind: str, options: bytes, doing: str) -> Request:
    body = _TCMSG.pack(0, index, handle, parent, 0) + text(_KIND, kind) + attribute(_OPTIONS, options)
    return Request(_NEWQDISC, _CREATE | _REPLACE, body, doing)


def counters_of(rtnetlink: Netlink, index: int) -> Counters:
    """What went over one link. Raises OSError if it is gone."""
    doing = f"cannot read the counters of link {index}"
    request = Request(_GETSTATS, 0, _STATS.pack(0, index, _STATS_LINK), doing)
    found = _counted(rtnetlink.get(request))
    return msgspec.structs.replace(found, sent_dropped=found.sent_dropped + _queue_drops(rtnetlink, index))


def all_counters(rtnetlink: Netlink) -> Iterator[Counters]:
    """What went over every link, what their limits dropped included."""
    request = Request(_GETSTATS, _DUMP, _STATS.pack(0, 0, _STATS_LINK), "cannot read the counters of links")
    found = [_counted(body) for _, body in rtnetlink.dump(request)]
    queues = Request(_GETQDISC, _DUMP, _TCMSG.pack(0, 0, 0, 0, 0), "cannot read the counters of queues")
    drops = dict(_drops(body) for _, body in rtnetlink.dump(queues))
    for one in found:
        dropped = one.sent_dropped + drops.get(one.index, 0)
        yield msgspec.structs.replace(one, sent_dropped=dropped)


def _counted(body: bytes) -> Counters:
    _, index, _ = _STATS.unpack_from(body)
    (received, sent, received_bytes, sent_bytes, _, _, dropped, unsent) = _COUNTED.unpack_from(
        attributes(body[_STATS.size :])[_STATS_LINK]
    )
    return Counters(index, received, sent, received_bytes, sent_bytes, dropped, unsent)


def _queue_drops(rtnetlink: Netlink, index: int) -> int:
    """Packets that a link's limit dropped: the link's own counters do not have them."""
    doing = f"cannot read the counters of the queue of link {index}"
    try:
        body = rtnetlink.get(Request(_GETQDISC, _ECHO, _TCMSG.pack(0, index, 0, _ROOT, 0), doing))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):  # it has no limit
            raise
        return 0
    return _drops(body)[1] if body else 0


def _drops(body: bytes) -> tuple[int, int]:
    """The link of a queue and what was dropped there; of a queue below another one nothing, it counts there."""
    _, index, _, parent, _ = _TCMSG.unpack_from(body)
    queue = attributes(attributes(body[_TCMSG.size :]).get(_STATS2, b"")).get(_STATS_QUEUE)
    if parent != _ROOT or queue is None:
        return index, 0
    return index, struct.unpack_from("=I", queue, 8)[0]
