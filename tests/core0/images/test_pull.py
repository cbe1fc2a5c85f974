"""What the puller says of servers that do not serve."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core0.images.model import Job, parse_reference, sources_of
from core0.images.pull import pull
from core0.wire.images import ImagesConfig


def job_of(reference: str, folder: Path) -> Job:
    wanted = parse_reference(reference)
    return Job(wanted, str(folder), (), 1 << 30, sources_of(wanted, ImagesConfig()))


@pytest.fixture
def port() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("image", ["demo/", "demo:latest"])
def test_a_server_that_is_not_there_is_named_with_what_to_check(
    port: int, image: str, tmp_path: Path
) -> None:
    job = job_of(f"http://127.0.0.1:{port}/{image}", tmp_path)
    said = rf"^cannot fetch http://127\.0\.0\.1:{port}/\S+: Connection refused; check the address and that"
    with pytest.raises(Exception, match=said):
        pull(job)


def test_a_server_that_hangs_up_is_told_by_what_it_did(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.close()

        server = threading.Thread(target=hang_up)
        server.start()
        port = listener.getsockname()[1]
        job = job_of(f"http://127.0.0.1:{port}/demo:latest", tmp_path)
        with pytest.raises(
            OSError, match=r"^cannot fetch \S+: (Remote end closed|Connection reset).*; check"
        ):
            pull(job)
        server.join()
