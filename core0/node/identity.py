"""Keys and certificates: the node's own, Core-X's, and the operator's as the one to trust.

All are Ed25519 (RFC 8032, RFC 8410) but Core-X's, which browsers meet: they take P-256 (FIPS 186-5) at best.
Certificates only carry keys: clients pin the node's by its fingerprint, and the node trusts what the operator's key
has signed.
"""

import os
import time
from contextlib import AbstractContextManager

from core0.linux import openssl
from core0.wire.operator import OPERATOR_NAME

_YEARS = 10 * 365 * 86400


def make_certificate(name: str, *, for_browsers: bool = False) -> tuple[str, str, str]:
    """A fresh key and its self-signed certificate, of P-256 for browsers.

    Returns:
        Certificate and private key (PKCS #8) as PEM, and the SHA-256 of the certificate's DER in hexadecimal.
    """
    extensions = {
        **openssl.basic_constraints("critical,CA:FALSE"),
        **openssl.subject_alternative_names(f"DNS:{name},IP:127.0.0.1"),
    }
    new_key = openssl.new_p256 if for_browsers else openssl.new_key
    with new_key() as key, _certificate(name, key, key, extensions) as certificate:
        pem, secret = openssl.certificate_pem(certificate), openssl.private_key_pem(key)
        return pem, secret, openssl.fingerprint(certificate)


def trust_anchor(public_key: bytes) -> str:
    """A certificate that says 'trust what this key signed', from the raw key alone, as PEM.

    The node has no private key to sign it with, and need not: the signature of a trust anchor is not part of
    path validation (RFC 5280, section 6.1); OpenSSL checks it only if told to (X509_V_FLAG_CHECK_SS_SIGNATURE).

    Args:
        public_key: 32 bytes.
    """
    extensions = openssl.basic_constraints("critical,CA:TRUE,pathlen:0")
    with (
        openssl.public_key(public_key) as key,
        openssl.new_key() as nobody,
        _certificate(OPERATOR_NAME, key, nobody, extensions) as certificate,
    ):
        return openssl.certificate_pem(certificate)


def _certificate(name: str, key: int, signer: int, extensions: dict[int, str]) -> AbstractContextManager[int]:
    """Valid since 1970: a time server may set this clock back by years, and others' may be behind."""
    serial = int.from_bytes(os.urandom(8), "big") >> 1
    return openssl.new_certificate(
        name, key, signer, serial=serial, since=-int(time.time()), until=_YEARS, extensions=extensions
    )
