"""Searching log entries, newest first, by pages and within a time limit.

A search reads the partitions in groups of days instead of querying the whole table: planning a query over hundreds of
partitions takes longer than running it, and a search by days can report how far back it got when the time limit is
reached. The groups grow, so that recent entries are found at once, and rare ones in few statements. Over several days,
only ids are selected first and the rows fetched afterwards, since planning time grows with the number of columns.

For a text, the newest entries are scanned first, which fills the page if the text is common. Otherwise the trigram
indexes are used, for the ranges of ids that have one, and the remaining entries are scanned. If the indexes yield too
little in half of the time (PostgreSQL lacks statistics of a partition that was just filled), scanning continues
instead, so that every page makes progress.

A search over many days uses prepared statements with generic plans (`helmd.store.maintenance.partitions`), since
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
    indexed_conditions,
    scan_conditions,
    stored,
    where,
)
from helmd.store.maintenance.partitions import MOST_DAYS, Leaf, group_by_day, growing_groups, leaves, whatever_expires
from helmd.store.session import Connection, limit_statements, reason, store_errors

_PROBE, _CHUNK = 2_000, 10_000
"""Entries scanned per statement for a text: at first, and later."""
_COMMON = 4
"""A text counts as common if scanning this many chunks would fill the page."""
_MIN_CHUNKS = 3
"""Chunks scanned before the indexes are used, even if they had few entries."""
_DEEP_OFFSET = 2_000
"""Largest offset for which entries are fetched and discarded; for a larger one the position is found first."""
_INDEX_SHARE = 0.5
"""Share of the remaining time for a search by text indexes, before scanning continues without them."""
_MIN_GENERIC = 4
"""Minimum number of partitions for which a generic plan is worth keeping."""
_MIN_LIMIT = 128
_MAX_WARM = 256
"""Newest partitions loaded into a connection's relation cache; each takes up to 0.2 MB in the backend."""
_WARM_SECONDS = 1.0
_RARE_ID, _ABSENT_TEXT = "-", "zqxjkvzqxjkv"
"""Conditions that match nothing, for warming connections."""

_DAY = timedelta(days=1)
_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)
_ALL = ", ".join(READ)
_NEWEST = sql.SQL("ORDER BY timestamp DESC, id DESC LIMIT {}")


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first. ``next`` is the cursor of the next page, None on the last one.

    ``searched_back_to`` is set if the time limit was reached before the end of the range; ``next`` continues there.
    ``common`` is set if scanning the newest entries was enough to fill the page.
    """

    entries: tuple[StoredEntry, ...]
    next: PageCursor | None = None
    searched_back_to: datetime | None = None
    common: bool = field(default=False, compare=False)


class _Branch(NamedTuple):
    """A query of one partition: its condition as SQL, with the search's parameters, and whether to fence it.

    The fence is OFFSET 0: it keeps the planner from scanning the index on time in the hope of meeting rare matches.
    """

    leaf: Leaf
    condition: str
    fenced: bool

    def plain(self, columns: str) -> str:
        return f"SELECT {columns} FROM {self.leaf.name} WHERE {self.condition}"  # noqa: S608 - both are SQL already

    def statement(self, columns: str, limit: int) -> str:
        newest = f"ORDER BY timestamp DESC, id DESC LIMIT {limit:d}"
        query = self.plain(columns)
        return f"(SELECT * FROM ({query} OFFSET 0) AS few {newest})" if self.fenced else f"({query} {newest})"  # noqa: S608


class _OutOfTimeError(Exception):
    """The time limit was reached."""


async def find(
    connection: Connection,
    wanted: LogFilter,
    limit: int,
    before: PageCursor | None = None,
    offset: int = 0,
    seconds: float = 1.0,
) -> Page:
    """Return the newest LIMIT entries that match WANTED and are older than BEFORE, without the first OFFSET.

    SECONDS is the time limit. Raises StoreError, and UsageError for a regular expression that is invalid or too slow,
    and for an offset that is not reached within the time limit.
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
            raise UsageError(f"q: invalid regular expression ({reason(error)})") from None


async def warm(connection: Connection) -> None:
    """Load partitions and generic plans of frequent searches into the connection's caches. Raises StoreError.

    The backend reads the catalogs of each partition and index on first use, which takes longer than a search.
    """

    async def warm_up() -> None:
        days = group_by_day(await leaves(connection))
        group: list[Sequence[Leaf]] = []
        for chunk in growing_groups(days, MOST_DAYS):
            if group and sum(map(len, [*group, *chunk])) > _MAX_WARM:
                break
            group += chunk
        for unmatched in (LogFilter(trace_id=_RARE_ID), LogFilter(user_id=_RARE_ID), LogFilter(text=_ABSENT_TEXT)):
            async with connection.transaction():
                await _Search(connection, unmatched, None, time.monotonic() + _WARM_SECONDS).warm_up(group)
            if unmatched.text is None and len(group) == len(days):
                await total(connection, unmatched, _WARM_SECONDS)

    with store_errors("log entries can't be searched"), suppress(_OutOfTimeError, psycopg.errors.QueryCanceled):
        await whatever_expires(warm_up)


