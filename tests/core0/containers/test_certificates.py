"""Certificates for containers: each for one, the next one ready after a while."""

import asyncio
from itertools import count

import pytest

from core0.containers import certificates
from core0.containers.certificates import Certificate, Certificates


async def test_nobody_gets_what_another_has_and_the_next_one_is_made_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certificates, "_CALM", 0.001)
    numbers, made = count(), asyncio.Event()

    def make(name: str) -> Certificate:
        made.set()
        return name, "key", str(next(numbers))

    take = Certificates(make)
    assert [take(), take()] == [("core-x", "key", "0"), ("core-x", "key", "1")]
    made.clear()
    await made.wait()
    assert next(numbers) == 3, "the third is made"
    assert [take()[2], take()[2]] == ["2", "4"]
