"""Sealing by a TPM 2.0 in software (swtpm), which speaks as one of silicon does."""

import contextlib
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core0.linux.tpm2 import REGISTERS, TpmError, Transmit, decode, encode, seal_by, unseal_by

STARTUP = struct.pack(">HIIH", 0x8001, 12, 0x144, 0)
NEEDS_SWTPM = pytest.mark.skipif(
    shutil.which("swtpm") is None, reason="swtpm is missing: apt-get install swtpm"
)


@contextlib.contextmanager
def tpm(folder: Path) -> Iterator[Transmit]:
    """A TPM whose memory is a folder, started up."""
    folder.mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    arguments = [
        "socket",
        "--tpm2",
        "--tpmstate",
        f"dir={folder}",
        "--fd",
        str(theirs.fileno()),
        "--flags",
        "not-need-init",
    ]
    process = subprocess.Popen(["swtpm", *arguments], pass_fds=[theirs.fileno()])
    theirs.close()

    def transmit(command: bytes) -> bytes:
        ours.sendall(command)
        return ours.recv(4096)

    try:
        ours.settimeout(20)
        assert transmit(STARTUP)[6:10] == bytes(4)
        yield transmit
    finally:
        ours.close()
        process.terminate()
        process.wait(20)


def extend(transmit: Transmit, register: int) -> None:
    """Measure something into a register."""
    authorization = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
    digest = struct.pack(">IH", 1, 0x0B) + bytes(32)
    body = struct.pack(">II", register, len(authorization)) + authorization + digest
    assert transmit(struct.pack(">HII", 0x8002, 10 + len(body), 0x182) + body)[6:10] == bytes(4)


@NEEDS_SWTPM
def test_what_was_sealed_comes_back_after_a_restart_of_the_machine(tmp_path: Path) -> None:
    with tpm(tmp_path / "one") as transmit:
        sealed = encode(seal_by(transmit, b"secret", REGISTERS))
        assert b"secret" not in sealed
        assert unseal_by(transmit, decode(sealed)) == b"secret"
    with tpm(tmp_path / "one") as transmit:
        for _ in range(4):  # nothing stays loaded: a TPM has room for three
            assert unseal_by(transmit, decode(sealed)) == b"secret"


@NEEDS_SWTPM
def test_another_machine_and_another_firmware_do_not_get_it(tmp_path: Path) -> None:
    with tpm(tmp_path / "one") as transmit:
        sealed = seal_by(transmit, b"secret", REGISTERS)
        extend(transmit, 8)
        assert unseal_by(transmit, sealed) == b"secret"
        extend(transmit, 7)
        with pytest.raises(TpmError, match=r"the firmware's state .* is not the one that it was sealed in"):
            unseal_by(transmit, sealed)
    with tpm(tmp_path / "two") as transmit, pytest.raises(TpmError, match="another TPM sealed it"):
        unseal_by(transmit, sealed)


def answering(response: bytes) -> Transmit:
    """A TPM that always says the same."""
    return lambda _: response


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda: decode(b"\0\0\0\x80\0\x10short"), "end too early"),
        (lambda: seal_by(answering(b""), b"secret", REGISTERS), "response ends too early"),
        (lambda: seal_by(answering(struct.pack(">HII", 0x8001, 10, 0x921)), b"x", REGISTERS), "locked out"),
        (lambda: seal_by(answering(struct.pack(">HII", 0x8001, 10, 0x101)), b"x", REGISTERS), "code 0x101"),
        (lambda: seal_by(answering(struct.pack(">HII", 0x8001, 10, 0)), b"x", REGISTERS), "end too early"),
    ],
)
def test_a_tpm_that_fails_is_told(act: Callable[[], object], reason: str) -> None:
    with pytest.raises(TpmError, match=reason):
        act()
