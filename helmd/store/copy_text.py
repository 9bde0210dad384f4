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
_NULL = "\\N"
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
    times = [row[0] for row in rows]
    first, last = min(times).astimezone(UTC).date(), max(times).astimezone(UTC).date()
    if first == last:
        return {(retention_of(service), first.isoformat()) for service in {row[1] for row in rows}}
    return {(retention_of(row.service_name), row.timestamp.astimezone(UTC).date().isoformat()) for row in rows}


def chunks(rows: Sequence[LogRow], first_id: int, retention_of: RetentionOf, counts: Counts) -> Iterator[bytes]:
    """ROWS as COPY text of COLUMNS, some at a time, with ids from FIRST_ID on; COUNTS gets what the rollups get."""
    heads: dict[str, tuple[int, str]] = {}
    tails: dict[tuple[str | None, ...], str] = {}
    special = _SPECIAL.search
    for begin in range(0, len(rows), _CHUNK_ROWS):
        lines = []
        for number, row in enumerate(rows[begin : begin + _CHUNK_ROWS], first_id + begin):
            timestamp, service, level, message, context, trace, user, host, pid, source, unit, stream, boot, same = row
            iso = timestamp.isoformat()
            if iso[-6:] != "+00:00":
                iso = timestamp.astimezone(UTC).isoformat()
            if (head := heads.get(service)) is None:
                heads[service] = head = (retention_of(service), escaped(service))
            retention, name = head
            if same is None:
                key = (iso[:16], retention, service, level)
                counts[key] = counts.get(key, 0) + 1
            if special(message) is not None:
                message = escaped(message)
            noted = _NULL
            if context is not None:
                noted = _encode(context)
                if "\\" in noted:
                    noted = noted.replace("\\", "\\\\")
            # What all lines of a process have in common.
            if (tail := tails.get((host, source, unit, stream, boot))) is None:
                tail = f"{_text(host)}\t{source}\t{_text(unit)}\t{_text(stream)}\t{_text(boot)}\n"
                tails[host, source, unit, stream, boot] = tail
            lines.append(
                f"{number}\t{iso}\t{_NULL if same is None else same}\t{_NULL if pid is None else pid}\t{retention}\t"
                f"{name}\t{level}\t{message}\t{noted}\t{_NULL if trace is None else escaped(trace)}\t"
                f"{_NULL if user is None else escaped(user)}\t{tail}"
            )
        yield "".join(lines).encode()


def _text(text: str | None) -> str:
    return _NULL if text is None else escaped(text)
