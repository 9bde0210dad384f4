"""Journal fields of entries that were posted while the store was unavailable. `helmd.model.ingest.own_entries` says
which entries are Helm's own.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from helmd.model.ingest.body import Body, idempotency_key, service_named
from helmd.model.ingest.logs import CONTEXT_LIMIT, log_rows
from helmd.model.ingest.own_entries import POSTED, PostedRow
from helmd.model.ingest.signature import REQUEST
from helmd.model.logs.entry import HTTP, LogRow, datetime_of
from helmd.model.logs.ids import CHANGED
from helmd.model.logs.parsing.journal_fields import JournalEntry, Value, text_of
from helmd.model.logs.parsing.structured import decode_any_number, storable, too_deep
from helmd.model.suite.names import identifier_of

_SERVICE = "HIVEMATRIX_SERVICE"
_KEY, _ENTRIES, _NUMBER = "HIVEMATRIX_KEY", "HIVEMATRIX_ENTRIES", "HIVEMATRIX_NUMBER"
_LEVEL, _TIMESTAMP, _CONTEXT = "HIVEMATRIX_LEVEL", "HIVEMATRIX_TIMESTAMP", "HIVEMATRIX_CONTEXT"
_TEXTS = {
    "trace_id": "HIVEMATRIX_TRACE_ID",
    "user_id": "HIVEMATRIX_USER_ID",
    "hostname": "HIVEMATRIX_HOSTNAME",
    "process_id": "HIVEMATRIX_PROCESS_ID",
}
_PRIORITIES = {"DEBUG": "7", "INFO": "6", "WARNING": "4", "ERROR": "3", "CRITICAL": "2"}
_PART = 512 * 1024
"""Maximum size of a field in bytes, since `JournalReader` reads little more of each."""
_DEEPEST = 72
"""Maximum nesting of a context: that of a body, plus that of the record of its changes."""
_COUNT, _PID = re.compile(r"[0-9]{1,9}\Z"), re.compile(r"[0-9]{1,10}\Z")


def fields_of(posted: PostedRow) -> dict[str, str]:
    """Return the journal entry for a posted row, to be signed."""
    row = posted.row
    fields = {
        "MESSAGE": row.message,
        "PRIORITY": _PRIORITIES[row.level],
        "SYSLOG_IDENTIFIER": identifier_of(row.service_name),
        POSTED: "1",
        _SERVICE: row.service_name,
        REQUEST: posted.request,
        _ENTRIES: str(posted.entries),
        _NUMBER: str(posted.number),
        _LEVEL: row.level,
        _TIMESTAMP: row.timestamp.isoformat(),
    }
    if posted.key is not None:
        fields[_KEY] = posted.key
    fields |= {name: str(value) for column, name in _TEXTS.items() if (value := getattr(row, column)) is not None}
    if row.context is not None:
        # ASCII, so that it can be parted anywhere.
        context = json.dumps(row.context)
        for number, start in enumerate(range(0, len(context), _PART)):
            fields[_numbered(number)] = context[start : start + _PART]
    return fields


def read_posted(entry: JournalEntry, request: str, retention_of: Callable[[str], int]) -> PostedRow | None:
    """Return the row that the authentic ENTRY was made of by `fields_of`, or None if it is none of the parts of
    REQUEST.

    Raises UsageError and ValueError for what is not as `fields_of` makes it.
    """
    fields = entry.fields
    entries, number = _count(fields, _ENTRIES), _count(fields, _NUMBER)
    if number >= entries:
        return None
    key = idempotency_key(text_of(fields, _KEY)) if _KEY in fields else None
    return PostedRow(_posted(entry, retention_of), request, key, entries, number)


def _posted(entry: JournalEntry, retention_of: Callable[[str], int]) -> LogRow:
    """Return the row of a posted entry, checked as a request's body is. Raises UsageError."""
    fields = entry.fields
    service = service_named(text_of(fields, _SERVICE))
    given: dict[str, Any] = {"message": _text(fields, "MESSAGE")}
    given |= {name: _text(fields, field) for name, field in _TEXTS.items() if field in fields}
    given |= {"level": _text(fields, _LEVEL), "timestamp": _text(fields, _TIMESTAMP)}
    size = sum(map(len, given.values()))
    if _PID.match(digits := given.get("process_id", "")):
        given["process_id"] = int(digits)
    # It was within the limit when it was posted; journald received it later.
    days = retention_of(service) + 1
    body = Body(service, (given,), suspect=True, size=size, single=True)
    (row,) = log_rows(body, datetime_of(entry.realtime), days)
    return row._replace(context=_with(_context(fields), row.context), source=HTTP)


def _with(context: dict[str, Any] | None, changes: Mapping[str, object] | None) -> dict[str, Any] | None:
    """Return CONTEXT with the changes that were made when the entry was read again."""
    if not changes:
        return context
    noted, more = (context or {}).get(CHANGED), changes.get(CHANGED)
    both = {CHANGED: {**noted, **more}} if isinstance(noted, dict) and isinstance(more, dict) else {}
    return {**(context or {}), **changes, **both}


def _context(fields: Mapping[str, Value]) -> dict[str, Any] | None:
    parts: list[str] = []
    for number in count():
        if (name := _numbered(number)) not in fields:
            break
        parts.append(_text(fields, name))
    if not parts:
        return None
    text = "".join(parts)
    try:
        read, end = decode_any_number(text)
    except (ValueError, RecursionError):
        read, end = None, 0
    if isinstance(read, dict) and end == len(text) and not too_deep(read, _DEEPEST):
        return {str(storable(key)): storable(value) for key, value in read.items()}
    return {CHANGED: {"context": storable(text[:CONTEXT_LIMIT])}}


def _numbered(number: int) -> str:
    return f"{_CONTEXT}_{number}" if number else _CONTEXT


def _text(fields: Mapping[str, Value], name: str) -> str:
    """Return a field, decoded like a body: invalid UTF-8 becomes lone surrogates, which are replaced and recorded
    later.
    """
    value = fields.get(name, b"")
    return (value[0] if isinstance(value, list) else value).decode("utf-8", "surrogateescape")


def _count(fields: Mapping[str, Value], name: str) -> int:
    """Raises ValueError."""
    if not _COUNT.match(digits := text_of(fields, name)):
        raise ValueError(f"{name} is not a number")
    return int(digits)


def all_posted(rows: Sequence[LogRow], request: str, key: str | None, first: int = 0) -> list[PostedRow]:
    """Return the rows of one batch, numbered from FIRST, since several batches may share an id."""
    return [PostedRow(row, request, key, first + len(rows), first + number) for number, row in enumerate(rows)]
