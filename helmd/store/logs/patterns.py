"""Grouping log entries by the patterns of their messages, within a time limit."""

import time
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg import sql

from helmd.model.logs.filter import LogFilter
from helmd.model.logs.patterns import LENGTH, PLACE, VARYING_PART
from helmd.store.logs.counts import within_deadline
from helmd.store.logs.newest import NewestEntries
from helmd.store.maintenance.partitions import retry_if_dropped
from helmd.store.session import Connection, store_errors

_READ_ENTRIES, _SAMPLE = 30_000, 10_000
_KEPT = 500
_SHOWN = 1000
"""Characters of an example."""
_LINE = sql.SQL("left(split_part(message, E'\\n', 1), {})").format(sql.Literal(LENGTH))


@dataclass(frozen=True, slots=True)
class FoundPattern:
    """Entries of a service and a level with one pattern (`helmd.model.logs.patterns`).

    ``example`` is the newest's id, ``message`` its message, which may be cut.
    """

    service: str
    level: str
    pattern: str
    entries: int
    first: datetime
    last: datetime
    example: int
    message: str


@dataclass(frozen=True, slots=True)
class FoundPatterns:
    """The most frequent first; ``more`` and ``counted_back_to`` as in `helmd.store.logs.facets.Facet`."""

    patterns: tuple[FoundPattern, ...]
    more: bool
    counted_back_to: datetime | None


async def patterns(connection: Connection, wanted: LogFilter, most: int, seconds: float) -> FoundPatterns:
    """Return the MOST frequent patterns of the entries that match WANTED, read for SECONDS.

    Raises StoreError, and UsageError for an invalid regular expression.
    """
    deadline = time.monotonic() + seconds

    async def attempt() -> FoundPatterns:
        grouping = _Grouping(connection, wanted, deadline)
        await grouping.read()
        found = sorted(grouping.found.values(), key=lambda each: (-each.entries, each.service, each.pattern))
        return FoundPatterns(tuple(found[:most]), len(found) > most, grouping.back_to)

    with store_errors("the patterns of log entries can't be read"):
        return await retry_if_dropped(attempt)


class _Grouping(NewestEntries):
    """Groups entries by service, level and pattern."""

    def __init__(self, connection: Connection, wanted: LogFilter, deadline: float) -> None:
        super().__init__(connection, wanted, deadline, _READ_ENTRIES, _SAMPLE)
        self.found: dict[tuple[str, str, str], FoundPattern] = {}

    def columns(self, given: list[object]) -> sql.Composable:
        return sql.SQL("id, timestamp, service_name, level, message")

    async def add(self, rows: sql.Composed, given: list[object], deadline: float) -> bool:
        statement = sql.SQL(
            "WITH few AS MATERIALIZED ({rows}), grouped AS ("
            "SELECT service_name, level, regexp_replace(regexp_replace({line}, %s, %s, 'g')"
            " || CASE WHEN length(message) > length({line}) THEN %s ELSE '' END, %s, %s, 'g') AS pattern,"
            " count(*) AS entries, min(timestamp) AS first, max(timestamp) AS last,"
            " (max(ARRAY[extract(epoch FROM timestamp)::numeric, id]))[2]::bigint AS example"
            " FROM few GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT {most})"
            " SELECT grouped.*, left(few.message, {shown}) FROM grouped JOIN few ON few.id = grouped.example"
        ).format(line=_LINE, rows=rows, most=sql.Literal(_KEPT), shown=sql.Literal(_SHOWN))
        values = [*given, VARYING_PART, PLACE, PLACE, f"{PLACE}+", PLACE]
        grouped = await within_deadline(self.connection, statement, values, deadline, few=self.wanted.few)
        for row in grouped or ():
            self._put(FoundPattern(*row))
        return grouped is not None

    def _put(self, one: FoundPattern) -> None:
        key = one.service, one.level, one.pattern
        known = self.found.get(key)
        if known is not None:
            newest = known if known.last >= one.last else one
            one = replace(newest, entries=known.entries + one.entries, first=min(known.first, one.first))
        self.found[key] = one
