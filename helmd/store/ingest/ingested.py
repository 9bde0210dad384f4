"""How far the journal has been stored, and how many lines of each service have come since one looked last."""

from collections.abc import Sequence

from helmd.store.session import Connection, store_errors

_MOST_ACCESS_LINES, _LONGEST_ACCESS_LINE = 5_000, 4_000


async def stored_up_to(connection: Connection, machine_id: str, uid: int, boot_id: str) -> int | None:
    """The time (microseconds since 1970) of the last journal entry read of an account in a boot; None before the first.

    Not of all boots: the clock may have been ahead in one of them.
    """
    with store_errors("the journal's position can't be read"):
        cursor = await connection.execute(
            "SELECT max(realtime) FROM journal_cursor WHERE (machine_id, uid, boot_id) = (%s, %s, %s)",
            (machine_id, uid, boot_id),
        )
        row = await cursor.fetchone()
    return row[0] if row else None


async def newest_id(connection: Connection) -> int:
    """The highest id of ``log_entries``; 0 when it is empty."""
    with store_errors("log entries can't be counted"):
        cursor = await connection.execute("SELECT coalesce(max(id), 0) FROM log_entries")
        row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def lines_between(connection: Connection, after: int, up_to: int) -> dict[str, int]:
    """How many entries each service has with ids above AFTER, up to and with UP_TO. Reads just those by their key."""
    with store_errors("log entries can't be counted"):
        cursor = await connection.execute(
            "SELECT service_name, count(*) FROM log_entries WHERE id > %s AND id <= %s GROUP BY service_name",
            (after, up_to),
        )
        return {name: count async for name, count in cursor}


async def access_lines_between(
    connection: Connection, after: int, up_to: int, level: str, words: Sequence[str]
) -> list[tuple[str, str]]:
    """Service and text, with the context as JSON behind it, of the entries with LEVEL that have one of WORDS in it.

    They are bounded in number and length, since services write them.
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
