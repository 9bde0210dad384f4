"""Searching log entries in the other direction: those that follow a place, for paging back to the newest."""

import time
from itertools import chain

import psycopg
from psycopg import sql

from helmd.model.errors import StoreTimeoutError, UsageError
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.store.logs.entries import READ_SQL, StoredEntry, conditions, stored, where
from helmd.store.maintenance.partitions import group_by_day, growing_groups, leaves, whatever_expires
from helmd.store.session import Connection, limit_statements, reason, store_errors

_MOST_DAYS = 16
"""Days in one statement."""
_ORDERED = sql.SQL("ORDER BY timestamp, id LIMIT {}")


async def find_newer(
    connection: Connection, wanted: LogFilter, limit: int, after: PageCursor, seconds: float = 1.0
) -> tuple[StoredEntry, ...]:
    """The LIMIT entries that match WANTED and directly follow AFTER, the newest first.

    SECONDS is the time limit; what was found by then is returned. Raises StoreTimeoutError when that is nothing, and
    StoreError, and UsageError for an invalid regular expression.
    """
    deadline = time.monotonic() + seconds

    async def attempt() -> tuple[StoredEntry, ...]:
        async with connection.transaction():
            return await _search(connection, wanted, limit, after, deadline)

    with store_errors("log entries can't be searched"):
        try:
            return (await whatever_expires(attempt))[::-1]
        except psycopg.errors.InvalidRegularExpression as error:
            raise UsageError(f"q: invalid regular expression ({reason(error)})") from None


async def _search(
    connection: Connection, wanted: LogFilter, limit: int, after: PageCursor, deadline: float
) -> tuple[StoredEntry, ...]:
    start = after.timestamp if wanted.start is None else max(wanted.start, after.timestamp)
    met, given = conditions(wanted)
    condition = where([*met, sql.SQL("(timestamp, id) > (%s, %s)")])
    days = group_by_day(await leaves(connection, start, wanted.end))[::-1]
    found: list[StoredEntry] = []
    for group in growing_groups(days, _MOST_DAYS):
        names = [leaf.name for leaf in chain.from_iterable(group)]
        few = _ORDERED.format(sql.Literal(limit - len(found)))
        one = sql.SQL("(SELECT {} FROM {} WHERE {} {})")
        parts = [one.format(READ_SQL, sql.Identifier(name), condition, few) for name in names]
        statement = sql.SQL("SELECT * FROM ({}) AS found {}").format(sql.SQL(" UNION ALL ").join(parts), few)
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise StoreTimeoutError("log entries can't be searched in time")
            # A savepoint, since a cancelled statement would abort the transaction.
            async with connection.transaction():
                await limit_statements(connection, left)
                cursor = await connection.execute(statement, [*given, *after] * len(names))
                found += [stored(row) async for row in cursor]
        except (StoreTimeoutError, psycopg.errors.QueryCanceled):
            if not found:
                raise
            break
        if len(found) >= limit:
            break
    return tuple(found)
