"""What smartctl says, in one sentence."""

import msgspec
import pytest

from core0.disks.health import ask, read
from core0.wire import paths

WELL = {"critical_warning": 0, "percentage_used": 3, "available_spare": 100, "available_spare_threshold": 10}


def nvme(*, passed: bool = True, **log: int) -> str:
    report = {
        "smart_status": {"passed": passed},
        "temperature": {"current": 50},
        "power_on_time": {"hours": 7},
        "nvme_smart_health_information_log": {**WELL, "media_errors": 0, **log},
    }
    return msgspec.json.encode(report).decode()


def ata(**values: tuple[int, int]) -> str:
    table = [
        {"id": int(number[1:]), "value": value, "raw": {"value": raw}}
        for number, (value, raw) in values.items()
    ]
    return msgspec.json.encode(
        {"smart_status": {"passed": True}, "ata_smart_attributes": {"table": table}}
    ).decode()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (nvme(passed=False, critical_warning=4), "its reliability is degraded"),
        (nvme(passed=False, critical_warning=2), "it is too hot or too cold"),
        (nvme(passed=False, critical_warning=12), "its reliability is degraded; it takes no writes any more"),
        (nvme(available_spare=5), "5 % of its spare blocks are left"),
        (nvme(percentage_used=104), "104% of its life are used"),
        ('{"smart_status": {"passed": false}}', "it says that it fails"),
    ],
    ids=["reliability", "temperature", "two warnings", "spare blocks", "worn out", "ATA"],
)
def test_a_disk_that_predicts_its_failure_says_why(said: str, why: str) -> None:
    health = read(said)
    assert health
    assert (health.ok, health.why) == (False, why)


def test_a_disk_that_is_well_shows_its_figures() -> None:
    health = read(nvme())
    assert health
    assert (health.ok, health.why) == (True, "it says that it is well")
    assert (health.temperature, health.wear, health.power_on_hours, health.media_errors) == (50, 0.03, 7, 0)


def test_wear_and_bad_sectors_of_ata_disks_come_from_the_vendors_attributes() -> None:
    health = read(ata(i5=(100, 3), i197=(100, 2), i177=(40, 999)))
    assert health
    assert (health.ok, health.wear, health.media_errors) == (True, 0.6, 5)


async def test_a_node_that_cannot_ask_serves_its_disks_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STORAGE", "/nowhere")
    assert await ask("/dev/null") is None


@pytest.mark.parametrize("said", ["", "{}", '{"smart_status": 1}', "[]"])
def test_what_says_nothing_of_health_has_none(said: str) -> None:
    assert read(said) is None
