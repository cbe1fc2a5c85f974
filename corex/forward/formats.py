"""Log lines in the words of syslog, of Loki and of OTLP. Pure.

Sources: RFC 5424 (syslog), 5425 and 6587 (octet counting), 5426 (datagrams); Loki's HTTP API, "Ingest logs"; OTLP
1.x, "JSON Protobuf Encoding", and OpenTelemetry's semantic conventions (`log.iostream`, `service.name`).
"""

import time
from collections.abc import Sequence

import msgspec

from corex.wire.api import LogGap, LogLine
from corex.wire.targets import TargetSpec

Records = Sequence[LogLine | LogGap]
# Who speaks of lines that are gone.
_SELF = "core-x"
_USER_LEVEL = 1 << 3  # RFC 5424, table 1
_SEVERITIES = {"stdout": 6, "stderr": 4, "gap": 4}  # informational, warning
# OTLP's severity numbers; the same meanings.
_NUMBERS = {"stdout": (9, "INFO"), "stderr": (13, "WARN"), "gap": (13, "WARN")}
# RFC 5612: ours until we have one.
_ENTERPRISE = 32473
_LONGEST_NAME = 48
# Larger datagrams do not arrive everywhere (RFC 5426, section 3.2).
DATAGRAM = 8 << 10


class Sayer:
    """Says lines of one container to one target."""

    def __init__(self, container: str, spec: TargetSpec) -> None:
        self._container, self._spec = container, spec
        self._last: dict[tuple[str, str], int] = {}

    def syslog(self, records: Records, now: float) -> list[bytes]:
        """Messages of RFC 5424."""
        pairs = "".join(f' {name}="{_escaped(value)}"' for name, value in self._spec.labels.items())
        data = f"[zeronode@{_ENTERPRISE}{pairs}]" if pairs else "-"
        return [self._message(record, data, now) for record in records]

    def _message(self, record: LogLine | LogGap, data: str, now: float) -> bytes:
        process, stream, moment, text = _facts(record, now)
        priority = _USER_LEVEL | _SEVERITIES[stream]
        whole = int(moment)
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((moment - whole) * 1e6):06d}Z"
        )
        head = f"<{priority}>1 {stamp} {self._container} {process[:_LONGEST_NAME]} - {stream} {data} "
        return (head + text).encode("utf-8", "replace")

    def loki(self, records: Records, now: float) -> bytes:
        """The body of a push."""
        streams: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for record in records:
            process, stream, moment, text = _facts(record, now)
            key = (process, stream)
            # Loki drops a line that has the time and the text of another one: lines that came together differ by 1 ns
            stamp = max(int(moment * 1e9), self._last.get(key, 0) + 1)
            self._last[key] = stamp
            streams.setdefault(key, []).append((str(stamp), text))
        labels: dict[str, str] = {**self._spec.labels, "container": self._container}
        told = [
            {"stream": labels | {"process": process, "stream": stream}, "values": values}
            for (process, stream), values in streams.items()
        ]
        return msgspec.json.encode({"streams": told})

    def otlp(self, records: Records, now: float) -> bytes:
        """The body of an export of logs."""
        by_process: dict[str, list[dict[str, object]]] = {}
        for record in records:
            process, stream, moment, text = _facts(record, now)
            number, word = _NUMBERS[stream]
            said = {
                "timeUnixNano": str(int(moment * 1e9)),
                "observedTimeUnixNano": str(int(moment * 1e9)),
                "severityNumber": number,
                "severityText": word,
                "body": {"stringValue": text},
                "attributes": [_attribute("log.iostream", stream)] if stream != "gap" else [],
            }
            by_process.setdefault(process, []).append(said)
        return msgspec.json.encode(
            {
                "resourceLogs": [
                    {
                        "resource": {"attributes": self._resource(process)},
                        "scopeLogs": [{"scope": {"name": _SELF}, "logRecords": said}],
                    }
                    for process, said in by_process.items()
                ]
            }
        )

    def _resource(self, process: str) -> list[dict[str, object]]:
        own = {"service.name": process, "container.name": self._container}
        return [_attribute(name, value) for name, value in (own | self._spec.labels).items()]


def counted(messages: Sequence[bytes]) -> bytes:
    """Messages one after the other in a stream, each behind its length."""
    return b"".join(b"%d %s" % (len(message), message) for message in messages)


def _facts(record: LogLine | LogGap, now: float) -> tuple[str, str, float, str]:
    """Whose it is, on which stream, when, and what."""
    if isinstance(record, LogGap):
        return _SELF, "gap", now, f"{record.lost} lines were overwritten before they could be sent"
    return record.process, record.stream, record.time, record.text


def _attribute(name: str, value: str) -> dict[str, object]:
    return {"key": name, "value": {"stringValue": value}}


def _escaped(value: str) -> str:
    """RFC 5424, section 6.3.3."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
