"""Finding log entries, the newest first, page by page, within a time limit.

The search walks the partitions day by day instead of asking the whole table: planning a query over hundreds of
partitions takes longer than the query, and a walk can say how far back it got when its time is over. It takes in more
days at each step, so that what is new is found at once and what is rare or absent in few steps; over several days it
first finds the places of entries and then fetches those, since planning goes by the number of columns as well.

Text is first looked for among the newest entries themselves: where it is common that fills the page. Otherwise the
trigram indexes of the ranges of ids that have one are asked, and the entries behind them looked through. If that comes
to nothing in half of the time (PostgreSQL knows little of a day that has just filled), looking through goes on instead,
so that each page gets further back than the one before it.

A search over many days uses prepared statements whose plan is kept (`helmd.store.maintenance.partitions.portions`):
planning takes several times as long as execution.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from helmd.model.errors import UsageError
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.model.logs.trigrams import indexable
from helmd.store.logs.counts import counted_by_day, total
from helmd.store.logs.entries import (
    READ,
    READ_SQL,
    StoredEntry,
    conditions,
    day_rows,
    looked_conditions,
    stored,
    walked_conditions,
    where,
)
from helmd.store.maintenance.partitions import MOST_DAYS, Leaf, group_by_day, growing_groups, leaves, whatever_expires
from helmd.store.session import Connection, limit_statements, reason, store_errors

_PROBE, _CHUNK = 2_000, 10_000
"""Entries that are looked through at once for a text."""
_COMMON = 4
"""A text counts as common when looking through this many chunks would fill the page."""
_FEW_LOOKS = 3
"""Days that are looked through before the indexes are asked, though they have but few entries."""
_DEEP_OFFSET = 2_000
"""Entries that are fetched only to be left out; a deeper offset is counted off first."""
_INDEX_SHARE = 0.5
"""How much of the time a text's indexes are asked for, before the entries are looked through without them."""
_KEPT = 4
"""Partitions from which on a plan is worth keeping."""
_LEAST_PLACES = 128
_MOST_WARM = 256
"""Partitions, the newest, that a connection is made to know: of each the server keeps up to 0.2 MB for it."""
_WARM_SECONDS = 1.0
_NOBODY, _NOTHING = "-", "zqxjkvzqxjkv"
"""What hardly anybody looks for, and nobody finds."""

