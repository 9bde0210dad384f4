"""Log rows as the text that COPY reads (PostgreSQL manual, COPY, "Text Format"). Built by hand: it is the hot path."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

from helmd.model.logs.entry import LogRow
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

_CHUNK_ROWS = 500
_NULL = "\\N"
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
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
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _ESCAPES[found.group()], text)


def partitions_of(rows: Sequence[LogRow], retention_of: RetentionOf) -> set[tuple[int, str]]:
    """The partitions that ROWS go to, as (retention, day)."""
    times = [row[0] for row in rows]
    first, last = min(times).astimezone(UTC).date(), max(times).astimezone(UTC).date()
    if first == last:
        return {(retention_of(service), first.isoformat()) for service in {row[1] for row in rows}}
    return {(retention_of(row.service_name), row.timestamp.astimezone(UTC).date().isoformat()) for row in rows}


def chunks(
    rows: Sequence[LogRow], first_id: int, retention_of: RetentionOf, boots: Mapping[str, str], counts: Counts
) -> Iterator[bytes]:
    """ROWS as COPY text of COLUMNS, some at a time, with ids from FIRST_ID on; COUNTS gets what the rollups get.

    BOOTS has the short ids of boots. `helmd.store.logs.columns` reads what is stored in a shorter form.
    """
    heads: dict[str, tuple[int, str]] = {}
    tails: dict[tuple[str | None, ...], str] = {}
    special = _SPECIAL.search
    second, began, minute = None, "", ""
    for begin in range(0, len(rows), _CHUNK_ROWS):
        lines = []
        for number, row in enumerate(rows[begin : begin + _CHUNK_ROWS], first_id + begin):
            timestamp, service, level, message, context, trace, user, host, pid, source, unit, stream, boot, same = row
            since = timestamp - _EPOCH
            if (since.seconds, since.days) != second:
                second = since.seconds, since.days
                began = timestamp.astimezone(UTC).isoformat()[:19]
                minute = began[:16]
            if (head := heads.get(service)) is None:
                heads[service] = head = (retention_of(service), escaped(service))
            retention, name = head
            if same is None:
                key = (minute, retention, service, level)
                counts[key] = counts.get(key, 0) + 1
            if special(message) is not None:
                message = escaped(message)
            noted = _NULL
            if context is not None:
                noted = "".join(_pieces(context, 0))
                if "\\" in noted:
                    noted = noted.replace("\\", "\\\\")
            if trace is None:
                trace = _NULL
            elif special(trace) is not None:
                trace = escaped(trace)
            # What all lines of a process have in common.
            if (tail := tails.get((service, host, source, unit, stream, boot))) is None:
                kept = "" if unit == unit_of(service) else _text(unit)
                tail = f"{_text(host)}\t{source}\t{kept}\t{_text(stream)}\t{_text(boots.get(boot or '', boot))}\n"
                tails[service, host, source, unit, stream, boot] = tail
            lines.append(
                f"{number}\t{began}.{since.microseconds:06}+00\t{_NULL if same is None else same}\t"
                f"{_NULL if pid is None else pid}\t{retention}\t{name}\t{level}\t{message}\t{noted}\t{trace}\t"
                f"{_NULL if user is None else escaped(user)}\t{tail}"
            )
        yield "".join(lines).encode()


def _text(text: str | None) -> str:
    return _NULL if text is None else escaped(text)
