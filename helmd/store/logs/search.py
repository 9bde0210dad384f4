"""Searching log entries in either direction, by pages and within a time limit.

A search reads the partitions, from the newest back or from the oldest on, in groups of days instead of querying the
whole table: planning a query over hundreds of partitions takes longer than running it, and a search by days can
report how far it got when the time limit is reached. The groups grow, so that the entries at the beginning are found
at once, and rare ones in few statements. Over several days, only ids are selected first and the rows fetched
afterwards, since planning time grows with the number of columns.

For a text, the newest entries are scanned first, which fills the page if the text is common
(`helmd.store.logs.scan_estimate`). Otherwise the trigram indexes are used, for the ranges of ids that have one, and the
remaining entries are scanned. If the indexes yield too little in half of the time (PostgreSQL lacks statistics of a
partition that was just filled), scanning continues instead, so that every page makes progress.

A search over many days uses prepared statements with generic plans (`helmd.store.maintenance.partitions`), since
planning takes several times as long as execution.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from helmd.model.errors import UsageError
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.model.logs.trigrams import indexable
from helmd.store.logs.branches import NEWEST_FIRST, OLDEST_FIRST, Branch
from helmd.store.logs.columns import PLAIN, READ_SQL, with_values
from helmd.store.logs.counts import counted_by_day
from helmd.store.logs.entries import (
    StoredEntry,
    conditions,
    day_rows,
    indexed_conditions,
    scan_conditions,
    stored,
    where,
)
from helmd.store.logs.scan_estimate import ScanEstimate
from helmd.store.maintenance.partitions import MOST_DAYS, Leaf, group_by_day, growing_groups, leaves, retry_if_dropped
from helmd.store.session import Connection, limit_statements, reason, store_errors

_DEEP_OFFSET = 2_000
"""Largest offset for which entries are fetched and discarded; for a larger one the position is found first."""
_INDEX_SHARE = 0.5
"""Share of the remaining time for a search by text indexes, before scanning continues without them."""
_MIN_GENERIC = 4
"""Minimum number of partitions for which a generic plan is worth keeping."""
_MIN_LIMIT = 128

_DAY = timedelta(days=1)
_PAST, _FUTURE = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of the search. ``next`` is the cursor of the next page, None on the last one.

    ``searched_to`` is set if the time limit was reached before the end of the range; ``next`` continues there.
    ``common`` is set if scanning the first entries was enough to fill the page.
    """

    entries: tuple[StoredEntry, ...]
    next: PageCursor | None = None
    searched_to: datetime | None = None
    common: bool = field(default=False, compare=False)


class _OutOfTimeError(Exception):
    """The time limit was reached."""


async def find(
    connection: Connection,
    wanted: LogFilter,
    limit: int,
    behind: PageCursor | None = None,
    offset: int = 0,
    seconds: float = 1.0,
    *,
    oldest_first: bool = False,
) -> Page:
    """Return the newest LIMIT entries that match WANTED and are older than BEHIND, without the first OFFSET.

    With OLDEST_FIRST, return the oldest that are newer than BEHIND. SECONDS is the time limit. Raises StoreError, and
    UsageError for a regular expression that is invalid or too slow, and for an offset that is not reached within the
    time limit.
    """
    deadline = time.monotonic() + seconds

    async def attempt() -> Page:
        async with connection.transaction():
            search = _Search(connection, wanted, behind, deadline, oldest_first=oldest_first)
            if offset <= _DEEP_OFFSET:
                return await search.page(limit, offset)
            return await search.page(limit, 0) if await search.skip(offset) else Page(())

    with store_errors("log entries can't be searched"):
        try:
            return await retry_if_dropped(attempt)
        except psycopg.errors.InvalidRegularExpression as error:
            raise UsageError(f"q: invalid regular expression ({reason(error)})") from None


