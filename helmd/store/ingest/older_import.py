"""Importing the log entries of an older Helm from its own database, once.

They are copied unchanged, in one transaction, with ids reserved for them; then they are taken over in batches, like the
older tables in the store's own database (`helmd.store.ingest.takeover`). The source database is only read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from helmd.model.errors import StoreError
from helmd.store.ingest.copy_text import RetentionOf
from helmd.store.ingest.takeover import take_over
from helmd.store.session import APPEND_LOCK, LOCK_CLASS, Connection, columns_of, connect, store_errors

_TABLE = "log_entries"
_COPY = "older_log_entries"
"""The name that a migration gives such a table, so that it is taken over in the same way."""
_COLUMNS = {
    "timestamp": "timestamptz",
    "service_name": "text",
    "level": "text",
    "message": "text",
    "context": "jsonb",
    "trace_id": "text",
    "user_id": "text",
    "hostname": "text",
    "process_id": "integer",
}
"""The columns to copy, and their types; one that the older table lacks becomes null."""
_NEEDED = frozenset({"id", "timestamp", "service_name", "level", "message"})


@dataclass(frozen=True, slots=True)
class ImportedLogs:
    """The result of an import: the number of rows copied, and of those taken over; the others have expired."""

    found: int
    taken: int


async def import_older_logs(
    older: str, owner: str, retention_of: RetentionOf, notify: Callable[[str], None]
) -> ImportedLogs:
    """Copy the entries of the database OLDER into the store, as its OWNER (both are conninfos).

    Continues an interrupted import; does nothing after a complete one. Raises StoreError.
    """
    store = await connect(owner, "helm import", None)
    try:
        with store_errors("older log entries can't be imported"):
            cursor = await store.execute("SELECT 1 FROM store_takeovers WHERE source = %s", (_COPY,))
            if await cursor.fetchone() is None:
                copied = await _copied(older, store)
                notify(f"copied {copied:,} rows")
        await take_over(store, retention_of, notify)
        with store_errors("the copy of older log entries can't be removed"):
            cursor = await store.execute(
                sql.SQL("SELECT (SELECT count(*) FROM {}), taken FROM store_takeovers WHERE source = %s").format(
                    sql.Identifier(_COPY)
                )
                if await columns_of(store, _COPY)
                else sql.SQL("SELECT taken, taken FROM store_takeovers WHERE source = %s"),
                (_COPY,),
            )
            found = await cursor.fetchone()
            assert found is not None
            await store.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(_COPY)))
        return ImportedLogs(int(found[0]), int(found[1]))
    finally:
        await store.close()


async def _copied(older: str, store: Connection) -> int:
    """Copy the older table and register it for takeover, in one transaction; return the number of rows."""
    try:
        source = await connect(older, "helm import", None, "the older database")
    except StoreError as error:
        hint = "Start its PostgreSQL, then run: helmctl adopt --import-logs"
        raise StoreError(error.sentence, hint=hint) from None
    await source.set_read_only(True)
    await source.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    async with source, source.transaction():
        columns = await columns_of(source, _TABLE)
        if not columns.keys() >= _NEEDED:
            raise StoreError(f"the older database has no table {_TABLE} of an older Helm")
        cursor = await source.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(_TABLE)))
        counted = await cursor.fetchone()
        count = int(counted[0]) if counted else 0
        async with store.transaction():
            first = await _reserved(store, count)
            kinds = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
            await store.execute(f"CREATE TABLE {_COPY} (id bigint PRIMARY KEY, {kinds})".encode())
            await _pass_on(source, store, columns, first)
            await store.execute("INSERT INTO store_takeovers (source) VALUES (%s)", (_COPY,))
    return count


async def _reserved(store: Connection, count: int) -> int:
    """Reserve COUNT ids, above those in the store and below those of later entries; return the first one."""
    cursor = await store.execute(
        "SELECT pg_advisory_xact_lock(%s, %s), reserve_log_ids(%s)", (LOCK_CLASS, APPEND_LOCK, max(1, count))
    )
    found = await cursor.fetchone()
    assert found is not None
    return int(found[1]) - max(1, count) + 1


async def _pass_on(source: Connection, store: Connection, columns: dict[str, str], first: int) -> None:
    chosen: list[sql.Composable] = [sql.SQL("row_number() OVER (ORDER BY id) + {}").format(sql.Literal(first - 1))]
    for name, kind in _COLUMNS.items():
        if name not in columns:
            chosen.append(sql.SQL("NULL"))
        elif name == "timestamp":
            # Python's datetime lacks times outside this range; the takeover replaces them.
            bounded = sql.SQL("CASE WHEN {0} BETWEEN '1970-01-01' AND '9990-01-01' THEN {0} END").format(
                sql.Identifier(name)
            )
            chosen.append(bounded)
        else:
            chosen.append(sql.SQL("{}::{}").format(sql.Identifier(name), sql.SQL(kind)))
    reading = sql.SQL("COPY (SELECT {} FROM {} ORDER BY id) TO STDOUT").format(
        sql.SQL(", ").join(chosen), sql.Identifier(_TABLE)
    )
    names = sql.SQL(", ").join(map(sql.Identifier, ["id", *_COLUMNS]))
    writing = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(_COPY), names)
    async with (
        source.cursor() as read, store.cursor() as write,
        read.copy(reading) as rows, write.copy(writing) as copy,
    ):  # fmt: skip
        async for data in rows:
            await copy.write(data)
