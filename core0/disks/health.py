"""What a disk says of its health, asked through smartctl, which knows the ways of ATA, SCSI and NVMe.

Source: smartctl(8), EXIT STATUS and --json; the attributes' meanings are those of smartmontools' own table.
"""

import msgspec

from core0.disks.tools import run_tool
from core0.wire.storage import Health

# Bits 3 to 7 of the exit code tell of the disk, not of the program.
_ABOUT_THE_DISK = 0b1111_1000
_DEADLINE = 30.0
# The bits of an NVMe disk's critical warning (NVMe 1.4, 5.14.1.2).
_WARNINGS = {
    1: "few of its spare blocks are left",
    2: "it is too hot or too cold",
    4: "its reliability is degraded",
    8: "it takes no writes any more",
    16: "its cache would not outlive a power cut",
}
# Raw values that count sectors that were lost or are about to be, and reads that failed for good.
_BAD_SECTORS = (5, 197, 198)
# Normalized values that fall from 100 to 0 with an SSD's life.
_WEAR = (177, 202, 231, 233)


class _Status(msgspec.Struct):
    passed: bool = True


class _Value(msgspec.Struct):
    current: int | None = None


class _Hours(msgspec.Struct):
    hours: int | None = None


class _Nvme(msgspec.Struct):
    critical_warning: int = 0
    percentage_used: int | None = None
    available_spare: int = 100
    available_spare_threshold: int = 0
    media_errors: int | None = None


class _Raw(msgspec.Struct):
    value: int = 0


class _Attribute(msgspec.Struct):
    id: int
    value: int = 100
    raw: _Raw = msgspec.field(default_factory=_Raw)


class _Table(msgspec.Struct):
    table: tuple[_Attribute, ...] = ()


class _Report(msgspec.Struct):
    smart_status: _Status | None = None
    temperature: _Value = msgspec.field(default_factory=_Value)
    power_on_time: _Hours = msgspec.field(default_factory=_Hours)
    nvme_smart_health_information_log: _Nvme | None = None
    ata_smart_attributes: _Table = msgspec.field(default_factory=_Table)


async def ask(device: str) -> Health | None:
    """A disk's health; None if it does not tell any, or nobody can be sent to ask."""
    try:
        said = await run_tool(
            "smartctl", "--json=c", "--all", device, deadline=_DEADLINE, harmless=_ABOUT_THE_DISK
        )
    except OSError:
        return None
    return read(said)


def read(text: str) -> Health | None:
    """The health in smartctl's JSON; None if there is none in it."""
    try:
        report = msgspec.json.decode(text, type=_Report)
    except msgspec.DecodeError:
        return None
    if report.smart_status is None:
        return None
    log = report.nvme_smart_health_information_log
    passed = report.smart_status.passed or (log is not None and log.critical_warning != 0)
    troubles = [] if passed else ["it says that it fails"]
    wear, errors = _ata(report.ata_smart_attributes)
    if log:
        wear = None if log.percentage_used is None else log.percentage_used / 100
        errors = log.media_errors
        troubles += [words for bit, words in _WARNINGS.items() if log.critical_warning & bit]
        if log.available_spare < log.available_spare_threshold:
            troubles.append(f"{log.available_spare} % of its spare blocks are left")
    if wear is not None and wear >= 1:
        troubles.append(f"{wear:.0%} of its life are used")
    why = "; ".join(troubles) or "it says that it is well"
    return Health(not troubles, why, report.temperature.current, wear, report.power_on_time.hours, errors)


def _ata(attributes: _Table) -> tuple[float | None, int | None]:
    """Wear and bad sectors as the vendor's attributes tell them."""
    by_id = {one.id: one for one in attributes.table}
    bad = [by_id[number].raw.value for number in _BAD_SECTORS if number in by_id]
    wear = next((1 - by_id[number].value / 100 for number in _WEAR if number in by_id), None)
    return wear, sum(bad) if bad else None
