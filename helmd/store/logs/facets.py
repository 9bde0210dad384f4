"""Counting log entries by the values of a column or of a value in the context, within a time limit.

Services and levels are counted by the rollups where these have all that is asked. Else the newest days are read that
have few enough entries, or, where the newest alone has too many, a sample of its newest entries. What was not counted
is said.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain

from psycopg import sql

from helmd.model.logs.filter import ROLLED_UP, LogFilter
from helmd.model.logs.query_language.fields import CONTEXT_FIELD
from helmd.model.logs.trigrams import indexable
from helmd.store.logs.counts import (
    counted_by_day,
    grouped_by_rollups,
    id_ranges,
    rollup_filter,
    within_deadline,
)
from helmd.store.logs.entries import conditions, day_rows, indexed_conditions, scan_conditions, where
from helmd.store.logs.language import NodeCondition, context_value
from helmd.store.maintenance.partitions import Leaf, group_by_day, growing_groups, leaves, whatever_expires
from helmd.store.session import Connection, limit_statements, store_errors

_READ_ENTRIES = 200_000
"""Entries that can be read within the time limit."""
_SAMPLE = 20_000
_KEPT = 1000
"""Values of a statement that are kept: those with the most entries."""
_DAYS = 8
_LONGEST = 200
"""Characters of a value in the context, beyond which it is left out."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Facet:
    """Numbers of entries by value, the largest first. None is for entries without a value.

    ``more`` says that there are other values. Older entries than ``counted_back_to`` are not counted.
    """

    counts: tuple[tuple[str | None, int], ...]
    more: bool = False
    counted_back_to: datetime | None = None


async def facets(
    connection: Connection, wanted: Mapping[str, LogFilter], most: int, seconds: float
) -> dict[str, Facet]:
    """The numbers of entries by the values of each column or ``context.KEY``; for ``context``, by the keys there are.

    WANTED has the filter of each; MOST is how many values are given. After SECONDS counting ends. Raises StoreError,
    and UsageError for an invalid regular expression.
    """
    by_filter: dict[LogFilter, list[str]] = {}
    for subject, its in wanted.items():
        by_filter.setdefault(its, []).append(subject)
    found: dict[str, Facet] = {}
    begun = time.monotonic()
    with store_errors("log entries can't be counted"):
        for number, (its, subjects) in enumerate(by_filter.items()):
            counting = _Counting(connection, its, begun + seconds * (number + 1) / len(by_filter))
            found |= await whatever_expires(partial(counting.of, subjects, most))
    return {subject: found[subject] for subject in wanted}


