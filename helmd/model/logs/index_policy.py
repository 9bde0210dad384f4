"""When to build text indexes.

Updating trigram indexes on every insert is expensive, so they are built afterwards, over complete ranges of ids. A new
range is indexed once enough entries have no index to make searches slow. Several ranges are merged into one, and a
completed day gets one index over all entries.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

MAX_UNINDEXED = 100_000
"""Entries without a text index that a search can scan in about 0.1 s."""
MAX_RANGES = 8
"""Maximum number of indexed ranges of a day, each of which is searched separately; more are merged."""
_SETTLED = timedelta(hours=1)
"""Delay after a day's end before it counts as over, for late entries."""


@dataclass(frozen=True, slots=True)
class TextIndex:
    """An index to build over ids from ``first`` up to but excluding ``end``; it replaces the indexes in this range."""

    first: int
    end: int


def is_over(day: date, now: datetime) -> bool:
    """Return whether a UTC day has ended, so that only few more entries are expected."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=now.tzinfo) + timedelta(days=1)
    return now >= midnight + _SETTLED


def text_index(bounds: tuple[int, ...], unindexed: int, newest: int) -> TextIndex | None:
    """Return the index to build next in the partition of a day that is not over, or None.

    BOUNDS is the column of ``log_partitions``, UNINDEXED the number of entries without index, NEWEST the highest id.
    """
    end = newest + 1 if unindexed >= MAX_UNINDEXED else bounds[-1]
    if len(bounds) > MAX_RANGES:
        return TextIndex(_merged_from(bounds, end), end)
    return TextIndex(bounds[-1], end) if unindexed >= MAX_UNINDEXED else None


def _merged_from(bounds: tuple[int, ...], end: int) -> int:
    """Return the first id of the ranges to merge: the last ones, and those before them that are not much larger.

    An entry is thus re-indexed only when its range doubles, as in a log-structured merge tree (O'Neil, 1996).
    """
    first = bounds[-2]
    for earlier in reversed(bounds[:-2]):
        if first - earlier > 2 * (end - first):
            break
        first = earlier
    return first


def bounds_with(bounds: tuple[int, ...], index: TextIndex) -> tuple[int, ...]:
    """Return BOUNDS after INDEX was built."""
    return (*(bound for bound in bounds if bound <= index.first), index.end, *(b for b in bounds if b > index.end))
