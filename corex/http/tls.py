"""TLS contexts for servers whose key exists in memory only: TLS 1.3, nothing older."""

import os
import ssl

_prepared: list[ssl.SSLContext] = []


def prepare() -> None:
    """Make a context that has no certificate yet: a fork of this process takes it, and need not make one."""
    _prepared.append(_bare_context())


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """A server's context.

    The ssl module loads a key from a path only, so the pair goes through a memfd: /proc must be mounted.

    Args:
        certificate: PEM, the server's own certificate first.
        key: PEM, unencrypted.

    Raises:
        ssl.SSLError: the pair is malformed or does not belong together.
    """
    context = _prepared.pop() if _prepared else _bare_context()
    pair = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with open(pair, "w", encoding="ascii", closefd=False) as file:  # a descriptor
            file.write(key.rstrip("\n") + "\n" + certificate)
        context.load_cert_chain(f"/proc/self/fd/{pair}")
    finally:
        os.close(pair)
    return context


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A resumed session would not show the end of its client's certificate, and tickets would be made with each first
    # answer: the sessions are short, and clients here do not resume any.
    context.num_tickets = 0
    return context
