"""Ed25519, X25519 and P-256 keys and X.509 certificates by libcrypto, which the ssl module has loaded anyway.

Importing the `cryptography` package takes 10 MB of memory and a third of a second of an emulated node's boot for
two certificates (docs/decisions/0002-certificates-by-libcrypto.md); the operator's side uses it, and the tests
check with it what is made here.

Sources: EVP_PKEY_keygen(3ssl), X509_new(3ssl), X509V3_EXT_nconf_nid in x509v3.h, PEM_write_bio_X509(3ssl).
"""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Literal

_NID_ED25519, _NID_X25519, _NID_EC = 1087, 1034, 408
_NID_BASIC_CONSTRAINTS, _NID_SUBJECT_ALT_NAME = 87, 85
_MBSTRING_UTF8 = 0x1000
_X509_V3 = 2
_BIO_CTRL_PENDING = 10
# SubjectPublicKeyInfo of P-256 up to its uncompressed point (RFC 5480), and of Ed25519 up to its key (RFC 8410).
_P256_SPKI, _P256_POINT = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), 65
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")

_Pointer = ctypes.c_void_p
_crypto = ctypes.CDLL("libcrypto.so.3")


def _declare(name: str, result: object, *arguments: object) -> None:
    function = getattr(_crypto, name)
    function.restype, function.argtypes = result, arguments


for _name, _result, *_arguments in (
    ("EVP_PKEY_CTX_new_id", _Pointer, ctypes.c_int, _Pointer),
    ("EVP_PKEY_CTX_free", None, _Pointer),
    ("EVP_PKEY_keygen_init", ctypes.c_int, _Pointer),
    ("EVP_PKEY_keygen", ctypes.c_int, _Pointer, ctypes.POINTER(_Pointer)),
    ("EVP_PKEY_CTX_set_group_name", ctypes.c_int, _Pointer, ctypes.c_char_p),
    ("EVP_PKEY_get_base_id", ctypes.c_int, _Pointer),
    ("EVP_PKEY_new_raw_public_key", _Pointer, ctypes.c_int, _Pointer, ctypes.c_char_p, ctypes.c_size_t),
    ("EVP_PKEY_free", None, _Pointer),
    ("d2i_PUBKEY", _Pointer, _Pointer, ctypes.POINTER(ctypes.c_char_p), ctypes.c_long),
    ("EVP_MD_CTX_new", _Pointer),
    ("EVP_MD_CTX_free", None, _Pointer),
    ("EVP_DigestVerifyInit", ctypes.c_int, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer),
    (
        "EVP_DigestVerify",
        ctypes.c_int,
        *(_Pointer, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t),
    ),
    ("X509_new", _Pointer),
    ("X509_free", None, _Pointer),
    ("X509_set_version", ctypes.c_int, _Pointer, ctypes.c_long),
    ("X509_get_serialNumber", _Pointer, _Pointer),
    ("ASN1_INTEGER_set_uint64", ctypes.c_int, _Pointer, ctypes.c_uint64),
    ("X509_getm_notBefore", _Pointer, _Pointer),
    ("X509_getm_notAfter", _Pointer, _Pointer),
    ("X509_gmtime_adj", _Pointer, _Pointer, ctypes.c_long),
    ("X509_get_subject_name", _Pointer, _Pointer),
    ("X509_set_issuer_name", ctypes.c_int, _Pointer, _Pointer),
    ("X509_set_pubkey", ctypes.c_int, _Pointer, _Pointer),
    ("X509_add_ext", ctypes.c_int, _Pointer, _Pointer, ctypes.c_int),
    ("X509_sign", ctypes.c_int, _Pointer, _Pointer, _Pointer),
    ("X509V3_EXT_nconf_nid", _Pointer, _Pointer, _Pointer, ctypes.c_int, ctypes.c_char_p),
    ("X509_EXTENSION_free", None, _Pointer),
    ("BIO_s_mem", _Pointer),
    ("BIO_new", _Pointer, _Pointer),
    ("BIO_free", ctypes.c_int, _Pointer),
    ("BIO_ctrl", ctypes.c_long, _Pointer, ctypes.c_int, ctypes.c_long, _Pointer),
    ("BIO_read", ctypes.c_int, _Pointer, ctypes.c_char_p, ctypes.c_int),
    ("PEM_write_bio_X509", ctypes.c_int, _Pointer, _Pointer),
    ("EVP_sha256", _Pointer),
    ("X509_digest", ctypes.c_int, _Pointer, _Pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint)),
    ("ERR_get_error", ctypes.c_ulong),
    ("ERR_error_string_n", None, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_size_t),
):
    _declare(_name, _result, *_arguments)
