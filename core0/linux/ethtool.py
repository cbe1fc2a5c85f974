"""What a network device's driver says of itself, by ethtool's ioctl.

Source: include/uapi/linux/ethtool.h; ethtool_get_drvinfo() in net/ethtool/ioctl.c.
"""

import array
import fcntl
import socket
import struct

_SIOCETHTOOL, _GDRVINFO = 0x8946, 3
# command, driver, version, firmware, bus, expansion ROM; the rest counts what other commands would give
_DRIVER_INFO = struct.Struct("=I32s32s32s32s32s12x5I")
_REQUEST = struct.Struct("16sP16x")  # struct ifreq with a pointer
_LONGEST_NAME = 15
# What drivers say instead of nothing.
_NOTHING = ("N/A", "n/a")


def firmware(link: str) -> str:
    """The version of a network device's firmware; empty if its driver tells none.

    Raises:
        OSError: there is no such link, or its driver tells nothing at all.
    """
    name = link.encode()
    if len(name) > _LONGEST_NAME:
        raise OSError(f"cannot ask link {link}: a link's name has at most {_LONGEST_NAME} bytes")
    answer = array.array("B", _DRIVER_INFO.pack(_GDRVINFO, b"", b"", b"", b"", b"", 0, 0, 0, 0, 0))
    place, _ = answer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, _REQUEST.pack(name, place))
    return parse(answer.tobytes())


def parse(answer: bytes) -> str:
    """The firmware's version in an answer, without what is no text: a card's memory may hold anything."""
    text = _DRIVER_INFO.unpack(answer)[3].partition(b"\0")[0].decode("ascii", "replace")
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return "" if clean in _NOTHING else clean
