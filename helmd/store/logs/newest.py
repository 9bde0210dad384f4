"""Reading the newest entries that match a filter, as many as can be read in time, to sum them up.

Whole days are read, the newest first, as long as they have few enough entries. Where the newest day alone has too
many, or takes too long, its newest entries are a sample. How far back that goes is said.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain

from psycopg import sql

from helmd.model.logs.filter import LogFilter
from helmd.model.logs.trigrams import indexable
from helmd.store.logs.counts import counted_by_day, grouped_by_rollups, id_ranges, rollup_filter, within_deadline
from helmd.store.logs.entries import conditions, day_rows, indexed_conditions, scan_conditions, where
from helmd.store.maintenance.partitions import Leaf, group_by_day, growing_groups, leaves
from helmd.store.session import Connection

_DAYS = 8
_DAY = timedelta(days=1)
_SAMPLE_SECONDS = 0.5


class NewestEntries(ABC):
    """Sums up the newest entries that match one filter until a deadline.

    ``back_to`` is set if older ones were not read.
    """

    def __init__(self, connection: Connection, wanted: LogFilter, deadline: float, most: int, sample: int) -> None:
        """MOST is how many entries are read of whole days, SAMPLE how many of a day that has more."""
        self.connection = connection
        self.wanted = wanted
        self.deadline = deadline
        self.back_to: datetime | None = None
        self._most = most
        self._sample_size = sample
        self._added = False

    @abstractmethod
    def columns(self, given: list[object]) -> sql.Composable:
        """Return the columns that are needed of each entry; their parameters are added to GIVEN."""

    @abstractmethod
    async def add(self, rows: sql.Composed, given: list[object], deadline: float) -> bool:
        """Sum up what the query ROWS gives, which has those columns; False if DEADLINE passes first."""

    async def read(self) -> None:
        """Raises psycopg.Error, and UsageError for an invalid regular expression."""
        wanted = self.wanted
        days = group_by_day(await leaves(self.connection, wanted.start, wanted.end))
        selective = wanted.few or wanted.user_id is not None
        if not selective and not (wanted.text is not None and indexable(wanted)):
            days = await self._few_enough(days)
        for some in growing_groups(days, _DAYS):
            given: list[object] = []
            parts = [
                sql.SQL("SELECT {} FROM {} WHERE {}").format(
                    self.columns(given), sql.Identifier(leaf.name), self._met(leaf, ids, given)
                )
                for leaf in chain.from_iterable(some)
                for ids in id_ranges(leaf, wanted)
            ]
            if await self.add(sql.SQL(" UNION ALL ").join(parts), given, self.deadline):
                self._added = True
                continue
            self.back_to = some[0][0].begins + _DAY
            if not self._added:
                await self._sample(some[0])
            return

    async def _few_enough(self, days: list[list[Leaf]]) -> list[list[Leaf]]:
        """Return the newest of DAYS that can be read in time."""
        like = rollup_filter(self.wanted)
        if sum((await grouped_by_rollups(self.connection, like, sql.SQL("true"))).values()) <= self._most:
            return days
        by_day = await counted_by_day(self.connection, replace(like, start=None, end=None))
        number = 0
        for place, day in enumerate(days):
            number += by_day.get(day[0].day, 0)
            if number > self._most:
                self.back_to = day[0].begins + _DAY
                if not place:
                    await self._sample(day)
                return days[:place]
        return days

    async def _sample(self, day: Sequence[Leaf]) -> None:
        met, values = indexed_conditions(self.wanted)
        scanned, asked = scan_conditions(self.wanted)
        newest = sql.SQL("SELECT * FROM ({}) AS day ORDER BY timestamp DESC, id DESC LIMIT {}").format(
            day_rows((leaf.name for leaf in day), met), sql.Literal(self._sample_size)
        )
        given = [*values] * len(day)
        deadline = max(self.deadline, time.monotonic() + _SAMPLE_SECONDS)
        oldest = sql.SQL("SELECT min(timestamp) FROM ({}) AS few").format(newest)
        reached = await within_deadline(self.connection, oldest, given, deadline)
        if reached is None or reached[0][0] is None:
            return
        columns: list[object] = []
        rows = sql.SQL("SELECT {} FROM ({}) AS few WHERE {}").format(self.columns(columns), newest, where(scanned))
        if await self.add(rows, [*columns, *given, *asked], deadline):
            self.back_to = reached[0][0]

    def _met(self, leaf: Leaf, ids: Sequence[str], given: list[object]) -> sql.Composable:
        met, values = conditions(self.wanted.of_day(leaf.begins))
        given += values
        return where([*met, *map(sql.SQL, ids)])
