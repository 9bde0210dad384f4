"""Entries that say that lines are missing, as `helmd.model.logs.parsing.journal_fields.gap_row` makes them."""

from datetime import datetime, timedelta
from typing import NamedTuple

from psycopg import sql

from helmd.store.session import Connection, limit_statements, store_errors

_MOST, _MOST_LEAVES = 20, 60
_REPORTED_AFTER = timedelta(days=1)
"""How long after a gap its entry may be dated."""
_GAPS = (
    "SELECT context ->> 'gap', (context ->> 'since')::timestamptz, (context ->> 'until')::timestamptz,"
    " (context ->> 'at_most')::bigint FROM {} WHERE service_name = 'helm' AND level = 'WARNING' AND source = 'helm'"
    " AND context ->> 'gap' IN ('lost', 'unreadable')"
)


class StoredGap(NamedTuple):
    """Lines that are missing between two times; ``why`` is a `Missing`, ``at_most`` None when it can't be known."""

    why: str
    since: datetime
    until: datetime
    at_most: int | None


async def gaps_since(connection: Connection, since: datetime) -> list[StoredGap]:
    """Return the newest gaps that end after SINCE, at most 20. Raises StoreError."""
    with store_errors("gaps can't be read"):
        cursor = await connection.execute(
            sql.SQL(_GAPS + " AND timestamp >= %s ORDER BY timestamp DESC LIMIT %s").format(
                sql.Identifier("log_entries")
            ),
            (since, _MOST),
        )
        return [StoredGap(*row) async for row in cursor]


async def gaps_between(connection: Connection, since: datetime, until: datetime, seconds: float) -> list[StoredGap]:
    """Return the newest gaps of which a part is between SINCE and UNTIL, at most 20. Raises StoreError.

    Rollups say which partitions can have any: asking all takes longer.
    """
    with store_errors("gaps can't be read"):
        async with connection.transaction():
            await limit_statements(connection, seconds)
            cursor = await connection.execute(
                "SELECT leaf FROM log_partitions WHERE (day, retention) IN ("
                "SELECT (slot AT TIME ZONE 'UTC')::date, retention FROM log_counts_hour"
                " WHERE service_name = 'helm' AND level = 'WARNING' AND slot >= %s AND slot < %s)"
                " ORDER BY day DESC LIMIT %s",
                (since - timedelta(hours=1), until + _REPORTED_AFTER, _MOST_LEAVES),
            )
            leaves = [leaf async for (leaf,) in cursor]
            if not leaves:
                return []
            one = sql.SQL(
                _GAPS + " AND (context ->> 'since')::timestamptz < %s AND (context ->> 'until')::timestamptz > %s"
            )
            parts = sql.SQL(" UNION ALL ").join(one.format(sql.Identifier(leaf)) for leaf in leaves)
            statement = sql.SQL("SELECT * FROM ({}) AS gaps ORDER BY 3 DESC LIMIT {}").format(parts, sql.Literal(_MOST))
            cursor = await connection.execute(statement, [until, since] * len(leaves))
            return [StoredGap(*row) async for row in cursor]