_DAY = timedelta(days=1)
_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)
_ALL = ", ".join(READ)
_NEWEST = sql.SQL("ORDER BY timestamp DESC, id DESC LIMIT {}")


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, the newest first. ``next`` is where the next page begins, None at the end.

    ``searched_back_to`` is set when the time limit ended the search before its range did; ``next`` goes on there.
    ``common`` is set when looking through the newest entries was enough to fill it.
    """

    entries: tuple[StoredEntry, ...]
    next: PageCursor | None = None
    searched_back_to: datetime | None = None
    common: bool = field(default=False, compare=False)


class _Branch(NamedTuple):
    """What to ask of one partition: a condition as SQL, with the search's own parameters, and whether to fence it.

    OFFSET 0 is the fence: it keeps the planner from walking by time until it happens upon what is rare.
    """

    leaf: Leaf
    condition: str
    fenced: bool

    def plain(self, columns: str) -> str:
        return f"SELECT {columns} FROM {self.leaf.name} WHERE {self.condition}"  # noqa: S608 - both are SQL already

    def statement(self, columns: str, limit: int) -> str:
        newest = f"ORDER BY timestamp DESC, id DESC LIMIT {limit:d}"
        asked = self.plain(columns)
        return f"(SELECT * FROM ({asked} OFFSET 0) AS few {newest})" if self.fenced else f"({asked} {newest})"  # noqa: S608


class _OutOfTimeError(Exception):
    """The time limit is over."""


async def find(
    connection: Connection,
    wanted: LogFilter,
    limit: int,
    before: PageCursor | None = None,
    offset: int = 0,
    seconds: float = 1.0,
) -> Page:
    """The newest LIMIT entries that are WANTED, those before a place and after the first OFFSET ones.

    Raises StoreError, and UsageError for a regular expression that PostgreSQL can't read or takes too long over, and
    for an offset that is not reached in time.
    """
    deadline = time.monotonic() + seconds

    async def attempt() -> Page:
        async with connection.transaction():
            search = _Search(connection, wanted, before, deadline)
            if offset <= _DEEP_OFFSET:
                return await search.page(limit, offset)
            return await search.page(limit, 0) if await search.skip(offset) else Page(())

    with store_errors("log entries can't be searched"):
        try:
            return await whatever_expires(attempt)
        except psycopg.errors.InvalidRegularExpression as error:
            raise UsageError(f"q: this is no regular expression ({reason(error)})") from None


async def warm(connection: Connection) -> None:
    """Has the connection know the partitions, and plans for what many searches ask of them. Raises StoreError.

    Its process at the server reads about each partition and index when it first meets it, which takes longer than the
    search that meets it.
    """

    async def warm_up() -> None:
        days = group_by_day(await leaves(connection))
        some: list[Sequence[Leaf]] = []
        for chunk in growing_groups(days, MOST_DAYS):
            if some and sum(map(len, [*some, *chunk])) > _MOST_WARM:
                break
            some += chunk
        for nobody in (LogFilter(trace_id=_NOBODY), LogFilter(user_id=_NOBODY), LogFilter(text=_NOTHING)):
            async with connection.transaction():
                await _Search(connection, nobody, None, time.monotonic() + _WARM_SECONDS).warm_up(some)
            if nobody.text is None and len(some) == len(days):
                await total(connection, nobody, _WARM_SECONDS)

    with store_errors("log entries can't be searched"), suppress(_OutOfTimeError, psycopg.errors.QueryCanceled):
        await whatever_expires(warm_up)


class _Search:
    """One search: where it stands, what it found, and its time."""

    def __init__(self, connection: Connection, wanted: LogFilter, before: PageCursor | None, deadline: float) -> None:
        self._connection = connection
        self._wanted = wanted
        self._before = before
        self._deadline = deadline
        self._limit_set = 0.0
        self._keeps_plans = False
        self._by_looking = False
        self._found: list[StoredEntry] = []

    async def page(self, limit: int, offset: int) -> Page:
        needed = limit + offset + 1
        begun = self._before
        days = await self._days()
        try:
            if looked_conditions(self._wanted)[0]:
                await self._walk_looking(days, needed)
            else:
                await self._walk(days, needed)
        except (_OutOfTimeError, psycopg.errors.QueryCanceled):
            if self._before == begun and self._wanted.mode == "regex" and self._limit_set:
                # Whoever goes on from there would for ever.
                raise UsageError("q: this regular expression takes too long", hint="Ask for a plainer one.") from None
            reached = self._before or PageCursor(self._wanted.end or _FUTURE, 0)
            return Page(tuple(self._found[offset : offset + limit]), reached, reached.timestamp)
        found = tuple(self._found[offset : offset + limit])
        more = len(self._found) >= needed
        return Page(found, _place(found[-1]) if more and found else None, common=more and self._by_looking)

    async def warm_up(self, days: Sequence[Sequence[Leaf]]) -> None:
        """Walks DAYS in search of what isn't there, and fetches none of their entries."""
        await self._walk(days, 1)
        for some in growing_groups(days, MOST_DAYS):
            await self._fetch([leaf.name for leaf in chain.from_iterable(some)], {})

    async def _days(self) -> list[list[Leaf]]:
        end = self._wanted.end if self._before is None else self._before.timestamp
        return group_by_day(await leaves(self._connection, self._wanted.start, end))

    async def skip(self, offset: int) -> bool:
        """Stand behind the first OFFSET entries; False when there are not so many. Raises UsageError."""
        # What comes meanwhile must not be skipped without being counted.
        await self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        try:
            await self._bound_statement()
            counted = await counted_by_day(self._connection, self._wanted) if self._wanted.counted else {}
            for day in await self._days():
                tables, given = self._of_day(day)
                asked = self._wanted.of_day(day[0].begins)
                if asked.counted and asked.start is None and asked.end is None and self._before is None:
                    number = counted.get(day[0].day, 0)
                else:
                    number = (await self._ask(f"SELECT count(*) FROM ({tables}) AS day", given))[0][0]  # noqa: S608
                if number < offset:
                    offset -= number
                    continue
                place = f"SELECT timestamp, id FROM ({tables}) AS day ORDER BY timestamp DESC, id DESC"  # noqa: S608
                self._before = PageCursor(*(await self._ask(f"{place} OFFSET {offset - 1:d} LIMIT 1", given))[0])
                return True
        except (_OutOfTimeError, psycopg.errors.QueryCanceled):
            raise UsageError("offset: is too deep for this search", hint="Use next_cursor as cursor.") from None
        return False

    def _of_day(self, day: Sequence[Leaf]) -> tuple[str, list[object]]:
        """All places of a day as SQL, and its parameters."""
        met, given = self._conditions()
        condition = where(met).as_string(self._connection)
        each = [f"SELECT timestamp, id FROM {leaf.name} WHERE {condition}" for leaf in day]  # noqa: S608
        return " UNION ALL ".join(each), [*given] * len(day)

    async def _walk(self, days: Sequence[Sequence[Leaf]], needed: int) -> None:
        """Takes in more and more days until there are NEEDED entries."""
        for some in growing_groups(days, MOST_DAYS):
            conditions_of = self._by_day()
            branches: list[_Branch] = []
            given: list[object] = []
            for leaf in chain.from_iterable(some):
                condition, values = conditions_of(leaf.begins)
                its = self._branches(leaf, condition)
                branches += its
                given += values * len(its)
            await self._take(branches, given, needed - len(self._found))
            if len(self._found) >= needed:
                return
            self._stand(PageCursor(some[-1][-1].begins, 0))

    def _by_day(self) -> Callable[[datetime], tuple[str, list[object]]]:
        """What entries of a day must meet, without what all of its entries do: planning goes by conditions as well."""
        before = self._before
        made: dict[tuple[LogFilter, bool], tuple[str, list[object]]] = {}

        def of_day(begins: datetime) -> tuple[str, list[object]]:
            narrowed = self._wanted.of_day(begins)
            bounded = before is not None and before.timestamp < begins + _DAY
            if (found := made.get((narrowed, bounded))) is None:
                met, given = self._bounded(*conditions(narrowed)) if bounded else conditions(narrowed)
                made[narrowed, bounded] = found = where(met).as_string(self._connection), given
            return found

        return of_day

    def _branches(self, leaf: Leaf, condition: str) -> list[_Branch]:
        """What to ask of a partition, in parts that each use an index, as far as there is one."""
        if self._wanted.text is None:
            return [_Branch(leaf, condition, self._wanted.trace_id is not None)]
        if leaf.sealed:
            return [_Branch(leaf, condition, True)]
        # As numbers, not parameters: the planner must see that they are those of a partial index.
        return [
            _Branch(leaf, f"{condition} AND id >= {first:d}" + ("" if end is None else f" AND id < {end:d}"), True)
            for first, end in leaf.text_ranges
        ]

    async def _walk_looking(self, days: Sequence[Sequence[Leaf]], needed: int) -> None:
        rest = [list(day) for day in days]
        by_index = self._wanted.text is not None and indexable(self._wanted)
        self._by_looking = True
        chunk, seen, looks = _PROBE, 0, 0
        while rest:
            number = await self._look_through(rest[0], chunk, needed - len(self._found))
            if number < chunk:
                self._stand(PageCursor(rest.pop(0)[-1].begins, 0))
            if len(self._found) >= needed:
                del self._found[needed:]
                return
            seen, looks = seen + number, looks + 1
            # A day that has just begun says little; many that are all but empty are not gone through one by one.
            if seen < _PROBE and looks < _FEW_LOOKS:
                continue
            chunk = _CHUNK
            if by_index and len(self._found) * _CHUNK * _COMMON < (needed - len(self._found)) * seen:
                self._by_looking = by_index = False
                if await self._walked_in_part(rest, needed):
                    return
                rest = [day for day in rest if self._before is None or PageCursor(day[0].begins, 0) < self._before]

    async def _walked_in_part(self, days: Sequence[Sequence[Leaf]], needed: int) -> bool:
        """Walks DAYS for a part of the time; False when that was not enough, as far as it came."""
        now, deadline, limit_set = time.monotonic(), self._deadline, self._limit_set
        self._deadline = now + _INDEX_SHARE * (deadline - now)
        try:
            # A savepoint: a statement that is broken off would end the transaction otherwise.
            async with self._connection.transaction():
                await self._walk(days, needed)
        except (_OutOfTimeError, psycopg.errors.QueryCanceled):
            return False
        finally:
            self._deadline, self._limit_set, self._keeps_plans = deadline, limit_set, False
        return True

    async def _look_through(self, day: Sequence[Leaf], count: int, needed: int) -> int:
        """Looks for NEEDED more in the COUNT newest entries of DAY still ahead; how many there were of these."""
        met, given = self._bounded(*walked_conditions(self._wanted))
        looked, values = looked_conditions(self._wanted)
        tables = day_rows((leaf.name for leaf in day), met)
        statement = sql.SQL(
            "WITH chunk AS MATERIALIZED (SELECT * FROM ({tables}) AS day {newest})"
            " (SELECT 0, {columns} FROM chunk WHERE {looked} {few})"
            " UNION ALL (SELECT (SELECT count(*) FROM chunk), {columns} FROM chunk ORDER BY timestamp, id LIMIT 1)"
        ).format(
            tables=tables,
            newest=_NEWEST.format(sql.Literal(count)),
            few=_NEWEST.format(sql.Literal(needed)),
            columns=READ_SQL,
            looked=where(looked),
        )
        await self._bound_statement()
        cursor = await self._connection.execute(statement, [*given * len(day), *values])
        seen = 0
        hits = []
        async for number, *columns in cursor:
            if number:
                seen, last = number, stored(tuple(columns))
                reached = _place(last)
            else:
                hits.append(stored(tuple(columns)))
        self._found += sorted(hits, key=_place, reverse=True)
        if seen:
            self._stand(reached)
        return seen

    async def _take(self, branches: Sequence[_Branch], given: Sequence[object], needed: int) -> None:
        """Adds the newest NEEDED entries of BRANCHES; GIVEN are the parameters of them all."""
        if len(branches) == 1:
            rows = await self._ask(branches[0].statement(_ALL, needed), given)
            self._found += [stored(row) for row in rows]
            return
        # Not to the number, so that the statement is the same whatever was found before.
        most = max(_LEAST_PLACES, 1 << (needed - 1).bit_length())
        fenced = all(branch.fenced for branch in branches)
        places = " UNION ALL ".join(
            branch.plain(columns) if fenced else branch.statement(columns, most)
            for branch, columns in (
                (branch, f"{number} AS branch, timestamp, id") for number, branch in enumerate(branches)
            )
        )
        if fenced:
            # One fence around them all: each one of its own takes planning twice as long.
            places += " OFFSET 0"
        newest = f"SELECT branch, id FROM ({places}) AS e ORDER BY timestamp DESC, id DESC LIMIT {most:d}"  # noqa: S608
        ids: dict[str, list[int]] = {}
        for number, found in (await self._ask(newest, given, keep_plan=len(branches) >= _KEPT))[:needed]:
            ids.setdefault(branches[number].leaf.name, []).append(found)
        if ids:
            await self._fetch(list(dict.fromkeys(branch.leaf.name for branch in branches)), ids)

    async def _fetch(self, leaves: Sequence[str], ids: Mapping[str, Sequence[int]]) -> None:
        """Adds the entries with these IDS, which are in some of LEAVES."""
        # All of them are asked where there are many, so that the statement is the same whatever was found.
        kept = len(leaves) >= _KEPT
        asked = leaves if kept else list(ids)
        if not asked:
            return
        each = [f"SELECT {_ALL} FROM {leaf} WHERE id = ANY(%s::bigint[])" for leaf in asked]  # noqa: S608
        # As text: psycopg's type for a list goes by the numbers in it, and with it which statement is prepared.
        numbers = ["{" + ",".join(map(str, ids.get(leaf, ()))) + "}" for leaf in asked]
        rows = await self._ask(" UNION ALL ".join(each), numbers, keep_plan=kept)
        self._found += sorted((stored(row) for row in rows), key=_place, reverse=True)

    async def _ask(self, statement: str, given: Sequence[object], *, keep_plan: bool = False) -> list[TupleRow]:
        await self._bound_statement(keep_plan=keep_plan)
        cursor = await self._connection.execute(statement.encode(), given, prepare=keep_plan)
        return await cursor.fetchall()

    def _conditions(self) -> tuple[list[sql.Composable], list[object]]:
        return self._bounded(*conditions(self._wanted))

    def _bounded(self, met: list[sql.Composable], given: list[object]) -> tuple[list[sql.Composable], list[object]]:
        if self._before is None:
            return met, given
        return [*met, sql.SQL("(timestamp, id) < (%s, %s)")], [*given, *self._before]

    def _stand(self, place: PageCursor) -> None:
        self._before = place

    async def _bound_statement(self, *, keep_plan: bool = False) -> None:
        """Gives the next statement what is left of the time."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _OutOfTimeError
        if self._limit_set == 0.0 or left < 0.7 * self._limit_set or keep_plan > self._keeps_plans:
            self._keeps_plans |= keep_plan
            await limit_statements(self._connection, left, keep_plans=self._keeps_plans)
            self._limit_set = left


def _place(entry: StoredEntry) -> PageCursor:
    return PageCursor(entry.row.timestamp, entry.id)
