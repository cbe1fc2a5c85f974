"""What the node daemon tells the process that answers containers' questions for names."""

import msgspec

# `<container>.<network>.internal`: the top-level domain for private use (ICANN, 2024).
DOMAIN = "internal"
PORT = 53


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network, whose containers know each other's names.

    Attributes:
        network: its name.
        ipv4: its subnet, the whole of one that spans nodes.
        ipv6: the same.
        outside: whether its containers may ask for names of the outside.
        others: IPv4 addresses of resolvers on other nodes that know names of this network, too. Theirs are the only
            questions from elsewhere that are answered, and no such question is asked further.
    """

    network: str
    ipv4: str
    ipv6: str
    outside: bool
    others: tuple[str, ...] = ()


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A container that is linked."""

    network: str
    name: str
    ipv4: str
    ipv6: str


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is otherwise from now on.

    Attributes:
        zones: all networks; None if they are as before.
        nameservers: whom to ask for names of the outside; None if they are as before.
        came: containers that were linked.
        went: IPv4 addresses of those that are gone.
    """

    zones: tuple[Zone, ...] | None = None
    nameservers: tuple[str, ...] | None = None
    came: tuple[Host, ...] = ()
    went: tuple[str, ...] = ()