class _Counting:
    """Counts entries that match one filter, until a deadline."""

    def __init__(self, connection: Connection, wanted: LogFilter, deadline: float) -> None:
        self._connection = connection
        self._wanted = wanted
        self._deadline = deadline
        self._counts: dict[str, Counter[str | None]] = {}
        self._back_to: datetime | None = None

    async def of(self, subjects: Sequence[str], most: int) -> dict[str, Facet]:
        rolled = [subject for subject in subjects if self._wanted.counted and subject in ROLLED_UP]
        found = {subject: _facet(await self._by_rollups(subject), most, None) for subject in rolled}
        read = [subject for subject in subjects if subject not in rolled]
        if read:
            self._counts = {subject: Counter() for subject in read}
            await self._read(read)
            found |= {subject: _facet(counts, most, self._back_to) for subject, counts in self._counts.items()}
        return found

    async def _by_rollups(self, subject: str) -> Counter[str | None]:
        async with self._connection.transaction():
            await limit_statements(self._connection, max(0.1, self._deadline - time.monotonic()))
            return Counter(await grouped_by_rollups(self._connection, self._wanted, sql.Identifier(subject)))

    async def _read(self, subjects: Sequence[str]) -> None:
        wanted = self._wanted
        days = group_by_day(await leaves(self._connection, wanted.start, wanted.end))
        self._back_to = None
        selective = wanted.trace_id is not None or wanted.user_id is not None
        if not selective and not (wanted.text is not None and indexable(wanted)):
            days = await self._few_enough(days)
            if not days:
                return
        for some in growing_groups(days, _DAYS):
            given: list[object] = []
            parts = [
                sql.SQL("SELECT {} FROM {} WHERE {}").format(
                    self._columns(subjects, given), sql.Identifier(leaf.name), self._met(leaf, ids, given)
                )
                for leaf in chain.from_iterable(some)
                for ids in id_ranges(leaf, wanted)
            ]
            if not await self._add(subjects, sql.SQL(" UNION ALL ").join(parts), given):
                self._back_to = some[0][0].begins + _DAY
                if not any(self._counts.values()):
                    await self._sample(some[0], subjects)
                return

    async def _few_enough(self, days: list[list[Leaf]]) -> list[list[Leaf]]:
        """The newest of DAYS that can be read in time; sets how far back they go."""
        like = rollup_filter(self._wanted)
        if sum((await grouped_by_rollups(self._connection, like, sql.SQL("true"))).values()) <= _READ_ENTRIES:
            return days
        by_day = await counted_by_day(self._connection, replace(like, start=None, end=None))
        number = 0
        for place, day in enumerate(days):
            number += by_day.get(day[0].day, 0)
            if number > _READ_ENTRIES:
                self._back_to = day[0].begins + _DAY
                if not place:
                    await self._sample(day, list(self._counts))
                return days[:place]
        return days

    async def _sample(self, day: Sequence[Leaf], subjects: Sequence[str]) -> None:
        """Count the newest entries of DAY alone."""
        met, values = indexed_conditions(self._wanted)
        scanned, asked = scan_conditions(self._wanted)
        newest = sql.SQL("SELECT * FROM ({}) AS day ORDER BY timestamp DESC, id DESC LIMIT {}").format(
            day_rows((leaf.name for leaf in day), met), sql.Literal(_SAMPLE)
        )
        given = [*values] * len(day)
        reached = await within_deadline(
            self._connection,
            sql.SQL("SELECT min(timestamp) FROM ({}) AS few").format(newest),
            given,
            max(self._deadline, time.monotonic() + 0.2),
        )
        if reached is None or reached[0][0] is None:
            return
        columns: list[object] = []
        rows = sql.SQL("SELECT {} FROM ({}) AS few WHERE {}").format(
            self._columns(subjects, columns), newest, where(scanned)
        )
        if await self._add(subjects, rows, [*columns, *given, *asked], late=0.5):
            self._back_to = reached[0][0]

    async def _add(self, subjects: Sequence[str], rows: sql.Composed, given: list[object], late: float = 0.0) -> bool:
        """Count ROWS, which have the columns of SUBJECTS; False if the deadline passes first."""
        names = [sql.Identifier(f"c{number}") for number in range(len(subjects))]
        plain = [number for number, subject in enumerate(subjects) if subject != CONTEXT_FIELD]
        queries = []
        for number in plain:
            queries.append(
                sql.SQL("(SELECT {}, {}::text, count(*) FROM few GROUP BY 2 ORDER BY 3 DESC LIMIT {})").format(
                    sql.Literal(number), names[number], sql.Literal(_KEPT)
                )
            )
        for number in set(range(len(subjects))) - set(plain):
            queries.append(
                sql.SQL(
                    "(SELECT {}, key, count(*) FROM few, jsonb_object_keys({}) AS key"
                    " GROUP BY 2 ORDER BY 3 DESC LIMIT {})"
                ).format(sql.Literal(number), names[number], sql.Literal(_KEPT))
            )
        statement = sql.SQL("WITH few AS MATERIALIZED ({}) {}").format(rows, sql.SQL(" UNION ALL ").join(queries))
        deadline = max(self._deadline, time.monotonic() + late) if late else self._deadline
        counted = await within_deadline(self._connection, statement, given, deadline)
        for number, value, entries in counted or ():
            subject = subjects[number]
            if value is not None or not subject.startswith(CONTEXT_FIELD):
                self._counts[subject][value] += entries
        return counted is not None

    def _columns(self, subjects: Iterable[str], given: list[object]) -> sql.Composable:
        """The columns ``c0``, ``c1`` and so on for SUBJECTS; their parameters are added to GIVEN."""
        columns = []
        for number, subject in enumerate(subjects):
            column, values = _column(subject)
            given += values
            columns.append(sql.SQL("{} AS {}").format(column, sql.Identifier(f"c{number}")))
        return sql.SQL(", ").join(columns)

    def _met(self, leaf: Leaf, ids: Sequence[str], given: list[object]) -> sql.Composable:
        met, values = conditions(self._wanted.of_day(leaf.begins))
        given += values
        return where([*met, *map(sql.SQL, ids)])


def _column(subject: str) -> NodeCondition:
    if subject == CONTEXT_FIELD:
        return sql.SQL("CASE WHEN jsonb_typeof(context) = 'object' THEN context END"), []
    if not subject.startswith(f"{CONTEXT_FIELD}."):
        return sql.Identifier(subject), []
    keys = tuple(subject[len(CONTEXT_FIELD) + 1 :].split("."))
    paths = [keys] if len(keys) == 1 else [keys, (".".join(keys),)]
    each = [context_value(path) for path in paths]
    values, given = sql.SQL(", ").join(value for value, _ in each), [key for _, path in each for key in path]
    value = sql.SQL("coalesce({})").format(values)
    text = sql.SQL("({} #>> '{{}}')").format(value)
    short = sql.SQL("jsonb_typeof({}) IN ('string', 'number', 'boolean') AND length({}) <= {}").format(
        value, text, sql.Literal(_LONGEST)
    )
    return sql.SQL("CASE WHEN {} THEN {} END").format(short, text), given * 3


def _facet(counts: Mapping[str | None, int], most: int, back_to: datetime | None) -> Facet:
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0] is None, each[0] or ""))
    return Facet(tuple(ordered[:most]), len(ordered) > most, back_to)
