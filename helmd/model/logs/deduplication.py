"""Lines that a service both prints and posts: which of two rows is the other one again.

Two rows are one line when they have the same service and message, came by the two different ways, and are at most two
seconds apart. It is one to one: what was printed twice and posted twice is two lines.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from helmd.model.logs.entry import HTTP, JOURNAL, LogRow

APART = timedelta(seconds=2)
OTHER = {JOURNAL: HTTP, HTTP: JOURNAL}
"""By which way a row's twin would have come."""

_SPLIT = timedelta(seconds=10)


class Single(NamedTuple):
    """A stored row that is nobody's twin yet."""

    id: int
    timestamp: datetime
    service_name: str
    message: str
    source: str


class Window(NamedTuple):
    """A stretch of time in which twins of rows from ``source`` are looked for."""

    since: datetime
    until: datetime
    rows: tuple[LogRow, ...]


def windows(rows: Iterable[LogRow], source: str) -> list[Window]:
    """The stretches in which stored rows may be twins of those of ROWS that came by SOURCE."""
    found: list[Window] = []
    near: list[LogRow] = []
    for row in sorted((row for row in rows if row.source == source), key=lambda row: row.timestamp):
        if near and row.timestamp - near[-1].timestamp > _SPLIT:
            found.append(_window(near))
            near = []
        near.append(row)
    return [*found, _window(near)] if near else found


def _window(rows: Sequence[LogRow]) -> Window:
    return Window(rows[0].timestamp - APART, rows[-1].timestamp + APART, tuple(rows))


def whole_window(rows: Iterable[LogRow], source: str) -> Window:
    """The one stretch in which stored rows may be twins of those of ROWS that came by SOURCE, however long."""
    its = tuple(row for row in rows if row.source == source)
    times = [row.timestamp for row in its]
    return Window(min(times) - APART, max(times) + APART, its)


def days_in(window: Window) -> list[str]:
    """The UTC days that a window touches, as ``2026-01-31``."""
    first, last = window.since.astimezone(UTC).date(), window.until.astimezone(UTC).date()
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def paired(rows: Sequence[LogRow], first_id: int, stored: Iterable[Single]) -> list[LogRow]:
    """ROWS, which get the ids from FIRST_ID on, with ``duplicate_of`` set where one is the twin of an earlier row."""
    # In the order of time: a service may say the same ten thousand times, and then each must be found at once.
    waiting: dict[tuple[str, str, str], list[tuple[datetime, int]]] = {}
    for single in sorted(stored, key=lambda single: single.timestamp):
        key = (single.service_name, single.message, single.source)
        insort(waiting.setdefault(key, []), (single.timestamp, single.id))
    marked = []
    for number, row in enumerate(rows, first_id):
        other = OTHER.get(row.source)
        if other is None:
            marked.append(row)
            continue
        candidates = waiting.get((row.service_name, row.message, other))
        place = None if not candidates else _nearest(candidates, row.timestamp)
        if candidates and place is not None:
            row = row._replace(duplicate_of=candidates.pop(place)[1])
        else:
            insort(waiting.setdefault((row.service_name, row.message, row.source), []), (row.timestamp, number))
        marked.append(row)
    return marked


def _nearest(candidates: Sequence[tuple[datetime, int]], timestamp: datetime) -> int | None:
    """Where in CANDIDATES, which is sorted, the one nearest to TIMESTAMP is; None when none is near enough."""
    later = bisect_left(candidates, (timestamp, 0))
    near = [
        at for at in (later - 1, later) if 0 <= at < len(candidates) and abs(candidates[at][0] - timestamp) <= APART
    ]
    return min(near, key=lambda at: abs(candidates[at][0] - timestamp), default=None)