class _Search:
    """The state of one search: cursor, entries found, deadline."""

    def __init__(self, connection: Connection, wanted: LogFilter, before: PageCursor | None, deadline: float) -> None:
        self._connection = connection
        self._wanted = wanted
        self._before = before
        self._deadline = deadline
        self._limit_set = 0.0
        self._keeps_plans = False
        self._scanning = False
        self._found: list[StoredEntry] = []

    async def page(self, limit: int, offset: int) -> Page:
        needed = limit + offset + 1
        begun = self._before
        days = await self._days()
        try:
            if scan_conditions(self._wanted)[0]:
                await self._scan(days, needed)
            else:
                await self._query(days, needed)
        except (_OutOfTimeError, psycopg.errors.QueryCanceled):
            if self._before == begun and self._wanted.mode == "regex" and self._limit_set:
                # No progress was made: a client that continues at this cursor would repeat the search endlessly.
                raise UsageError("q: the regular expression takes too long", hint="Simplify it.") from None
            reached = self._before or PageCursor(self._wanted.end or _FUTURE, 0)
            return Page(tuple(self._found[offset : offset + limit]), reached, reached.timestamp)
        found = tuple(self._found[offset : offset + limit])
        more = len(self._found) >= needed
        return Page(found, _cursor_of(found[-1]) if more and found else None, common=more and self._scanning)

    async def warm_up(self, days: Sequence[Sequence[Leaf]]) -> None:
        """Run the statements of a search over DAYS without results, including the one that fetches entries."""
        await self._query(days, 1)
        for group in growing_groups(days, MOST_DAYS):
            await self._fetch([leaf.name for leaf in chain.from_iterable(group)], {})

    async def _days(self) -> list[list[Leaf]]:
        end = self._wanted.end if self._before is None else self._before.timestamp
        return group_by_day(await leaves(self._connection, self._wanted.start, end))

    async def skip(self, offset: int) -> bool:
        """Move the cursor behind the first OFFSET entries; return False if there are fewer. Raises UsageError."""
        # One snapshot for all days: entries stored meanwhile would be skipped without being counted.
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
            raise UsageError("offset: is too large for this search", hint="Use next_cursor as cursor.") from None
        return False

    def _of_day(self, day: Sequence[Leaf]) -> tuple[str, list[object]]:
        """Return a query for time and id of all matches of a day, and its parameters."""
        met, given = self._conditions()
        condition = where(met).as_string(self._connection)
        each = [f"SELECT timestamp, id FROM {leaf.name} WHERE {condition}" for leaf in day]  # noqa: S608
        return " UNION ALL ".join(each), [*given] * len(day)

    async def _query(self, days: Sequence[Sequence[Leaf]], needed: int) -> None:
        """Query growing groups of days until there are NEEDED entries."""
        for group in growing_groups(days, MOST_DAYS):
            conditions_of = self._by_day()
            branches: list[_Branch] = []
            given: list[object] = []
            for leaf in chain.from_iterable(group):
                condition, values = conditions_of(leaf.begins)
                its = self._branches(leaf, condition)
                branches += its
                given += values * len(its)
            await self._select_newest(branches, given, needed - len(self._found))
            if len(self._found) >= needed:
                return
            self._move_to(PageCursor(group[-1][-1].begins, 0))

    def _by_day(self) -> Callable[[datetime], tuple[str, list[object]]]:
        """Return a function that returns a day's conditions and parameters, without those that the whole day meets.

        Planning time grows with the number of conditions.
        """
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
        """Return the queries for a partition: for a text, one for each range of ids with its own index."""
        if self._wanted.text is None:
            return [_Branch(leaf, condition, self._wanted.trace_id is not None)]
        if leaf.sealed:
            return [_Branch(leaf, condition, True)]
        # Literals, not parameters: the planner must be able to prove that a partial index applies.
        return [
            _Branch(leaf, f"{condition} AND id >= {first:d}" + ("" if end is None else f" AND id < {end:d}"), True)
            for first, end in leaf.text_ranges
        ]

    async def _scan(self, days: Sequence[Sequence[Leaf]], needed: int) -> None:
        rest = [list(day) for day in days]
        by_index = self._wanted.text is not None and indexable(self._wanted)
        self._scanning = True
        chunk, seen, chunks = _PROBE, 0, 0
        while rest:
            number = await self._scan_chunk(rest[0], chunk, needed - len(self._found))
            if number < chunk:
                self._move_to(PageCursor(rest.pop(0)[-1].begins, 0))
            if len(self._found) >= needed:
                del self._found[needed:]
                return
            seen, chunks = seen + number, chunks + 1
            # Too few entries to judge how common the text is, but nearly empty days must not be scanned one by one.
            if seen < _PROBE and chunks < _MIN_CHUNKS:
                continue
            chunk = _CHUNK
            if by_index and len(self._found) * _CHUNK * _COMMON < (needed - len(self._found)) * seen:
                self._scanning = by_index = False
                if await self._query_for_a_share(rest, needed):
                    return
                rest = [day for day in rest if self._before is None or PageCursor(day[0].begins, 0) < self._before]

    async def _query_for_a_share(self, days: Sequence[Sequence[Leaf]], needed: int) -> bool:
        """Query DAYS for _INDEX_SHARE of the remaining time; return False if that was not enough."""
        now, deadline, limit_set = time.monotonic(), self._deadline, self._limit_set
        self._deadline = now + _INDEX_SHARE * (deadline - now)
        try:
            # A savepoint, since a cancelled statement would abort the transaction.
            async with self._connection.transaction():
                await self._query(days, needed)
        except (_OutOfTimeError, psycopg.errors.QueryCanceled):
            return False
        finally:
            self._deadline, self._limit_set, self._keeps_plans = deadline, limit_set, False
        return True

    async def _scan_chunk(self, day: Sequence[Leaf], count: int, needed: int) -> int:
        """Scan the COUNT newest entries of DAY before the cursor for NEEDED matches; return how many were scanned."""
        met, given = self._bounded(*indexed_conditions(self._wanted))
        scanned, values = scan_conditions(self._wanted)
        tables = day_rows((leaf.name for leaf in day), met)
        statement = sql.SQL(
            "WITH chunk AS MATERIALIZED (SELECT * FROM ({tables}) AS day {newest})"
            " (SELECT 0, {columns} FROM chunk WHERE {scanned} {few})"
            " UNION ALL (SELECT (SELECT count(*) FROM chunk), {columns} FROM chunk ORDER BY timestamp, id LIMIT 1)"
        ).format(
            tables=tables,
            newest=_NEWEST.format(sql.Literal(count)),
            few=_NEWEST.format(sql.Literal(needed)),
            columns=READ_SQL,
            scanned=where(scanned),
        )
        await self._bound_statement()
        cursor = await self._connection.execute(statement, [*given * len(day), *values])
        seen = 0
        hits = []
        async for number, *columns in cursor:
            if number:
                seen, last = number, stored(tuple(columns))
                reached = _cursor_of(last)
            else:
                hits.append(stored(tuple(columns)))
        self._found += sorted(hits, key=_cursor_of, reverse=True)
        if seen:
            self._move_to(reached)
        return seen

    async def _select_newest(self, branches: Sequence[_Branch], given: Sequence[object], needed: int) -> None:
        """Add the newest NEEDED entries of BRANCHES; GIVEN are the parameters of all of them."""
        if len(branches) == 1:
            rows = await self._ask(branches[0].statement(_ALL, needed), given)
            self._found += [stored(row) for row in rows]
            return
        # Rounded up, so that the statement does not depend on the number found so far and its plan can be reused.
        most = max(_MIN_LIMIT, 1 << (needed - 1).bit_length())
        fenced = all(branch.fenced for branch in branches)
        places = " UNION ALL ".join(
            branch.plain(columns) if fenced else branch.statement(columns, most)
            for branch, columns in (
                (branch, f"{number} AS branch, timestamp, id") for number, branch in enumerate(branches)
            )
        )
        if fenced:
            # One fence around all: a fence for each branch doubles the planning time.
            places += " OFFSET 0"
        newest = f"SELECT branch, id FROM ({places}) AS e ORDER BY timestamp DESC, id DESC LIMIT {most:d}"  # noqa: S608
        ids: dict[str, list[int]] = {}
        for number, found in (await self._ask(newest, given, keep_plan=len(branches) >= _MIN_GENERIC))[:needed]:
            ids.setdefault(branches[number].leaf.name, []).append(found)
        if ids:
            await self._fetch(list(dict.fromkeys(branch.leaf.name for branch in branches)), ids)

    async def _fetch(self, leaves: Sequence[str], ids: Mapping[str, Sequence[int]]) -> None:
        """Fetch the entries with IDS (by partition) and add them. LEAVES are all partitions searched."""
        # With many partitions the statement names all of them, so that it is always the same and its plan is reused.
        kept = len(leaves) >= _MIN_GENERIC
        asked = leaves if kept else list(ids)
        if not asked:
            return
        each = [f"SELECT {_ALL} FROM {leaf} WHERE id = ANY(%s::bigint[])" for leaf in asked]  # noqa: S608
        # As text, since psycopg chooses a list's type by its values, and prepares a statement for each type.
        numbers = ["{" + ",".join(map(str, ids.get(leaf, ()))) + "}" for leaf in asked]
        rows = await self._ask(" UNION ALL ".join(each), numbers, keep_plan=kept)
        self._found += sorted((stored(row) for row in rows), key=_cursor_of, reverse=True)

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

    def _move_to(self, place: PageCursor) -> None:
        self._before = place

    async def _bound_statement(self, *, keep_plan: bool = False) -> None:
        """Set the next statement's timeout to the remaining time. Raises _OutOfTimeError if there is none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _OutOfTimeError
        if self._limit_set == 0.0 or left < 0.7 * self._limit_set or keep_plan > self._keeps_plans:
            self._keeps_plans |= keep_plan
            await limit_statements(self._connection, left, keep_plans=self._keeps_plans)
            self._limit_set = left


def _cursor_of(entry: StoredEntry) -> PageCursor:
    return PageCursor(entry.row.timestamp, entry.id)
