"""Log rows as the text that COPY reads (PostgreSQL manual, COPY, "Text Format"). Built by hand: it is the hot path."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC

from helmd.model.row import LogRow

COLUMNS = (
    "id",
    "timestamp",
    "same_as",
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

_CHUNK_ROWS = 500
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode

Counts = dict[tuple[str, int, str, str], int]
"""Rows by (minute as ``2026-01-31T09:30``, retention, service, level)."""


def escaped(text: str) -> str:
    """TEXT with what COPY gives a meaning written out."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _ESCAPES[found.group()], text)


def days_of(rows: Sequence[LogRow], retention_of: RetentionOf) -> set[tuple[int, str]]:
    """The partitions that ROWS go to, as (retention, day)."""
    return {(retention_of(row.service_name), _iso(row)[:10]) for row in rows}


def chunks(rows: Sequence[LogRow], first_id: int, retention_of: RetentionOf, counts: Counts) -> Iterator[bytes]:
    """ROWS as COPY text of COLUMNS, some at a time, with ids from FIRST_ID on; COUNTS gets what the rollups get."""
    for begin in range(0, len(rows), _CHUNK_ROWS):
        lines = []
        for number, row in enumerate(rows[begin : begin + _CHUNK_ROWS], first_id + begin):
            service, level, message, context, same = row.service_name, row.level, row.message, row.context, row.same_as
            retention, iso = retention_of(service), _iso(row)
            if same is None:
                key = (iso[:16], retention, service, level)
                counts[key] = counts.get(key, 0) + 1
            if _SPECIAL.search(message) is not None:
                message = escaped(message)
            lines.append(
                f"{number}\t{iso}\t{_plain(same)}\t{_plain(row.process_id)}\t{retention}\t{escaped(service)}\t"
                f"{escaped(level)}\t{message}\t{_NULL if context is None else escaped(_encode(context))}\t"
                f"{_text(row.trace_id)}\t{_text(row.user_id)}\t{_text(row.hostname)}\t{row.source}\t"
                f"{_text(row.unit)}\t{_text(row.stream)}\t{_text(row.boot_id)}\n"
            )
        yield "".join(lines).encode()


_NULL = "\\N"


def _iso(row: LogRow) -> str:
    text = row.timestamp.isoformat()
    return text if text.endswith("+00:00") else row.timestamp.astimezone(UTC).isoformat()


def _plain(number: int | None) -> str:
    return _NULL if number is None else str(number)


def _text(text: str | None) -> str:
    return _NULL if text is None else escaped(text)
