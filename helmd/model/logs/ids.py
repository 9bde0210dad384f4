"""Trace and user ids: those too long for an index are truncated, and the original is kept in the context."""

from codecs import getincrementaldecoder
from collections.abc import Sequence

from helmd.model.logs.entry import LogRow

ID_LIMIT = 2048
"""Maximum size in bytes of an indexed id or host name (a PostgreSQL B-tree entry takes at most a third of a page)."""
_ALWAYS_SHORT = ID_LIMIT // 4
"""Characters that never exceed ID_LIMIT, since UTF-8 takes at most 4 bytes for one."""
CHANGED = "_changed"
"""Key in an entry's context for values that were changed before storing: field → original value."""


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