_declare(
    "X509_NAME_add_entry_by_txt",
    ctypes.c_int,
    *(_Pointer, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int),
)
for _half in ("private", "public"):
    _declare(
        f"EVP_PKEY_get_raw_{_half}_key",
        ctypes.c_int,
        *(_Pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t)),
    )
_declare(
    "PEM_write_bio_PKCS8PrivateKey",
    ctypes.c_int,
    *(_Pointer, _Pointer, _Pointer, ctypes.c_char_p, ctypes.c_int, _Pointer, _Pointer),
)


class OpenSslError(Exception):
    """OpenSSL refused: the message has what was tried and its own words."""


def _check(result: int | None, doing: str) -> int:
    """The result, if it stands for success (a pointer, or a positive number)."""
    if result is None or result <= 0:
        said = ctypes.create_string_buffer(256)
        _crypto.ERR_error_string_n(_crypto.ERR_get_error(), said, len(said))
        raise OpenSslError(f"cannot {doing}: {said.value.decode(errors='replace')}")
    return result


@contextlib.contextmanager
def new_key(kind: int = _NID_ED25519) -> Iterator[int]:
    """A fresh private key, an Ed25519 one by default, for the time of the block; one of a curve is P-256."""
    context = _check(_crypto.EVP_PKEY_CTX_new_id(kind, None), "make a key")
    key = _Pointer()
    try:
        _check(_crypto.EVP_PKEY_keygen_init(context), "make a key")
        if kind == _NID_EC:
            _check(_crypto.EVP_PKEY_CTX_set_group_name(context, b"P-256"), "make a key")
        _check(_crypto.EVP_PKEY_keygen(context, ctypes.byref(key)), "make a key")
    finally:
        _crypto.EVP_PKEY_CTX_free(context)
    try:
        yield key.value or 0
    finally:
        _crypto.EVP_PKEY_free(key)


def new_p256() -> contextlib.AbstractContextManager[int]:
    """A fresh P-256 key (FIPS 186-5), for the time of the block: browsers take no Ed25519."""
    return new_key(_NID_EC)


def new_x25519() -> tuple[bytes, bytes]:
    """A fresh X25519 key (RFC 7748), as WireGuard has them: its private and its public half, 32 bytes each."""
    with new_key(_NID_X25519) as key:
        return _raw(key, "private"), _raw(key, "public")


def _raw(key: int, half: str) -> bytes:
    buffer, length = ctypes.create_string_buffer(32), ctypes.c_size_t(32)
    _check(getattr(_crypto, f"EVP_PKEY_get_raw_{half}_key")(key, buffer, ctypes.byref(length)), "read a key")
    return buffer.raw[: length.value]


@contextlib.contextmanager
def public_key(raw: bytes) -> Iterator[int]:
    """An Ed25519 public key from its 32 bytes, for the time of the block."""
    key = _check(
        _crypto.EVP_PKEY_new_raw_public_key(_NID_ED25519, None, raw, len(raw)), "read the public key"
    )
    try:
        yield key
    finally:
        _crypto.EVP_PKEY_free(key)


def verify(raw: bytes, signature: bytes, document: bytes) -> bool:
    """Whether a signature (64 bytes) of a document is by an Ed25519 public key (32 bytes): RFC 8032."""
    with public_key(raw) as key:
        return _verify(key, None, signature, document)


def kind_of(spki: bytes) -> Literal["p256", "ed25519", ""]:
    """What a SubjectPublicKeyInfo is of; empty for what is not verified by here."""
    if spki.startswith(_P256_SPKI) and len(spki) == len(_P256_SPKI) + _P256_POINT:
        return "p256"
    return "ed25519" if spki.startswith(_ED25519_SPKI) and len(spki) == len(_ED25519_SPKI) + 32 else ""


def spki_of(raw: bytes) -> bytes:
    """The SubjectPublicKeyInfo of an Ed25519 public key (32 bytes): RFC 8410."""
    return _ED25519_SPKI + raw


def verify_spki(spki: bytes, signature: bytes, document: bytes) -> bool:
    """Whether a signature of a document is by a public key, which stands in a SubjectPublicKeyInfo.

    Ed25519 signs the document (64 bytes); ECDSA P-256 its SHA-256 (ASN.1, FIPS 186-5).

    Raises:
        OpenSslError: the key is none of these, or no point of its curve.
    """
    kind = kind_of(spki)
    if not kind:
        raise OpenSslError("cannot read the public key: it is neither ECDSA P-256 nor Ed25519")
    start = ctypes.c_char_p(spki)  # d2i_PUBKEY moves the pointer that it is given
    key = _check(_crypto.d2i_PUBKEY(None, ctypes.byref(start), len(spki)), "read the public key")
    try:
        return _verify(key, _crypto.EVP_sha256() if kind == "p256" else None, signature, document)
    finally:
        _crypto.EVP_PKEY_free(key)


