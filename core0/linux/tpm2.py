"""Sealing a secret by the machine's TPM 2.0, which gives it back on this machine only, if its firmware is the same.

Eight commands are needed, so they are packed here: the TSS libraries would cost an image with 2 MB to spare one of
them. The kernel's resource manager (/dev/tpmrm0) keeps what is loaded apart from others' and drops it with the
descriptor. The secret passes the bus in the clear: who listens to the wires of a discrete TPM at a boot gets it.

Sources: TCG TPM 2.0 Library 1.59, part 2 (structures, response codes) and part 3 (commands); the storage key's
template is that of TCG TPM v2.0 Provisioning Guidance 1.0, 7.5.1, so that making it again gives the same key.
"""

import contextlib
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

DEVICE = "/dev/tpmrm0"
# Register 7 measures the state of Secure Boot and its keys: others change with each firmware update or boot order.
REGISTERS = 1 << 7

# Sends one command and returns its response.
Transmit = Callable[[bytes], bytes]

_SHA256, _NULL, _AES, _CFB, _ECC, _KEYED_HASH, _P256 = 0x0B, 0x10, 0x06, 0x43, 0x23, 0x08, 0x03
_OWNER, _NOBODY, _PASSWORD = 0x40000001, 0x40000007, 0x40000009
_CREATE_PRIMARY, _CREATE, _LOAD, _UNSEAL = 0x131, 0x153, 0x157, 0x15E
_FLUSH, _START_SESSION, _POLICY_PCR, _POLICY_DIGEST = 0x165, 0x176, 0x17F, 0x189
_POLICY, _TRIAL = 1, 3
_FIXED_TPM, _FIXED_PARENT, _SENSITIVE_ORIGIN, _USER_AUTH = 1 << 1, 1 << 4, 1 << 5, 1 << 6
_NO_LOCKOUT, _RESTRICTED, _DECRYPT = 1 << 10, 1 << 16, 1 << 17
_HEADER = struct.Struct(">HII")
_LARGEST = 4096
_WHY = {
    0x9D: "the firmware's state (register 7: Secure Boot and its keys) is not the one that it was sealed in",
    0x9F: "another TPM sealed it, or this one was cleared since",
    0x8E: "it wants a password for its owner hierarchy",
    0xA2: "it wants a password for its owner hierarchy",
    0x21: "it is locked out for a while after too many wrong passwords",
}


class TpmError(OSError):
    """The TPM refused; the message says why."""


class Sealed(NamedTuple):
    """What a TPM gave for a secret: useless without that TPM.

    Attributes:
        registers: the platform configuration registers that must be as they were, by bit.
        private: the secret, encrypted by the TPM.
        public: what it is.
    """

    registers: int
    private: bytes
    public: bytes


def seal(secret: bytes, device: str) -> bytes:
    """Seal up to 128 bytes by the machine's TPM, to the state that its firmware has now.

    Raises:
        TpmError: if it refuses.
        OSError: if it does not answer.
    """
    with _Tpm(device) as tpm:
        return encode(seal_by(tpm.transmit, secret, REGISTERS))


def unseal(sealed: bytes, device: str) -> bytes:
    """The secret that was sealed.

    Raises:
        TpmError: if it was sealed by another TPM, or in another state of the firmware.
        OSError: if the TPM does not answer.
    """
    with _Tpm(device) as tpm:
        return unseal_by(tpm.transmit, decode(sealed))


def encode(sealed: Sealed) -> bytes:
    """Its bytes, to be kept anywhere."""
    return struct.pack(">I", sealed.registers) + _sized(sealed.private) + _sized(sealed.public)


def decode(data: bytes) -> Sealed:
    """What `encode` made. Raises TpmError if it did not."""
    reader = _Reader(data)
    return Sealed(reader.number(4), reader.sized(), reader.sized())


def seal_by(transmit: Transmit, secret: bytes, registers: int) -> Sealed:
    """Seal by the TPM at the other end of `transmit`; see `seal`."""
    policy = _policy(transmit, registers)
    parent = _storage_key(transmit)
    try:
        attributes = _FIXED_TPM | _FIXED_PARENT | _NO_LOCKOUT
        public = struct.pack(">HHI", _KEYED_HASH, _SHA256, attributes) + _sized(policy)
        public += struct.pack(">HH", _NULL, 0)
        sensitive = _sized(_sized(b"") + _sized(secret))
        parameters = sensitive + _sized(public) + _sized(b"") + struct.pack(">I", 0)
        reader = _run(transmit, _CREATE, (parent,), _by_password(), parameters)
        reader.number(4)
        return Sealed(registers, reader.sized(), reader.sized())
    finally:
        _flush(transmit, parent)


