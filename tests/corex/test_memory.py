"""What a Core-X takes of memory for what it does, where a library would take more."""

import asyncio
import socket
import ssl
import subprocess
import sys
import tracemalloc
from asyncio import sslproto
from typing import Any

import pytest

from core0.node.identity import make_certificate
from corex.http.server import connections
from corex.http.tls import server_context

# How many of four threads take memory from the heap that was there before them.
_THREADS = """
import ctypes, pathlib, threading
from corex.process.memory import share_heap
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
{first}
taken = []
threads = [threading.Thread(target=lambda: taken.append(libc.malloc(1000))) for _ in range(4)]
for one in threads:
    one.start()
for one in threads:
    one.join()
lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
(begin, end), = (line.split()[0].split("-") for line in lines if line.endswith("[heap]"))
print(sum(int(begin, 16) <= one < int(end, 16) for one in taken))
"""


@pytest.mark.parametrize(("first", "found"), [("share_heap()", "4\n"), ("", "0\n")])
def test_threads_take_memory_from_the_heap_that_is_there(first: str, found: str) -> None:
    code = _THREADS.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == found


async def test_a_connection_over_tls_takes_little_memory() -> None:
    certificate, key, _ = make_certificate("test")
    believing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    believing.check_hostname, believing.verify_mode = False, ssl.CERT_NONE
    app: Any = None  # nobody asks anything
    ours, theirs = socket.socketpair()
    factory = connections(app)
    tracemalloc.start()
    try:
        loop = asyncio.get_running_loop()
        accepted = loop.connect_accepted_socket(factory, ours, ssl=server_context(certificate, key))
        asked = asyncio.open_connection(sock=theirs, ssl=believing, server_hostname="localhost")
        _, (_, writer) = await asyncio.gather(accepted, asked)
        taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, sslproto.__file__)])
    finally:
        tracemalloc.stop()
    both = sum(one.size for one in taken.statistics("filename"))
    writer.close()
    await factory.shutdown(0)
    assert both < 2 * (100 << 10), "the two ends of the connection"
