"""Ids of traces and users, which have a place in an index: what is too long for one is cut, and noted whole."""

from codecs import getincrementaldecoder
from collections.abc import Sequence

from helmd.model.logs.entry import LogRow

ID_LIMIT = 2048
"""Bytes of an id or host name that have a place in an index (PostgreSQL, B-tree: a third of a page)."""
_SURELY_SHORT = ID_LIMIT // 4
"""Characters that no UTF-8 makes too many bytes of."""
CHANGED = "_changed"
"""The key in an entry's context for what was not stored as given: field → what was given."""


def short_id(text: str) -> str:
    """TEXT itself when it has a place in an index, else what of it has; no character is cut through."""
    if len(text) <= _SURELY_SHORT or len(raw := text.encode()) <= ID_LIMIT:
        return text
    return getincrementaldecoder("utf-8")().decode(raw[:ID_LIMIT])


def with_short_ids(rows: Sequence[LogRow]) -> Sequence[LogRow]:
    """ROWS with ids that have a place in an index; what a service's own context has under CHANGED is noted too."""
    suspects = [
        number
        for number, row in enumerate(rows)
        if ((trace := row[5]) is not None and len(trace) > _SURELY_SHORT)
        or ((user := row[6]) is not None and len(user) > _SURELY_SHORT)
    ]
    if not suspects:
        return rows
    changed = list(rows)
    for number in suspects:
        changed[number] = _with_short_ids(rows[number])
    return changed


def _with_short_ids(row: LogRow) -> LogRow:
    given = {"trace_id": row.trace_id, "user_id": row.user_id}
    short = {field: None if text is None else short_id(text) for field, text in given.items()}
    noted: dict[str, object] = {field: text for field, text in given.items() if short[field] != text}
    if not noted:
        return row
    context = dict(row.context or {})
    if CHANGED in context:
        noted[CHANGED] = context[CHANGED]
    return row._replace(trace_id=short["trace_id"], user_id=short["user_id"], context={**context, CHANGED: noted})
