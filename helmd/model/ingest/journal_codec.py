"""Entries that were posted while the store was away, as fields of the journal, and back.

Only what helmd itself wrote is believed: the unit, if there is one, is journald's own word (systemd.journal-fields(7)).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from helmd.model.logs.entry import HTTP, LogRow
from helmd.model.logs.level import LEVELS
from helmd.model.logs.parsing.journal_fields import Value
from helmd.model.suite.names import HELMD_UNIT, identifier_of

_POSTED, _SERVICE, _REQUEST = "HIVEMATRIX_POSTED", "HIVEMATRIX_SERVICE", "HIVEMATRIX_REQUEST"
_KEY, _ENTRIES, _NUMBER = "HIVEMATRIX_KEY", "HIVEMATRIX_ENTRIES", "HIVEMATRIX_NUMBER"
_LEVEL, _TIMESTAMP, _CONTEXT = "HIVEMATRIX_LEVEL", "HIVEMATRIX_TIMESTAMP", "HIVEMATRIX_CONTEXT"
_TEXTS = {
    "trace_id": "HIVEMATRIX_TRACE_ID",
    "user_id": "HIVEMATRIX_USER_ID",
    "hostname": "HIVEMATRIX_HOSTNAME",
    "process_id": "HIVEMATRIX_PROCESS_ID",
}
_PRIORITIES = {"DEBUG": "7", "INFO": "6", "WARNING": "4", "ERROR": "3", "CRITICAL": "2"}
_UNIT = HELMD_UNIT.encode()
_PART = 512 * 1024
"""Bytes of a field: whoever reads the journal reads little more of each (`JournalReader`)."""


class PostedRow(NamedTuple):
    """A row that came by the journal. ``request`` is the batch it was posted in, which had so many ``entries``."""

    row: LogRow
    request: str
    key: str | None = None
    """The batch's Idempotency-Key."""
    entries: int = 1
    number: int = 0
    """Which of them it is, from 0 on."""


def fields_of(posted: PostedRow) -> list[bytes]:
    """The journal entry for a row, as ``NAME=value``."""
    row = posted.row
    fields = {
        "MESSAGE": row.message,
        "PRIORITY": _PRIORITIES[row.level],
        "SYSLOG_IDENTIFIER": identifier_of(row.service_name),
        _POSTED: "1",
        _SERVICE: row.service_name,
        _REQUEST: posted.request,
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
    return [f"{name}={value}".encode() for name, value in fields.items()]


def posted_row(fields: Mapping[str, Value]) -> PostedRow | None:
    """The row that helmd wrote down in a journal entry; None for every other entry."""
    # Where helmd was killed before journald looked, there is no unit; what this account writes without one is believed
    # as well, since any of its processes may post on helmd's socket what it likes.
    if _POSTED not in fields or fields.get("_SYSTEMD_USER_UNIT", _UNIT) != _UNIT:
        return None
    try:
        level = _text(fields, _LEVEL)
        if level not in LEVELS:
            return None
        pid = _text(fields, _TEXTS["process_id"]) if _TEXTS["process_id"] in fields else None
        row = LogRow(
            timestamp=datetime.fromisoformat(_text(fields, _TIMESTAMP)),
            service_name=_text(fields, _SERVICE),
            level=level,
            # A field without a value may not be there at all when it is read.
            message=_optional(fields, "MESSAGE") or "",
            context=_context(fields),
            trace_id=_optional(fields, _TEXTS["trace_id"]),
            user_id=_optional(fields, _TEXTS["user_id"]),
            hostname=_optional(fields, _TEXTS["hostname"]),
            process_id=None if pid is None else int(pid),
            source=HTTP,
        )
        request = str(UUID(_text(fields, _REQUEST)))
        entries, number = int(_text(fields, _ENTRIES)), int(_text(fields, _NUMBER))
        return PostedRow(row, request, _optional(fields, _KEY), entries, number)
    except (KeyError, ValueError):
        # The journal's file is damaged there.
        return None


def _context(fields: Mapping[str, Value]) -> dict[str, Any] | None:
    parts: list[str] = []
    for number in count():
        if (part := _optional(fields, _numbered(number))) is None:
            break
        parts.append(part)
    read = json.loads("".join(parts)) if parts else None
    return read if isinstance(read, dict) else None


def _numbered(number: int) -> str:
    return f"{_CONTEXT}_{number}" if number else _CONTEXT


def _optional(fields: Mapping[str, Value], name: str) -> str | None:
    return _text(fields, name) if name in fields else None


def _text(fields: Mapping[str, Value], name: str) -> str:
    value = fields[name]
    return (value[0] if isinstance(value, list) else value).decode()


def all_posted(rows: Sequence[LogRow], request: str, key: str | None, first: int = 0) -> list[PostedRow]:
    """The rows of one batch, to be written down; numbered from FIRST on where several share an id."""
    return [PostedRow(row, request, key, first + len(rows), first + number) for number, row in enumerate(rows)]
