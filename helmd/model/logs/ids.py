"""Trace and user ids: what is none, and those too long for an index, whose original is kept in the context."""

import re
from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence

from helmd.model.logs.entry import LogRow

ID_LIMIT = 2048
"""Maximum size in bytes of an indexed id or host name (a PostgreSQL B-tree entry takes at most a third of a page)."""
_ALWAYS_SHORT = ID_LIMIT // 4
"""Characters that never exceed ID_LIMIT, since UTF-8 takes at most 4 bytes for one."""
CHANGED = "_changed"
"""Key in an entry's context for values that were changed before storing: field → original value."""

ABSENT = frozenset({"", "-", "none", "null", "nil", "undefined", "n/a"})
"""How programs print an id that there is not."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?\Z")
"""W3C Trace Context, section 3.2: version, trace id, parent id, flags."""
_CLOUD_TRACE = re.compile(r"projects/[^/]{1,100}/traces/([0-9A-Za-z]{1,64})\Z")
"""How Google Cloud's libraries write a trace id."""
_CONTEXT_KEYS = ("traceparent", "trace_id", "traceId", "otelTraceID", "dd.trace_id", "trace.id")


def given_id(text: str) -> str | None:
    """Return the id that TEXT is, or None if it is a word for none."""
    return None if text.isspace() or (len(text) < 16 and text.strip().lower() in ABSENT) else text


def trace_id_in(text: str) -> str | None:
    """Return the trace id that TEXT is or has in it, or None if it is absent, or zeros, which stand for no trace (W3C,
    OTel).
    """
    if text[:1] in "0-p" or text[2:3] == "-":
        if not text.strip("0-"):
            return None
        if (found := _TRACEPARENT.match(text) or _CLOUD_TRACE.match(text)) is not None:
            return found[1] if found[1].strip("0") else None
    return text if len(text) >= 16 and not text.isspace() else given_id(text)


def trace_id_of(context: Mapping[str, object]) -> str | None:
    """Return the trace id in the CONTEXT that came with a posted entry."""
    for key in _CONTEXT_KEYS:
        value = context.get(key)
        if isinstance(value, str) and (found := trace_id_in(value)) is not None:
            return found
    return None


def short_id(text: str) -> str:
    """Return TEXT, truncated to ID_LIMIT bytes at a character boundary."""
    if len(text) <= _ALWAYS_SHORT or len(raw := text.encode()) <= ID_LIMIT:
        return text
    return getincrementaldecoder("utf-8")().decode(raw[:ID_LIMIT])


def with_short_ids(rows: Sequence[LogRow]) -> Sequence[LogRow]:
    """Return ROWS with trace and user ids truncated to ID_LIMIT, and the originals in the context under CHANGED.

    A value that the service's own context has under CHANGED is kept inside it.
    """
    candidates = [
        number
        for number, row in enumerate(rows)
        if ((trace := row[5]) is not None and len(trace) > _ALWAYS_SHORT)
        or ((user := row[6]) is not None and len(user) > _ALWAYS_SHORT)
    ]
    if not candidates:
        return rows
    changed = list(rows)
    for number in candidates:
        changed[number] = _with_short_ids(rows[number])
    return changed


def _with_short_ids(row: LogRow) -> LogRow:
    given = {"trace_id": row.trace_id, "user_id": row.user_id}
    short = {field: None if text is None else short_id(text) for field, text in given.items()}
    changed: dict[str, object] = {field: text for field, text in given.items() if short[field] != text}
    if not changed:
        return row
    context = dict(row.context or {})
    if CHANGED in context:
        changed[CHANGED] = context[CHANGED]
    return row._replace(trace_id=short["trace_id"], user_id=short["user_id"], context={**context, CHANGED: changed})
