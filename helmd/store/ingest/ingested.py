"""The time up to which the journal is stored, the newest id, and the numbers of new entries by service."""

from collections.abc import Sequence

from helmd.store.session import Connection, store_errors

_MOST_ACCESS_LINES, _LONGEST_ACCESS_LINE = 5_000, 4_000
"""Maximum number of entries returned, and maximum characters of each."""


async def stored_up_to(connection: Connection, machine_id: str, uid: int, boot_id: str) -> int | None:
    """Return the time of an account's last stored journal entry in a boot, in microseconds since 1970; None if none is.

    Other boots are ignored, since the clock may have been ahead in one of them. Raises StoreError.
    """
    with store_errors("the journal's position can't be read"):
        cursor = await connection.execute(
            "SELECT max(realtime) FROM journal_cursor WHERE (machine_id, uid, boot_id) = (%s, %s, %s)",
            (machine_id, uid, boot_id),
        )
        row = await cursor.fetchone()
    return row[0] if row else None


async def newest_id(connection: Connection) -> int:
    """Return the highest id of ``log_entries``; 0 if it is empty. Raises StoreError."""
    with store_errors("log entries can't be counted"):
        cursor = await connection.execute("SELECT coalesce(max(id), 0) FROM log_entries")
        row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def lines_between(connection: Connection, after: int, up_to: int) -> dict[str, int]:
    """Return the number of entries of each service with ids above AFTER, up to and including UP_TO. Raises StoreError.

    Only these are read, by the primary key.
    """
    with store_errors("log entries can't be counted"):
        cursor = await connection.execute(
            "SELECT service_name, count(*) FROM log_entries WHERE id > %s AND id <= %s GROUP BY service_name",
            (after, up_to),
        )
        return {name: count async for name, count in cursor}


async def access_lines_between(
    connection: Connection, after: int, up_to: int, level: str, words: Sequence[str]
) -> list[tuple[str, str]]:
    """Return service and text (message, then context as JSON) of entries with LEVEL whose text has one of WORDS.

    Their number and length are limited, since services write them. Raises StoreError.
    """
    with store_errors("log entries can't be counted"):
        cursor = await connection.execute(
            "SELECT service_name, text FROM ("
            " SELECT service_name, left(concat_ws(' ', message, context::text), %s) AS text FROM log_entries"
            " WHERE id > %s AND id <= %s AND level = %s OFFSET 0"
            ") AS lines WHERE text LIKE ANY (%s) LIMIT %s",
            (_LONGEST_ACCESS_LINE, after, up_to, level, [f"%{word}%" for word in words], _MOST_ACCESS_LINES),
        )
        return [(service, text) async for service, text in cursor]
