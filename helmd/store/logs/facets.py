"""Counting log entries by the values of a column or of a value in the context, within a time limit.

Services and levels are counted by the rollups where these have all that is asked; else the newest entries are read.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from helmd.model.logs.filter import ROLLED_UP, LogFilter
from helmd.model.logs.query_language.fields import CONTEXT_FIELD
from helmd.store.logs.columns import value_of
from helmd.store.logs.counts import grouped_by_rollups, within_deadline
from helmd.store.logs.language import NodeCondition, context_value
from helmd.store.logs.newest import NewestEntries
from helmd.store.maintenance.partitions import retry_if_dropped
from helmd.store.session import Connection, limit_statements, store_errors

_READ_ENTRIES = 200_000
"""Entries that can be read within the time limit."""
_SAMPLE = 20_000
_KEPT = 1000
"""Values of a statement that are kept: those with the most entries."""
_LONGEST = 200
"""Characters of a value in the context, beyond which it is left out."""


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
    """Return the numbers of entries by the values of each column or ``context.KEY``; for ``context``, by the keys there
    are.

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
            deadline = begun + seconds * (number + 1) / len(by_filter)

            async def attempt(
                its: LogFilter = its, subjects: list[str] = subjects, deadline: float = deadline
            ) -> dict[str, Facet]:
                return await _Counting(connection, its, subjects, deadline).count(most)

            found |= await retry_if_dropped(attempt)
    return {subject: found[subject] for subject in wanted}


class _Counting(NewestEntries):
    """Counts the values of SUBJECTS."""

    def __init__(self, connection: Connection, wanted: LogFilter, subjects: Sequence[str], deadline: float) -> None:
        super().__init__(connection, wanted, deadline, _READ_ENTRIES, _SAMPLE)
        self._rolled_up = [subject for subject in subjects if wanted.counted and subject in ROLLED_UP]
        self._subjects = [subject for subject in subjects if subject not in self._rolled_up]
        self._counts: dict[str, Counter[str | None]] = {subject: Counter() for subject in self._subjects}

    async def count(self, most: int) -> dict[str, Facet]:
        found = {subject: _facet(await self._by_rollups(subject), most, None) for subject in self._rolled_up}
        if self._subjects:
            await self.read()
        return found | {subject: _facet(counts, most, self.back_to) for subject, counts in self._counts.items()}

    async def _by_rollups(self, subject: str) -> Counter[str | None]:
        async with self.connection.transaction():
            await limit_statements(self.connection, max(0.1, self.deadline - time.monotonic()))
            return Counter(await grouped_by_rollups(self.connection, self.wanted, sql.Identifier(subject)))

    def columns(self, given: list[object]) -> sql.Composable:
        columns = []
        for number, subject in enumerate(self._subjects):
            column, values = _column(subject)
            given += values
            columns.append(sql.SQL("{} AS {}").format(column, sql.Identifier(f"c{number}")))
        return sql.SQL(", ").join(columns)

    async def add(self, rows: sql.Composed, given: list[object], deadline: float) -> bool:
        queries = [_grouped(subject, number) for number, subject in enumerate(self._subjects)]
        statement = sql.SQL("WITH few AS MATERIALIZED ({}) {}").format(rows, sql.SQL(" UNION ALL ").join(queries))
        counted = await within_deadline(self.connection, statement, given, deadline, few=self.wanted.few)
        for number, value, entries in counted or ():
            subject = self._subjects[number]
            if value is not None or not subject.startswith(CONTEXT_FIELD):
                self._counts[subject][value] += entries
        return counted is not None


def _grouped(subject: str, number: int) -> sql.Composable:
    """Return the query for the numbers of a subject's values, which are in the column ``cNUMBER``."""
    column = sql.Identifier(f"c{number}")
    value: sql.Composable
    source: sql.Composable
    if subject == CONTEXT_FIELD:
        value, source = sql.SQL("key"), sql.SQL("few, jsonb_object_keys({}) AS key").format(column)
    else:
        value, source = sql.SQL("{}::text").format(column), sql.SQL("few")
    return sql.SQL("(SELECT {}, {}, count(*) FROM {} GROUP BY 2 ORDER BY 3 DESC LIMIT {})").format(
        sql.Literal(number), value, source, sql.Literal(_KEPT)
    )


def _column(subject: str) -> NodeCondition:
    if subject == CONTEXT_FIELD:
        return sql.SQL("CASE WHEN jsonb_typeof(context) = 'object' THEN context END"), []
    if not subject.startswith(f"{CONTEXT_FIELD}."):
        return value_of(subject), []
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