def _verify(key: int, digest: int | None, signature: bytes, document: bytes) -> bool:
    context = _check(_crypto.EVP_MD_CTX_new(), "verify a signature")
    try:
        _check(_crypto.EVP_DigestVerifyInit(context, None, digest, None, key), "verify a signature")
        found = _crypto.EVP_DigestVerify(context, signature, len(signature), document, len(document))
        return bool(found == 1)
    finally:
        _crypto.EVP_MD_CTX_free(context)


@contextlib.contextmanager
def new_certificate(
    name: str, key: int, signer: int, *, serial: int, since: int, until: int, extensions: dict[int, str]
) -> Iterator[int]:
    """A certificate by and for one common name, for the time of the block.

    Args:
        name: the common name of subject and issuer.
        key: whose certificate it is.
        signer: the private key that signs it.
        serial: its serial number.
        since: start of validity, seconds from now.
        until: end of validity, seconds from now.
        extensions: by NID, each as in x509v3_config(5).
    """
    certificate = _check(_crypto.X509_new(), "make a certificate")
    try:
        _crypto.X509_set_version(certificate, _X509_V3)
        _crypto.ASN1_INTEGER_set_uint64(_crypto.X509_get_serialNumber(certificate), serial)
        _crypto.X509_gmtime_adj(_crypto.X509_getm_notBefore(certificate), since)
        _crypto.X509_gmtime_adj(_crypto.X509_getm_notAfter(certificate), until)
        subject = _crypto.X509_get_subject_name(certificate)
        added = _crypto.X509_NAME_add_entry_by_txt(subject, b"CN", _MBSTRING_UTF8, name.encode(), -1, -1, 0)
        _check(added, f"name a certificate {name!a}")
        _check(_crypto.X509_set_issuer_name(certificate, subject), "set the issuer")
        _check(_crypto.X509_set_pubkey(certificate, key), "set the public key")
        for number, value in extensions.items():
            _add_extension(certificate, number, value)
        # Ed25519 digests by itself
        digest = _crypto.EVP_sha256() if _crypto.EVP_PKEY_get_base_id(signer) == _NID_EC else None
        _check(_crypto.X509_sign(certificate, signer, digest), "sign the certificate")
        yield certificate
    finally:
        _crypto.X509_free(certificate)


def _add_extension(certificate: int, number: int, value: str) -> None:
    extension = _check(
        _crypto.X509V3_EXT_nconf_nid(None, None, number, value.encode()), f"make extension {value}"
    )
    try:
        _check(_crypto.X509_add_ext(certificate, extension, -1), f"add extension {value}")
    finally:
        _crypto.X509_EXTENSION_free(extension)


def basic_constraints(value: str) -> dict[int, str]:
    """The extension that says whether the certificate may sign others."""
    return {_NID_BASIC_CONSTRAINTS: value}


def subject_alternative_names(value: str) -> dict[int, str]:
    """The extension with the names and addresses that the certificate stands for."""
    return {_NID_SUBJECT_ALT_NAME: value}


def certificate_pem(certificate: int) -> str:
    """A certificate as PEM."""
    with _memory() as bio:
        _check(_crypto.PEM_write_bio_X509(bio, certificate), "write the certificate")
        return _contents(bio)


def fingerprint(certificate: int) -> str:
    """The SHA-256 of a certificate's DER in hexadecimal."""
    digest, length = ctypes.create_string_buffer(32), ctypes.c_uint()
    written = _crypto.X509_digest(certificate, _crypto.EVP_sha256(), digest, ctypes.byref(length))
    _check(written, "digest the certificate")
    return digest.raw[: length.value].hex()


def private_key_pem(key: int) -> str:
    """A private key as PEM (PKCS #8, not encrypted)."""
    with _memory() as bio:
        written = _crypto.PEM_write_bio_PKCS8PrivateKey(bio, key, None, None, 0, None, None)
        _check(written, "write the private key")
        return _contents(bio)


@contextlib.contextmanager
def _memory() -> Iterator[int]:
    bio = _check(_crypto.BIO_new(_crypto.BIO_s_mem()), "get memory")
    try:
        yield bio
    finally:
        _crypto.BIO_free(bio)


def _contents(bio: int) -> str:
    pending = _crypto.BIO_ctrl(bio, _BIO_CTRL_PENDING, 0, None)
    buffer = ctypes.create_string_buffer(pending)
    _check(_crypto.BIO_read(bio, buffer, pending), "read back what was written")
    return buffer.raw.decode("ascii")
