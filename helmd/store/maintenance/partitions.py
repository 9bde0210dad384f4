"""The partitions of ``log_entries``, one for each retention class and UTC day: listing, and creating in advance."""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

import psycopg

from helmd.model.errors import StoreError
from helmd.store.session import Connection, store_errors

T = TypeVar("T")
_ATTEMPTS = 3
MOST_DAYS = 64
"""Maximum number of days per statement, where execution takes less time than planning."""
_DAYS_AHEAD = 2
"""Number of days after today of which partitions are created in advance."""
_NAME = re.compile(r"log_entries_\d{1,3}_\d{8}\Z")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A partition. The ids from one of ``text_bounds`` up to but excluding the next have a text index of their own.

    ``sealed`` says that its day is closed, and that it has indexes over all of its entries instead.
    """

    name: str
    retention: int
    day: date
    text_bounds: tuple[int, ...]
    sealed: bool

    @property
    def begins(self) -> datetime:
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)

    @property
    def text_ranges(self) -> tuple[tuple[int, int | None], ...]:
        """The ranges of ids: first one, and one after the last. The last range has no end and no text index."""
        return tuple(zip(self.text_bounds, (*self.text_bounds[1:], None), strict=True))


async def leaves(
    connection: Connection, start: datetime | None = None, end: datetime | None = None
) -> tuple[Leaf, ...]:
    """Return the partitions for times from START up to but excluding END, newest first. Raises StoreError.

    Those of today and later days are omitted while they are empty by their size, since planning for them costs more.
    """
    with store_errors("the log store's partitions can't be read"):
        cursor = await connection.execute(
            "SELECT leaf, retention, day, text_bounds, sealed FROM log_partitions"
            " WHERE day BETWEEN %s AND %s AND (day < current_date OR pg_relation_size(to_regclass(leaf)) > 0)"
            " ORDER BY day DESC, leaf",
            (_day(start, date.min), _day(end, date.max)),
            prepare=True,
        )
        found = [Leaf(name, each, day, tuple(bounds), sealed) async for name, each, day, bounds, sealed in cursor]
    # The names are inserted into statements unquoted.
    if not all(_NAME.match(leaf.name) for leaf in found):
        raise StoreError("log_partitions names a table that is not a partition")
    return tuple(found)


def _day(time: datetime | None, otherwise: date) -> date:
    return otherwise if time is None else time.astimezone(UTC).date()


def group_by_day(found: Iterable[Leaf]) -> list[list[Leaf]]:
    """Group consecutive partitions of the same day."""
    days: list[list[Leaf]] = []
    for leaf in found:
        if days and days[-1][0].day == leaf.day:
            days[-1].append(leaf)
        else:
            days.append([leaf])
    return days


def growing_groups(days: Sequence[Sequence[Leaf]], most: int) -> Iterator[Sequence[Sequence[Leaf]]]:
    """Yield DAYS, in either direction, in groups of 1, 4, 16 and so on, up to MOST days.

    The boundaries of groups depend on the calendar only, not on where a search begins: so searches use the same
    statements, for which PostgreSQL has plans.
    """
    begin, size = 0, 1
    while begin < len(days):
        block = days[begin][0].day.toordinal() // size
        end = begin + 1
        while end < len(days) and days[end][0].day.toordinal() // size == block:
            end += 1
        yield days[begin:end]
        begin, size = end, min(4 * size, most)


async def retry_if_dropped(reading: Callable[[], Awaitable[T]]) -> T:
    """Return the result of READING partitions, repeated if one of them is dropped meanwhile. Raises psycopg.Error."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await reading()
        except psycopg.errors.UndefinedTable:
            continue
    return await reading()


async def make_ahead(connection: Connection, retentions: Iterable[int], now: datetime) -> int:
    """Create the missing partitions of today and the following days; return how many. Raises StoreError."""
    made = 0
    with store_errors("partitions can't be created in advance"):
        for retention in sorted(set(retentions)):
            for ahead in range(_DAYS_AHEAD + 1):
                day = (now.astimezone(UTC) + timedelta(days=ahead)).date()
                cursor = await connection.execute("SELECT make_log_partition(%s::smallint, %s)", (retention, day))
                made += await cursor.fetchone() == (True,)
    return made
