"""When entries that lie still get their text index, and when a day's partition goes.

Indexes of trigrams are dear to keep while rows arrive, so they are built afterwards, over ranges of ids that are
complete. A new range is begun when enough entries are without an index to make a search slow; many ranges become one,
and a day that is over gets one over all of its entries.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

LOOSE = 100_000
"""Entries without a text index that a search looks through quickly enough, a tenth of a second."""
RANGES = 8
"""Ranges of one day that are asked one by one; more of them become one."""
_SETTLED = timedelta(hours=1)
"""How long after its end a day counts as over; lines that come late are mostly there by then."""


@dataclass(frozen=True, slots=True)
class TextIndex:
    """An index to build over ids from ``first`` to before ``end``, in place of those of the ranges it covers."""

    first: int
    end: int


def is_over(day: date, now: datetime) -> bool:
    """Whether nothing but stragglers will come for a UTC day any more."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=now.tzinfo) + timedelta(days=1)
    return now >= midnight + _SETTLED


def expired(day: date, retention: int, now: datetime) -> bool:
    """Whether a day's last entry is older than RETENTION days."""
    return now.date() - day > timedelta(days=retention)


def text_index(bounds: tuple[int, ...], loose: int, newest: int) -> TextIndex | None:
    """The index to build next of a day that goes on, or None.

    BOUNDS as in ``log_partitions``; LOOSE entries are without an index, NEWEST is the highest id there is.
    """
    end = newest + 1 if loose >= LOOSE else bounds[-1]
    if len(bounds) > RANGES:
        return TextIndex(_merged_from(bounds, end), end)
    return TextIndex(bounds[-1], end) if loose >= LOOSE else None


def _merged_from(bounds: tuple[int, ...], end: int) -> int:
    """The first id of the ranges that become one: those at the end, and before them what is not much larger.

    So an entry is indexed anew only as often as its range doubles, as in a log-structured merge tree (O'Neil, 1996).
    """
    first = bounds[-2]
    for earlier in reversed(bounds[:-2]):
        if first - earlier > 2 * (end - first):
            break
        first = earlier
    return first


def bounds_with(bounds: tuple[int, ...], index: TextIndex) -> tuple[int, ...]:
    """BOUNDS once INDEX is there."""
    return (*(bound for bound in bounds if bound <= index.first), index.end, *(b for b in bounds if b > index.end))
