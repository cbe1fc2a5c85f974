"""What cards are called: by their place in the machine, so that no other card and no driver's haste changes a name.

The kernel counts cards (`eth0`, `eth1`, …) in the order in which their drivers find them. The names here are those
that systemd.net-naming-scheme(7) makes of PCI addresses: `enp0s3` is 0000:00:03.0. By the kernel's name a card is
found, too.
"""

from collections.abc import Iterable

from core0.links.model import SeenLink
from core0.linux import files, netlink
from core0.linux.netlink import Netlink
from core0.wire.control import Report

# In a PCI function's configuration the byte that says whether its device has others, too (PCI 3.0, section 6.2.1).
_HEADER_TYPE, _MANY = 14, 0x80


class Names:
    """Gives cards their names, before they are set up.

    Args:
        report: where to tell it.
        root: where sysfs is.
    """

    def __init__(self, report: Report, root: str = "/sys") -> None:
        self._report = report
        self._root = root
        self._refused: set[int] = set()

    def give(self, landscape: Iterable[SeenLink], rtnetlink: Netlink) -> bool:
        """Call cards that came by their places; whether there was one."""
        found = [link for link in landscape if _is_counted(link) and link.index not in self._refused]
        for link in found:
            self._rename(link, rtnetlink)
        return bool(found)

    def _rename(self, link: SeenLink, rtnetlink: Netlink) -> None:
        """Rename a card. One that the kernel refuses to rename keeps its name, and is as good as any."""
        name = self._name(link)
        try:
            rtnetlink.apply(
                [netlink.set_name(link.index, name), netlink.add_other_name(link.index, link.name)]
            )
        except OSError as error:
            self._refused.add(link.index)
            self._report("network", link.name, f"Keeps the kernel's name: {error}")
        else:
            self._report("network", name, f"Is called by its place; the kernel called it {link.name}")

    def _name(self, link: SeenLink) -> str:
        port = self._text(f"class/net/{link.name}/dev_port")
        try:
            head = files.read(f"{self._root}/bus/pci/devices/{link.path}/config")[
                _HEADER_TYPE : _HEADER_TYPE + 1
            ]
        except OSError:  # pulled at this moment
            head = b""
        return name_of(link.path, bool(head and head[0] & _MANY), int(port) if port.isdecimal() else 0)

    def _text(self, path: str) -> str:
        try:
            return files.read_text(f"{self._root}/{path}").strip()
        except OSError:
            return ""


def _is_counted(link: SeenLink) -> bool:
    """Whether this is a card on PCI with the kernel's name, and not in use yet."""
    counted = link.name.startswith("eth") and link.name[3:].isdecimal()
    return counted and link.is_card and bool(link.path) and not link.is_up


def name_of(place: str, many: bool = False, port: int = 0) -> str:
    """The name of a card.

    Args:
        place: its PCI address, `domain:bus:device.function` in hexadecimal.
        many: whether its device has several functions.
        port: which of its function's ports it is, from 0.
    """
    domain, bus, rest = place.split(":")
    device, _, function = rest.partition(".")
    words = [f"P{int(domain, 16)}" if int(domain, 16) else "", f"p{int(bus, 16)}", f"s{int(device, 16)}"]
    words += [f"f{int(function)}"] if many or int(function) else []
    words += [f"d{port}"] if port else []
    return f"en{''.join(words)}"
