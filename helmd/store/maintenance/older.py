"""Tables of the Helm before this one, made with SQLAlchemy, are renamed before the first migration.

`helmd.store.ingest.takeover` copies their rows.
"""

from psycopg import sql

from helmd.model.errors import StoreError
from helmd.store.session import Connection, columns_of

OLDER = "older_"
"""Prefix of the new names of these tables."""
OLDER_TABLES = ("log_entries", "service_status", "service_metrics")
_NEEDED = frozenset({"id", "timestamp", "service_name", "level", "message"})


async def set_older_aside(connection: Connection) -> None:
    """Rename the tables of an older Helm, if there are any, in the caller's transaction.

    Raises StoreError if the tables with these names are of another program, and psycopg.Error.
    """
    for table in OLDER_TABLES:
        columns = await columns_of(connection, table)
        if not columns:
            continue
        if table == "log_entries" and not columns.keys() >= _NEEDED:
            raise StoreError(
                f"the database has a table {table} that no Helm has made",
                hint="Give Helm a database of its own: store.database in helm.toml.",
            )
        await connection.execute(
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(table), sql.Identifier(OLDER + table))
        )
        cursor = await connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('i', 'S') AND oid IN ("
            " SELECT indexrelid FROM pg_index WHERE indrelid = to_regclass(%s) UNION ALL"
            " SELECT objid FROM pg_depend WHERE refobjid = to_regclass(%s) AND deptype IN ('a', 'i'))",
            (OLDER + table, OLDER + table),
        )
        for (name,) in await cursor.fetchall():
            # ALTER TABLE renames indexes and sequences too.
            await connection.execute(
                sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier((OLDER + name)[:63]))
            )
