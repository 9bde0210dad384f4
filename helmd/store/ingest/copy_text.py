"""Log rows in COPY's text format (PostgreSQL manual, COPY). Not by psycopg's writer, since this is the hot path."""

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
"""Returns the retention class of a service, in days."""

_timestamp, _service = map(field_reader, ("timestamp", "service_name"))

_CHUNK_ROWS = 500
_NULL = "\\N"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _refused(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


_json_parts = c_make_encoder(None, _refused, encode_basestring, None, ":", ",", False, False, True)
"""The encoder of JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")), which makes a new one
for each value; that takes longer than encoding it.
"""

Counts = dict[tuple[str, int, str, str], int]
"""Number of rows by (minute as ``2026-01-31T09:30`` in UTC, retention, service, level)."""


def escaped(text: str) -> str:
    """Return TEXT with COPY's special characters escaped."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def partitions_of(rows: Sequence[LogRow], retention_of: RetentionOf) -> set[tuple[int, str]]:
    """Return the partitions of ROWS, of which there must be at least one, as (retention, day in UTC)."""
    times = [*map(_timestamp, rows)]
    first, last = min(times).astimezone(UTC).date(), max(times).astimezone(UTC).date()
    if first == last:
        return {(retention_of(service), first.isoformat()) for service in {*map(_service, rows)}}
    return {(retention_of(row.service_name), row.timestamp.astimezone(UTC).date().isoformat()) for row in rows}


def chunks(
    rows: Sequence[LogRow], first_id: int, retention_of: RetentionOf, boots: Mapping[str, str], counts: Counts
) -> Iterator[bytes]:
    """Yield ROWS in COPY's text format of COLUMNS, in chunks, with ids starting at FIRST_ID.

    The number of rows without duplicates is added to COUNTS at the end. BOOTS are the short ids of boots.
    `helmd.store.logs.columns` reads the columns that are stored in a shorter form.
    """
    shared: dict[tuple[str | int | None, ...], _Shared] = {}
    last, second, began, minute, time = None, None, "", "", ""
    for begin in range(0, len(rows), _CHUNK_ROWS):
        lines = []
        for number, row in enumerate(rows[begin : begin + _CHUNK_ROWS], first_id + begin):
            timestamp, service, level, message, context, trace, user, host, pid, source, unit, stream, boot, same = row
            # journald gives all lines of one read(2) the same time.
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
            # Faster than a regular expression, and nearly all messages have none of them.
            if "\\" in message or "\n" in message or "\t" in message or "\r" in message:
                message = escaped(message)
            json_text = _NULL
            if context is not None:
                json_text = "".join(_json_parts(context, 0))
                if "\\" in json_text:
                    json_text = json_text.replace("\\", "\\\\")
            lines.append(
                f"{number}{time}{_NULL if same is None else same}{common.head}{message}\t{json_text}\t"
                f"{_NULL if trace is None else escaped(trace)}\t{_NULL if user is None else escaped(user)}{common.tail}"
            )
        yield "".join(lines).encode()
    for common in shared.values():
        if common.entries:
            counts[common.slot] = counts.get(common.slot, 0) + common.entries


@dataclass(slots=True)
class _Shared:
    """The columns that rows of one minute, process and level share, as COPY text.

    ``head`` is between timestamp and message, ``tail`` after the user id.
    """

    slot: tuple[str, int, str, str]
    """Their key in `Counts`."""
    head: str
    tail: str
    entries: int = 0
    """The number of rows without duplicates."""


def _shared(row: LogRow, minute: str, retention: int, boots: Mapping[str, str]) -> _Shared:
    service, level, pid, unit = row.service_name, row.level, row.process_id, row.unit
    stored_unit = "" if unit == unit_of(service) else _text(unit)
    return _Shared(
        (minute, retention, service, level),
        f"\t{_NULL if pid is None else pid}\t{retention}\t{escaped(service)}\t{level}\t",
        f"\t{_text(row.hostname)}\t{row.source}\t{stored_unit}\t{_text(row.stream)}"
        f"\t{_text(boots.get(row.boot_id or '', row.boot_id))}\n",
    )


def _text(text: str | None) -> str:
    return _NULL if text is None else escaped(text)