class _Search:
    """The state of one search: cursor, entries found, deadline."""

    def __init__(
        self,
        connection: Connection,
        wanted: LogFilter,
        behind: PageCursor | None,
        deadline: float,
        *,
        oldest_first: bool = False,
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._behind = behind
        self._oldest_first = oldest_first
        self._order, self._reverse_order = (
            (OLDEST_FIRST, NEWEST_FIRST) if oldest_first else (NEWEST_FIRST, OLDEST_FIRST)
        )
        self._deadline = deadline
        self._limit_set = 0.0
        self._keeps_plans = False
        self._scanning = False
        self._found: list[StoredEntry] = []

    async def page(self, limit: int, offset: int) -> Page:
        needed = limit + offset + 1
        begun = self._behind
        days = await self._days()
        try:
            if scan_conditions(self._wanted)[0] and not self._wanted.few:
                await self._scan(days, needed)
            else:
                await self._query(days, needed)
        except (_OutOfTimeError, psycopg.errors.QueryCanceled):
            if self._behind == begun and self._wanted.expressions and self._limit_set:
                # No progress was made: a client that continues at this cursor would repeat the search endlessly.
                raise UsageError("q: the regular expression takes too long", hint="Simplify it.") from None
            if len(self._found) < offset:
                # Who continues at this cursor would get entries that were to be skipped.
                raise _offset_error() from None
            reached = self._behind or self._beginning()
            return Page(tuple(self._found[offset : offset + limit]), reached, reached.timestamp)
        found = tuple(self._found[offset : offset + limit])
        more = len(self._found) >= needed
        return Page(found, cursor_of(found[-1]) if more and found else None, common=more and self._scanning)

    async def _days(self) -> list[list[Leaf]]:
        """Return the partitions to search, by day, in the order of the search."""
        start, end, behind = self._wanted.start, self._wanted.end, self._behind
        if behind is not None and self._oldest_first:
            start = behind.timestamp if start is None else max(start, behind.timestamp)
        elif behind is not None:
            end = behind.timestamp
        days = group_by_day(await leaves(self._connection, start, end))
        return days[::-1] if self._oldest_first else days

    def _beginning(self) -> PageCursor:
        """Return where the search begins without a cursor."""
        if self._oldest_first:
            return PageCursor(self._wanted.start or _PAST, 0)
        return PageCursor(self._wanted.end or _FUTURE, 0)

    def _end_of(self, day: Sequence[Leaf]) -> PageCursor:
        """Return where the search continues after DAY. No entry has the id 0."""
        return PageCursor(day[-1].begins + _DAY if self._oldest_first else day[-1].begins, 0)

    def _is_past(self, day: Sequence[Leaf]) -> bool:
        """Return whether the search has gone on from DAY."""
        if self._behind is None:
            return False
        return self._end_of(day) <= self._behind if self._oldest_first else self._end_of(day) >= self._behind

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
                if asked.counted and asked.start is None and asked.end is None and self._behind is None:
                    number = counted.get(day[0].day, 0)
                else:
                    number = (await self._ask(f"SELECT count(*) FROM ({tables}) AS day", given))[0][0]  # noqa: S608
                if number < offset:
                    offset -= number
                    continue
                place = f"SELECT timestamp, id FROM ({tables}) AS day {self._order}"  # noqa: S608
                self._behind = PageCursor(*(await self._ask(f"{place} OFFSET {offset - 1:d} LIMIT 1", given))[0])
                return True
        except (_OutOfTimeError, psycopg.errors.QueryCanceled):
            raise _offset_error() from None
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
            branches: list[Branch] = []
            given: list[object] = []
            for leaf in chain.from_iterable(group):
                condition, values = conditions_of(leaf.begins)
                its = self._branches(leaf, condition)
                branches += its
                given += values * len(its)
            await self._select_first(branches, given, needed - len(self._found))
            if len(self._found) >= needed:
                return
            self._move_to(self._end_of(group[-1]))

    def _by_day(self) -> Callable[[datetime], tuple[str, list[object]]]:
        """Return a function that returns a day's conditions and parameters, without those that the whole day meets.

        Planning time grows with the number of conditions.
        """
        behind = self._behind
        made: dict[tuple[LogFilter, bool], tuple[str, list[object]]] = {}

        def of_day(begins: datetime) -> tuple[str, list[object]]:
            narrowed = self._wanted.of_day(begins)
            bounded = behind is not None and (
                behind.timestamp >= begins if self._oldest_first else behind.timestamp < begins + _DAY
            )
            if (found := made.get((narrowed, bounded))) is None:
                met, given = self._bounded(*conditions(narrowed)) if bounded else conditions(narrowed)
                made[narrowed, bounded] = found = where(met).as_string(self._connection), given
            return found

        return of_day

    def _branches(self, leaf: Leaf, condition: str) -> list[Branch]:
        """Return the queries for a partition: for a text, one for each range of ids with its own index."""
        if self._wanted.text is None:
            return [Branch(leaf, condition, self._wanted.few)]
        if leaf.sealed:
            return [Branch(leaf, condition, True)]
        # Literals, not parameters: the planner must be able to prove that a partial index applies.
        return [
            Branch(leaf, f"{condition} AND id >= {first:d}" + ("" if end is None else f" AND id < {end:d}"), True)
            for first, end in leaf.text_ranges
        ]

    async def _scan(self, days: Sequence[Sequence[Leaf]], needed: int) -> None:
        rest = [list(day) for day in days]
        by_index = self._wanted.text is not None and indexable(self._wanted)
        self._scanning = True
        estimate = ScanEstimate()
        while rest:
            found, left = len(self._found), needed - len(self._found)
            chunk = estimate.next_chunk(left)
            number = await self._scan_chunk(rest[0], chunk, left)
            if number < chunk:
                self._move_to(self._end_of(rest.pop(0)))
            if len(self._found) >= needed:
                del self._found[needed:]
                return
            estimate.add(number, len(self._found) - found)
            if by_index and estimate.known and not estimate.is_common(needed - len(self._found)):
                self._scanning = by_index = False
                if await self._query_for_a_share(rest, needed):
                    return
                rest = [day for day in rest if not self._is_past(day)]

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
        """Scan the COUNT next entries of DAY behind the cursor for NEEDED matches; return how many were scanned."""
        met, given = self._bounded(*indexed_conditions(self._wanted))
        scanned, values = scan_conditions(self._wanted)
        tables = day_rows((leaf.name for leaf in day), met)
        ordered = sql.SQL(f"{self._order} LIMIT {{}}")
        statement = sql.SQL(
            "WITH chunk AS MATERIALIZED (SELECT * FROM ({tables}) AS day {newest})"
            " (SELECT 0, {columns} FROM chunk WHERE {scanned} {few})"
            " UNION ALL (SELECT (SELECT count(*) FROM chunk), {columns} FROM chunk {backwards} LIMIT 1)"
        ).format(
            tables=tables,
            newest=ordered.format(sql.Literal(count)),
            few=ordered.format(sql.Literal(needed)),
            backwards=sql.SQL(self._reverse_order),
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
                reached = cursor_of(last)
            else:
                hits.append(stored(tuple(columns)))
        self._found += self._sorted(hits)
        if seen:
            self._move_to(reached)
        return seen

    async def _select_first(self, branches: Sequence[Branch], given: Sequence[object], needed: int) -> None:
        """Add the first NEEDED entries of BRANCHES; GIVEN are the parameters of all of them."""
        if len(branches) == 1:
            rows = await self._ask(with_values(branches[0].statement(PLAIN, self._order, needed)), given)
            self._found += self._sorted(stored(row) for row in rows)
            return
        # Rounded up, so that the statement does not depend on the number found so far and its plan can be reused.
        most = max(_MIN_LIMIT, 1 << (needed - 1).bit_length())
        fenced = all(branch.fenced for branch in branches)
        places = " UNION ALL ".join(
            branch.plain(columns) if fenced else branch.statement(columns, self._order, most)
            for branch, columns in (
                (branch, f"{number} AS branch, timestamp, id") for number, branch in enumerate(branches)
            )
        )
        if fenced:
            # One fence around all: a fence for each branch doubles the planning time.
            places += " OFFSET 0"
        newest = f"SELECT branch, id FROM ({places}) AS e {self._order} LIMIT {most:d}"  # noqa: S608
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
        each = [f"SELECT {PLAIN} FROM {leaf} WHERE id = ANY(%s::bigint[])" for leaf in asked]  # noqa: S608
        # As text, since psycopg chooses a list's type by its values, and prepares a statement for each type.
        numbers = ["{" + ",".join(map(str, ids.get(leaf, ()))) + "}" for leaf in asked]
        rows = await self._ask(with_values(" UNION ALL ".join(each)), numbers, keep_plan=kept)
        self._found += self._sorted(stored(row) for row in rows)

    def _sorted(self, entries: Iterable[StoredEntry]) -> list[StoredEntry]:
        return sorted(entries, key=cursor_of, reverse=not self._oldest_first)

    async def _ask(self, statement: str, given: Sequence[object], *, keep_plan: bool = False) -> list[TupleRow]:
        await self._bound_statement(keep_plan=keep_plan)
        cursor = await self._connection.execute(statement.encode(), given, prepare=keep_plan)
        return await cursor.fetchall()

    def _conditions(self) -> tuple[list[sql.Composable], list[object]]:
        return self._bounded(*conditions(self._wanted))

    def _bounded(self, met: list[sql.Composable], given: list[object]) -> tuple[list[sql.Composable], list[object]]:
        if self._behind is None:
            return met, given
        beyond = sql.SQL("(timestamp, id) > (%s, %s)" if self._oldest_first else "(timestamp, id) < (%s, %s)")
        return [*met, beyond], [*given, *self._behind]

    def _move_to(self, place: PageCursor) -> None:
        self._behind = place

    async def _bound_statement(self, *, keep_plan: bool = False) -> None:
        """Set the next statement's timeout to the remaining time. Raises _OutOfTimeError if there is none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _OutOfTimeError
        if self._limit_set == 0.0 or left < 0.7 * self._limit_set or keep_plan > self._keeps_plans:
            self._keeps_plans |= keep_plan
            await limit_statements(self._connection, left, keep_plans=self._keeps_plans, few=self._wanted.few)
            self._limit_set = left


def _offset_error() -> UsageError:
    return UsageError("offset: is too large for this search", hint="Use next_cursor as cursor.")


def cursor_of(entry: StoredEntry) -> PageCursor:
    """Return the place of ENTRY."""
    return PageCursor(entry.row.timestamp, entry.id)
