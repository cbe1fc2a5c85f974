"""The text of libslirp's connection listing."""

from ci.qemu.ports import Connection, parse_connections

LISTING = (
    "Hub -1 (net0):\r\n"
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[SYN_SENT]      11       127.0.0.1 44865       10.0.2.15  8443     0     0\r\n"
    "  TCP[HOST_FORWARD]   3       127.0.0.1 44865       10.0.2.15  8443     0     0\r\n"
    "  UDP[236 sec]       20       10.0.2.15    68        10.0.2.2    67     0     0\r\n"
)


def test_tcp_lines_are_read_and_others_are_not() -> None:
    source, target = ("127.0.0.1", 44865), ("10.0.2.15", 8443)
    assert list(parse_connections(LISTING)) == [
        Connection("SYN_SENT", source, target),
        Connection("HOST_FORWARD", source, target),
    ]
