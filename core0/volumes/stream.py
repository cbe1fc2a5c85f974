"""The format of a btrfs stream, as far as it takes to refuse what is foreign, cut or climbs. Pure.

Version 1 (fs/btrfs/send.h of the kernel): a head, then commands of a header and attributes. `btrfs receive` carries
them out and checks their checksums; here a stranger's bytes are read first, where they can do nothing.
"""

import struct

_MAGIC = b"btrfs-stream\0"
_HEAD = struct.Struct("<13sI")
_VERSION = 1
_COMMAND = struct.Struct("<IHI")
_ATTRIBUTE = struct.Struct("<HH")
# The kernel's buffer for a command (BTRFS_SEND_BUF_SIZE_V1).
_LONGEST = 64 << 10
_SUBVOLUME, _SNAPSHOT, _LINK, _SET_XATTR, _CLONE, _END, _LAST = 1, 2, 10, 13, 16, 21, 22
_UUID, _XATTR_NAME, _PATH, _PATH_TO, _PATH_LINK, _CLONE_UUID, _CLONE_PATH = 1, 13, 15, 16, 17, 20, 22
# Names of the node's own in a folder's attributes.
_OWN = b"trusted.zeronode."


class StreamError(ValueError):
    """A stream that is none, or that wants what it must not; the message says which."""


class StreamReader:
    """Reads a stream piece by piece.

    Attributes:
        offset: bytes read.
        uuid: of the subvolume that was sent, hexadecimal; empty before its command came.
        parent: of the one that its changes begin at; empty if all of it is sent.
        name: of the subvolume.
        ended: whether the whole stream came.
    """

    def __init__(self) -> None:
        """Nothing was read yet."""
        self.offset = 0
        self.uuid = self.parent = self.name = ""
        self.ended = False
        self._rest = b""
        self._headed = False

    def feed(self, data: bytes) -> bytes:
        """Read a piece; returns the bytes of the commands that are complete, for who carries them out.

        Raises:
            StreamError: it is no stream, or one that must not be carried out.
        """
        self.offset += len(data)
        self._rest += data
        at = 0
        if not self._headed:
            at = self._head()
        while self._headed and (end := self._command_end(at)):
            self._check(at, end)
            at = end
        done, self._rest = self._rest[:at], self._rest[at:]
        if self.ended and self._rest:
            raise StreamError("something follows its end")
        return done

    def _head(self) -> int:
        given = self._rest[: len(_MAGIC)]
        if given != _MAGIC[: len(given)]:
            raise StreamError("it is no btrfs stream")
        if len(self._rest) < _HEAD.size:
            return 0
        _, version = _HEAD.unpack_from(self._rest)
        if version != _VERSION:
            raise StreamError(
                f"it is a btrfs stream of version {version}, not 1; make it with 'btrfs send --proto 1'"
            )
        self._headed = True
        return _HEAD.size

    def _command_end(self, at: int) -> int:
        """Where the command that begins here ends; 0 if it is not complete."""
        if self.ended or len(self._rest) - at < _COMMAND.size:
            return 0
        length, command, _ = _COMMAND.unpack_from(self._rest, at)
        if length > _LONGEST or not 0 < command <= _LAST:
            raise StreamError(f"at byte {self._position(at)} is no command of a btrfs stream")
        end = at + _COMMAND.size + length
        return end if end <= len(self._rest) else 0

    def _position(self, at: int) -> int:
        return self.offset - len(self._rest) + at

    def _check(self, at: int, end: int) -> None:
        command = _COMMAND.unpack_from(self._rest, at)[1]
        attributes = self._attributes(at + _COMMAND.size, end)
        first = not self.uuid
        if first != (command in (_SUBVOLUME, _SNAPSHOT)):
            raise StreamError(
                "it does not begin with a subvolume" if first else "it has more than one subvolume"
            )
        if first:
            self._begin(command, attributes)
        elif command == _END:
            self.ended = True
        elif command == _CLONE and attributes.get(_CLONE_UUID, b"").hex() not in (self.uuid, self.parent):
            raise StreamError("it copies from a subvolume that is not its own")
        elif (
            command == _SET_XATTR
            and attributes.get(_XATTR_NAME, b"").startswith(_OWN)
            and self._is_inner(attributes)
        ):
            raise StreamError("it sets an attribute that is the node's own")
        paths = [_PATH, _PATH_TO, _CLONE_PATH, *([_PATH_LINK] if command == _LINK else [])]
        for kind in paths:
            _check_path(attributes.get(kind, b""))

    def _is_inner(self, attributes: dict[int, bytes]) -> bool:
        """The root folder of an exported volume has what the exporting node noted: that is no harm, and not used."""
        return attributes.get(_PATH, b"") != b""

    def _begin(self, command: int, attributes: dict[int, bytes]) -> None:
        uuid, name = attributes.get(_UUID, b""), attributes.get(_PATH, b"")
        parent = attributes.get(_CLONE_UUID, b"")
        if len(uuid) != 16 or not name or b"/" in name or (command == _SNAPSHOT) != (len(parent) == 16):
            raise StreamError("its subvolume cannot be understood")
        self.uuid, self.parent = uuid.hex(), parent.hex()
        self.name = name.decode("utf-8", "surrogateescape")

    def _attributes(self, at: int, end: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        start = at
        while at < end:
            if end - at < _ATTRIBUTE.size:
                raise StreamError(f"the command at byte {self._position(start)} is cut")
            kind, length = _ATTRIBUTE.unpack_from(self._rest, at)
            at += _ATTRIBUTE.size
            if length > end - at:
                raise StreamError(f"the command at byte {self._position(start)} is cut")
            found[kind] = self._rest[at : at + length]
            at += length
        return found


def _check_path(path: bytes) -> None:
    """Whether a path stays where the stream belongs; symbolic links are the business of who carries it out."""
    if path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/"):
        raise StreamError("it writes outside of its subvolume")
