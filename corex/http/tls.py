"""TLS contexts for servers whose key exists in memory only: TLS 1.3, nothing older."""

import os
import ssl


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """A server's context.

    The ssl module loads a key from a path only, so the pair goes through a memfd: /proc must be mounted.

    Args:
        certificate: PEM, the server's own certificate first.
        key: PEM, unencrypted.

    Raises:
        ssl.SSLError: the pair is malformed or does not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    pair = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with open(pair, "w", encoding="ascii", closefd=False) as file:  # a descriptor
            file.write(key.rstrip("\n") + "\n" + certificate)
        context.load_cert_chain(f"/proc/self/fd/{pair}")
    finally:
        os.close(pair)
    return context
