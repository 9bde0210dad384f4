"""Log rows as the text that COPY reads (PostgreSQL manual, COPY, "Text Format"). Built by hand: it is the hot path."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

from helmd.model.logs.entry import LogRow, field_reader
from helmd.model.suite.names import unit_of

COLUMNS = (
    "id",
    "timestamp",
    "duplicate_of",
    "process_id",
    "retention",
    "service_name",
    "level",
    "message",
    "context",
    "trace_id",
    "user_id",
    "hostname",
    "source",
    "unit",
    "stream",
    "boot_id",
)
RetentionOf = Callable[[str], int]
"""The retention class of a service, in days."""

_timestamp, _service = map(field_reader, ("timestamp", "service_name"))

_CHUNK_ROWS = 500
_NULL = "\\N"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _refused(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


_pieces = c_make_encoder(None, _refused, encode_basestring, None, ":", ",", False, False, True)
"""JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")), which makes a new one of these for
each value; that takes longer than the value."""

Counts = dict[tuple[str, int, str, str], int]
"""Rows by (minute as ``2026-01-31T09:30``, retention, service, level)."""


def escaped(text: str) -> str:
    """TEXT with what COPY gives a meaning written out."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def partitions_of(rows: Sequence[LogRow], retention_of: RetentionOf) -> set[tuple[int, str]]:
    """The partitions that ROWS go to, as (retention, day)."""
    times = [*map(_timestamp, rows)]
    first, last = min(times).astimezone(UTC).date(), max(times).astimezone(UTC).date()
    if first == last:
        return {(retention_of(service), first.isoformat()) for service in {*map(_service, rows)}}
    return {(retention_of(row.service_name), row.timestamp.astimezone(UTC).date().isoformat()) for row in rows}


def chunks(
    rows: Sequence[LogRow], first_id: int, retention_of: RetentionOf, boots: Mapping[str, str], counts: Counts
) -> Iterator[bytes]:
    """ROWS as COPY text of COLUMNS, some at a time, with ids from FIRST_ID on; COUNTS gets what the rollups get.

    BOOTS has the short ids of boots. `helmd.store.logs.columns` reads what is stored in a shorter form.
    """
    shared: dict[tuple[str | int | None, ...], _Shared] = {}
    last, second, began, minute, time = None, None, "", "", ""
    for begin in range(0, len(rows), _CHUNK_ROWS):
        lines = []
        for number, row in enumerate(rows[begin : begin + _CHUNK_ROWS], first_id + begin):
            timestamp, service, level, message, context, trace, user, host, pid, source, unit, stream, boot, same = row
            # journald gives all lines of one read one time.
            if timestamp is not last:
                last = timestamp
                since = timestamp - _EPOCH
                if (since.seconds, since.days) != second:
                    second = since.seconds, since.days
                    began = timestamp.astimezone(UTC).isoformat()[:19]
                    minute = began[:16]
                time = f"\t{began}.{since.microseconds:06}+00\t"
            key = (minute, service, level, pid, host, source, unit, stream, boot)
            if (common := shared.get(key)) is None:
                shared[key] = common = _shared(row, minute, retention_of(service), boots)
            if same is None:
                common.entries += 1
            # Looking for each takes less time than a regular expression, and nearly all texts have none of them.
            if "\\" in message or "\n" in message or "\t" in message or "\r" in message:
                message = escaped(message)
            noted = _NULL
            if context is not None:
                noted = "".join(_pieces(context, 0))
                if "\\" in noted:
                    noted = noted.replace("\\", "\\\\")
            lines.append(
                f"{number}{time}{_NULL if same is None else same}{common.head}{message}\t{noted}\t"
                f"{_NULL if trace is None else escaped(trace)}\t{_NULL if user is None else escaped(user)}{common.tail}"
            )
        yield "".join(lines).encode()
    for common in shared.values():
        if common.entries:
            counts[common.slot] = counts.get(common.slot, 0) + common.entries


@dataclass(slots=True)
class _Shared:
    """What the lines of one minute, process and level have in common: the text around what they have not."""

    slot: tuple[str, int, str, str]
    """Their key in `Counts`."""
    head: str
    tail: str
    entries: int = 0
    """Those that the rollups count."""


def _shared(row: LogRow, minute: str, retention: int, boots: Mapping[str, str]) -> _Shared:
    service, level, pid, unit = row.service_name, row.level, row.process_id, row.unit
    kept = "" if unit == unit_of(service) else _text(unit)
    return _Shared(
        (minute, retention, service, level),
        f"\t{_NULL if pid is None else pid}\t{retention}\t{escaped(service)}\t{level}\t",
        f"\t{_text(row.hostname)}\t{row.source}\t{kept}\t{_text(row.stream)}"
        f"\t{_text(boots.get(row.boot_id or '', row.boot_id))}\n",
    )


def _text(text: str | None) -> str:
    return _NULL if text is None else escaped(text)