def unseal_by(transmit: Transmit, sealed: Sealed) -> bytes:
    """Unseal by the TPM at the other end of `transmit`; see `unseal`."""
    parent = _storage_key(transmit)
    try:
        parameters = _sized(sealed.private) + _sized(sealed.public)
        item = _run(transmit, _LOAD, (parent,), _by_password(), parameters).number(4)
    finally:
        _flush(transmit, parent)
    try:
        session = _session(transmit, _POLICY)
        try:
            _bind(transmit, session, sealed.registers)
            reader = _run(transmit, _UNSEAL, (item,), _by_session(session), b"")
        finally:
            _flush(transmit, session)
        reader.number(4)
        return reader.sized()
    finally:
        _flush(transmit, item)


def _storage_key(transmit: Transmit) -> int:
    """The handle of the owner's storage key, which the TPM makes from its seed: the same one each time."""
    attributes = _FIXED_TPM | _FIXED_PARENT | _SENSITIVE_ORIGIN | _USER_AUTH
    attributes |= _NO_LOCKOUT | _RESTRICTED | _DECRYPT
    public = struct.pack(">HHI", _ECC, _SHA256, attributes) + _sized(b"")
    public += struct.pack(">HHH", _AES, 128, _CFB) + struct.pack(">HHH", _NULL, _P256, _NULL)
    public += _sized(bytes(32)) + _sized(bytes(32))
    parameters = _sized(_sized(b"") + _sized(b"")) + _sized(public) + _sized(b"") + struct.pack(">I", 0)
    return _run(transmit, _CREATE_PRIMARY, (_OWNER,), _by_password(), parameters).number(4)


def _policy(transmit: Transmit, registers: int) -> bytes:
    """The digest of the policy that registers are as they are now."""
    session = _session(transmit, _TRIAL)
    try:
        _bind(transmit, session, registers)
        return _run(transmit, _POLICY_DIGEST, (session,)).sized()
    finally:
        _flush(transmit, session)


def _session(transmit: Transmit, kind: int) -> int:
    parameters = _sized(os.urandom(32)) + _sized(b"") + struct.pack(">BHH", kind, _NULL, _SHA256)
    return _run(transmit, _START_SESSION, (_NOBODY, _NOBODY), b"", parameters).number(4)


def _bind(transmit: Transmit, session: int, registers: int) -> None:
    """Require in a session that registers have the values that they have now."""
    selection = struct.pack(">IHB", 1, _SHA256, 3) + registers.to_bytes(3, "little")
    _run(transmit, _POLICY_PCR, (session,), b"", _sized(b"") + selection)


def _flush(transmit: Transmit, handle: int) -> None:
    """Drop what is loaded; a session may have ended by itself."""
    with contextlib.suppress(TpmError):
        _run(transmit, _FLUSH, (), b"", struct.pack(">I", handle))


def _by_password() -> bytes:
    return struct.pack(">IHBH", _PASSWORD, 0, 0, 0)


def _by_session(session: int) -> bytes:
    return struct.pack(">IHBH", session, 0, 0, 0)


def _sized(data: bytes) -> bytes:
    """A TPM2B."""
    return struct.pack(">H", len(data)) + data


class _Reader:
    """Reads a response's fields one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, length: int) -> int:
        return int.from_bytes(self._take(length), "big")

    def sized(self) -> bytes:
        return self._take(self.number(2))

    def _take(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) != length:
            raise TpmError("the TPM's data end too early")
        self._at += length
        return found


def _run(
    transmit: Transmit,
    code: int,
    handles: tuple[int, ...],
    authorization: bytes = b"",
    parameters: bytes = b"",
) -> _Reader:
    """Run a command; returns a reader of what follows the response's header."""
    body = struct.pack(f">{len(handles)}I", *handles)
    if authorization:
        body += struct.pack(">I", len(authorization)) + authorization
    body += parameters
    tag = 0x8002 if authorization else 0x8001
    response = transmit(_HEADER.pack(tag, _HEADER.size + len(body), code) + body)
    if len(response) < _HEADER.size:
        raise TpmError("the TPM's response ends too early")
    _, _, status = _HEADER.unpack_from(response)
    if status:
        raise TpmError(f"the TPM refuses: {_why(status)}")
    return _Reader(response[_HEADER.size :])


def _why(status: int) -> str:
    """In words, why a command was refused (part 2, 6.6)."""
    # of format one, the upper bits say which handle, session or parameter it is about
    base = status & 0x3F | 0x80 if status & 0x80 else status & 0x7F
    return _WHY.get(base, f"response code {status:#x}")


class _Tpm:
    """An open TPM device."""

    def __init__(self, device: str) -> None:
        self._descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> "_Tpm":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def transmit(self, command: bytes) -> bytes:
        os.write(self._descriptor, command)
        return os.read(self._descriptor, _LARGEST)
