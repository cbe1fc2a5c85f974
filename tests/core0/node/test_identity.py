"""Certificates made by libcrypto, read by the cryptography package, and used in real TLS handshakes."""

import datetime
import hashlib
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from core0.api.main import tls_context
from core0.client.credentials import client_context, issue_certificate
from core0.linux.openssl import OpenSslError
from core0.node.identity import make_certificate, trust_anchor
from core0.wire.control import Identity


def raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def test_a_certificate_is_self_signed_ed25519_and_has_the_fingerprint_that_is_told():
    pem, secret, fingerprint = make_certificate("node7")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    key = serialization.load_pem_private_key(secret.encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
    assert raw(certificate.public_key()) == raw(key.public_key())
    certificate.verify_directly_issued_by(certificate)
    assert certificate.subject.rfc4514_string() == "CN=node7"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node7"]
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert hashlib.sha256(der).hexdigest() == fingerprint
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc.year == 1970, "the clock may be set back by years"
    assert certificate.not_valid_after_utc > now + datetime.timedelta(days=3000)


def test_a_certificate_for_browsers_is_self_signed_p256():
    pem, secret, _ = make_certificate("core-x", for_browsers=True)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    key = serialization.load_pem_private_key(secret.encode(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert isinstance(key.curve, SECP256R1)
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(certificate)
    assert isinstance(certificate.signature_hash_algorithm, SHA256)


def test_two_certificates_never_share_key_or_serial():
    first, second = (x509.load_pem_x509_certificate(make_certificate("a")[0].encode()) for _ in range(2))
    assert first.serial_number != second.serial_number
    assert raw(first.public_key()) != raw(second.public_key())


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(OpenSslError, match="cannot read the public key"):
        trust_anchor(b"x" * 31)


def connect(server: ssl.SSLContext, client: ssl.SSLContext) -> dict | None:
    """Do a handshake and one byte each way; returns the client certificate that the server saw."""
    ours, theirs = socket.socketpair()
    seen = []

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                seen.append(connection.getpeercert())
                connection.send(b"x")
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours) as connection:
            if connection.recv(1) != b"x":
                raise ConnectionError
    finally:
        thread.join(10)
    return seen[0]


def server_trusting(operator: Ed25519PrivateKey) -> ssl.SSLContext:
    certificate, key, _ = make_certificate("node")
    return tls_context(Identity(certificate, key, trust_anchor(raw(operator.public_key()))))


NOW = datetime.datetime.now(datetime.UTC)


def test_who_holds_the_operators_key_is_let_in_under_the_given_name():
    operator = Ed25519PrivateKey.generate()
    client = client_context(issue_certificate(operator, "alice", now=NOW))
    certificate = connect(server_trusting(operator), client)
    assert certificate["subject"] == ((("commonName", "alice"),),)


def test_without_a_certificate_the_handshake_succeeds_and_nobody_is_known():
    assert not connect(server_trusting(Ed25519PrivateKey.generate()), client_context(None))


@pytest.mark.parametrize(
    ("signer", "age", "alert"),
    [
        pytest.param(
            "stranger", 0, "DECRYPT_ERROR|UNKNOWN_CA|CERTIFICATE_UNKNOWN", id="signed by another key"
        ),
        pytest.param("operator", 25, "CERTIFICATE_EXPIRED", id="expired"),
    ],
)
def test_a_wrong_certificate_ends_the_handshake(signer, age, alert):
    operator = Ed25519PrivateKey.generate()
    key = operator if signer == "operator" else Ed25519PrivateKey.generate()
    issued = NOW - datetime.timedelta(hours=age)
    client = client_context(issue_certificate(key, "mallory", now=issued))
    with pytest.raises(ssl.SSLError, match=alert):
        connect(server_trusting(operator), client)


def test_a_node_whose_clock_is_years_behind_lets_the_operator_in():
    operator = Ed25519PrivateKey.generate()
    issued = NOW + datetime.timedelta(days=2000)
    assert connect(
        server_trusting(operator), client_context(issue_certificate(operator, "alice", now=issued))
    )


def test_a_node_without_an_operator_trusts_nobody():
    certificate, key, _ = make_certificate("node")
    server = tls_context(Identity(certificate, key, None))
    client = client_context(issue_certificate(Ed25519PrivateKey.generate(), "alice", now=NOW))
    with pytest.raises(ssl.SSLError):
        connect(server, client)
