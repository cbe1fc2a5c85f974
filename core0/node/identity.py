"""Keys and certificates: the node's own, Core-X's, and the operator's as the one to trust.

Everything is Ed25519 (RFC 8032, RFC 8410). Certificates only carry keys: clients pin the node's by its
fingerprint, and the node trusts what the operator's key has signed.
"""

import datetime
import hashlib
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core0.wire.operator import OPERATOR_NAME

_YEARS = datetime.timedelta(days=3650)
# Clients' clocks may be behind the node's.
_BEFORE = datetime.timedelta(days=1)


def make_certificate(name: str) -> tuple[str, str, str]:
    """A fresh key and its self-signed certificate.

    Returns:
        Certificate and private key (PKCS #8) as PEM, and the SHA-256 of the certificate's DER in hexadecimal.
    """
    key = Ed25519PrivateKey.generate()
    subject = _name(name)
    certificate = (
        _builder(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, None)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return pem.decode(), secret.decode(), hashlib.sha256(der).hexdigest()


def trust_anchor(public_key: bytes) -> str:
    """A certificate that says 'trust what this key signed', from the raw key alone, as PEM.

    The node has no private key to sign it with, and need not: the signature of a trust anchor is not part of
    path validation (RFC 5280, section 6.1); OpenSSL checks it only if told to (X509_V_FLAG_CHECK_SS_SIGNATURE).

    Args:
        public_key: 32 bytes.
    """
    subject = _name(OPERATOR_NAME)
    certificate = (
        _builder(subject, subject, Ed25519PublicKey.from_public_bytes(public_key))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(Ed25519PrivateKey.generate(), None)
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _builder(subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _YEARS)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
