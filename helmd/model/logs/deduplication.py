"""Duplicates: a line that a service both prints and posts by HTTP is stored as two rows, one marked as a duplicate.

Two rows are duplicates if service and message are equal, one is from the journal and one was posted, and their times
differ by at most two seconds. Matching is one to one: a line printed twice and posted twice counts as two lines.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from helmd.model.logs.entry import HTTP, JOURNAL, LogRow, field_reader

MAX_DISTANCE = timedelta(seconds=2)
OTHER = {JOURNAL: HTTP, HTTP: JOURNAL}
"""The source of a row's possible duplicate, by the source of the row."""

_source, _timestamp = map(field_reader, ("source", "timestamp"))
_WINDOW_GAP = timedelta(seconds=10)


class Single(NamedTuple):
    """A stored row that is not paired with a duplicate."""

    id: int
    timestamp: datetime
    service_name: str
    message: str
    source: str


class Window(NamedTuple):
    """A time range, both ends included, in which duplicates of ``rows`` may have been stored."""

    since: datetime
    until: datetime
    rows: tuple[LogRow, ...]


def windows(rows: Iterable[LogRow], source: str) -> list[Window]:
    """Return the time ranges to search for duplicates of the rows in ROWS from SOURCE, split at long gaps."""
    found: list[Window] = []
    near: list[LogRow] = []
    for row in sorted((row for row in rows if row.source == source), key=lambda row: row.timestamp):
        if near and row.timestamp - near[-1].timestamp > _WINDOW_GAP:
            found.append(_window(near))
            near = []
        near.append(row)
    return [*found, _window(near)] if near else found


def _window(rows: Sequence[LogRow]) -> Window:
    return Window(rows[0].timestamp - MAX_DISTANCE, rows[-1].timestamp + MAX_DISTANCE, tuple(rows))


def whole_window(rows: Iterable[LogRow], source: str) -> Window:
    """Return one time range for all rows in ROWS from SOURCE, of which there must be at least one."""
    selected = tuple([row for row in rows if _source(row) == source])
    times = [*map(_timestamp, selected)]
    return Window(min(times) - MAX_DISTANCE, max(times) + MAX_DISTANCE, selected)


def days_in(window: Window) -> list[str]:
    """Return the UTC days that overlap WINDOW, as ``2026-01-31``."""
    first, last = window.since.astimezone(UTC).date(), window.until.astimezone(UTC).date()
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def paired(rows: Sequence[LogRow], first_id: int, stored: Iterable[Single]) -> list[LogRow]:
    """Return ROWS with ``duplicate_of`` set on duplicates of earlier or STORED rows. The first row has id FIRST_ID."""
    # Sorted by time for binary search, since a service may repeat the same message ten thousand times.
    unpaired: dict[tuple[str, str, str], list[tuple[datetime, int]]] = {}
    for single in sorted(stored, key=lambda single: single.timestamp):
        key = (single.service_name, single.message, single.source)
        insort(unpaired.setdefault(key, []), (single.timestamp, single.id))
    marked = []
    for number, row in enumerate(rows, first_id):
        other = OTHER.get(row.source)
        if other is None:
            marked.append(row)
            continue
        candidates = unpaired.get((row.service_name, row.message, other))
        index = None if not candidates else _nearest(candidates, row.timestamp)
        if candidates and index is not None:
            row = row._replace(duplicate_of=candidates.pop(index)[1])
        else:
            insort(unpaired.setdefault((row.service_name, row.message, row.source), []), (row.timestamp, number))
        marked.append(row)
    return marked


def _nearest(candidates: Sequence[tuple[datetime, int]], timestamp: datetime) -> int | None:
    """Return the index in the sorted CANDIDATES of the nearest within MAX_DISTANCE of TIMESTAMP, or None."""
    later = bisect_left(candidates, (timestamp, 0))
    near = [
        at
        for at in (later - 1, later)
        if 0 <= at < len(candidates) and abs(candidates[at][0] - timestamp) <= MAX_DISTANCE
    ]
    return min(near, key=lambda at: abs(candidates[at][0] - timestamp), default=None)
