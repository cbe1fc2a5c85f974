"""The operator's key, and the short-lived client certificates that it signs."""

import datetime
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from core0.wire.operator import OPERATOR_NAME

# Long enough for a command, or a day of a monitor's work; a lost certificate is worth little.
VALID_FOR = datetime.timedelta(hours=24)
# A node whose own clock is broken goes by the time at which its image was built until a time server answers.
_SINCE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class OperatorKeyError(Exception):
    """The operator's key cannot be used: the message has the cause and the remedy."""


def make_key(path: Path) -> Ed25519PrivateKey:
    """Make an operator's key and write it as PEM (PKCS #8), readable by its owner only.

    Raises:
        FileExistsError: a key is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(descriptor)
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read an operator's key.

    Raises:
        OperatorKeyError: if it is absent, unreadable, or no Ed25519 key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OperatorKeyError(
            f"cannot read the operator's key {path}: {error}; name another key file"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise OperatorKeyError(
            f"cannot use the operator's key {path}: it is no Ed25519 key; make one with zn up"
        )
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key as `zn.operator=` on the kernel's command line wants it."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()


def issue_certificate(
    key: Ed25519PrivateKey, name: str, *, now: datetime.datetime, valid_for: datetime.timedelta = VALID_FOR
) -> bytes:
    """A fresh client key and its certificate, signed by the operator's key, as one PEM.

    Args:
        key: the operator's.
        name: who holds it, for the node's log.
        now: aware; validity starts years before.
        valid_for: from `now` on.
    """
    own = Ed25519PrivateKey.generate()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(OPERATOR_NAME))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_SINCE)
        .not_valid_after(now + valid_for)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .sign(key, None)
    )
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)


def client_context(pem: bytes | None) -> ssl.SSLContext:
    """TLS 1.3 with a client certificate. The server's is not verified here: its fingerprint is pinned."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pem:
        secret = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            os.write(secret, pem)
            context.load_cert_chain(f"/proc/self/fd/{secret}")
        finally:
            os.close(secret)
    return context


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
