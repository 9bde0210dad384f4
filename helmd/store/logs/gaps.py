"""Entries that say that lines are missing, as `helmd.model.logs.parsing.journal_fields.gap_row` makes them."""

from datetime import datetime
from typing import NamedTuple

from helmd.store.session import Connection, store_errors

_MOST = 20


class StoredGap(NamedTuple):
    """Lines that are missing between two times; ``why`` is a `Missing`, ``at_most`` None when it can't be known."""

    why: str
    since: datetime
    until: datetime
    at_most: int | None


async def gaps_since(connection: Connection, since: datetime) -> list[StoredGap]:
    """The newest gaps that end after SINCE, at most 20. Raises StoreError."""
    with store_errors("gaps can't be read"):
        cursor = await connection.execute(
            "SELECT context ->> 'gap', (context ->> 'since')::timestamptz, (context ->> 'until')::timestamptz,"
            " (context ->> 'at_most')::bigint FROM log_entries WHERE service_name = 'helm' AND level = 'WARNING'"
            " AND source = 'helm' AND timestamp >= %s AND context ->> 'gap' IN ('lost', 'unreadable')"
            " ORDER BY timestamp DESC LIMIT %s",
            (since, _MOST),
        )
        return [StoredGap(*row) async for row in cursor]
