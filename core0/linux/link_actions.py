"""What plans do with links of any kind, as actions that print themselves: nodes' own links, and those of meshes."""

import os
import socket

import msgspec


class SetUp(msgspec.Struct, frozen=True):
    """Set a link up."""

    link: str

    def __str__(self) -> str:
        return f"set {self.link} up"


class DeleteLink(msgspec.Struct, frozen=True):
    """Delete a link that the node had made."""

    link: str

    def __str__(self) -> str:
        return f"delete link {self.link}"


class AddAddress(msgspec.Struct, frozen=True):
    """Give a link an address."""

    link: str
    address: str

    def __str__(self) -> str:
        return f"add {self.address} to {self.link}"


class DeleteAddress(msgspec.Struct, frozen=True):
    """Take an address that a link shall have no more."""

    link: str
    address: str

    def __str__(self) -> str:
        return f"delete {self.address} from {self.link}"


def number_of(link: str, action: object) -> int:
    """The kernel's number of a link, which may have been made a moment ago. Raises OSError with the action."""
    try:
        return socket.if_nametoindex(link)
    except OSError as error:
        said = f"cannot {action}: link {link}: {os.strerror(error.errno or 0)}"
        raise OSError(error.errno, said) from None
