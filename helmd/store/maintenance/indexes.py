"""Index maintenance of partitions, run as their owner.

Indexes are built, rebuilt and dropped by CONCURRENTLY, so that neither writers nor readers are blocked. Each step finds
in PostgreSQL's catalogs what there is to do, so an interrupted one is completed by the next run.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise

import psycopg
from psycopg import sql

from helmd.model.logs.index_policy import MAX_UNINDEXED, TextIndex, bounds_with, is_over, text_index
from helmd.store.maintenance.partitions import Leaf, leaves
from helmd.store.session import LOCK_CLASS, Connection, connect, store_errors, unlimited

_MAINTENANCE_LOCK = 4
_INTERRUPTED = re.compile(r"_cc(new|old)\d*\Z")
"""Names of the indexes that an interrupted REINDEX CONCURRENTLY leaves (PostgreSQL manual, REINDEX)."""
_STATEMENT_SECONDS = 60.0
"""statement_timeout, except for statements that rewrite, index or detach a partition."""
_LOCK_TIMEOUT, _INDEX_LOCK_TIMEOUT = "5s", "10min"
"""lock_timeout, and the one of statements with CONCURRENTLY: these wait for all transactions that use the table (an
export), block none meanwhile, and are expensive to repeat."""


async def connect_as_owner(conninfo: str) -> Connection | None:
    """Return a connection for maintenance, or None if another process holds the lock. Raises StoreError."""
    connection = await connect(conninfo, "helm maintenance", _STATEMENT_SECONDS)
    try:
        with store_errors("the log store can't be maintained"):
            await connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS, _MAINTENANCE_LOCK))
            found = await cursor.fetchone()
    except BaseException:
        await connection.close()
        raise
    if found == (True,):
        return connection
    await connection.close()
    return None


async def has_trigrams(connection: Connection) -> bool:
    """Return whether the database has the extension pg_trgm, which text indexes need. Raises StoreError."""
    with store_errors("the log store can't be maintained"):
        cursor = await connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")
        return await cursor.fetchone() is not None


async def summarize(connection: Connection) -> int:
    """Summarize the page ranges that the BRIN indexes of open days lack; return how many. Raises StoreError.

    autosummarize leaves that to autovacuum, which runs once a minute and drops most requests while many rows arrive;
    a search reads all pages of ranges that are not summarized.
    """
    summarized = 0
    for leaf in await leaves(connection):
        if leaf.sealed:
            continue
        with store_errors(f"the partition {leaf.name} can't be indexed"):
            async with unlimited(connection):
                cursor = await connection.execute(
                    "SELECT sum(brin_summarize_new_values(indexrelid)) FROM pg_index"
                    " JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam"
                    " WHERE indrelid = to_regclass(%s) AND amname = 'brin'",
                    (leaf.name,),
                )
            found = await cursor.fetchone()
            summarized += int(found[0] or 0) if found else 0
    return summarized


async def index_text(connection: Connection, now: datetime) -> list[str]:
    """Build the text indexes that are due on open days; return their names. Raises StoreError."""
    built = []
    for leaf in await leaves(connection):
        if leaf.sealed or is_over(leaf.day, now):
            continue
        with store_errors(f"the partition {leaf.name} can't be indexed"):
            cursor = await connection.execute(
                sql.SQL(
                    "SELECT (SELECT count(*) FROM (SELECT 1 FROM {0} WHERE id >= %s LIMIT %s) AS unindexed),"
                    " (SELECT coalesce(max(id), 0) FROM {0})"
                ).format(sql.Identifier(leaf.name)),
                (leaf.text_bounds[-1], MAX_UNINDEXED),
            )
            found = await cursor.fetchone()
            assert found is not None
            if index := text_index(leaf.text_bounds, *found):
                built.append(await _build_text_index(connection, leaf, index))
    return built


async def seal(connection: Connection, now: datetime, is_idle: Callable[[str, int], bool], text: bool) -> list[str]:
    """Build the indexes of closed days over all of their entries; return the names of those partitions.

    IS_IDLE decides from a partition's name and highest id whether no more rows are expected; rows that are inserted
    later nevertheless are indexed on insertion. TEXT says whether text indexes are possible. Raises StoreError.
    """
    sealed = []
    for leaf in await leaves(connection):
        if leaf.sealed or not is_over(leaf.day, now):
            continue
        table = sql.Identifier(leaf.name)
        with store_errors(f"the partition {leaf.name} can't be indexed"):
            cursor = await connection.execute(sql.SQL("SELECT coalesce(max(id), 0) FROM {}").format(table))
            newest = await cursor.fetchone()
            if newest is None or not is_idle(leaf.name, newest[0]):
                continue
            if text:
                form = sql.SQL("{} USING gin (message gin_trgm_ops)").format(table)
                await _rebuild(connection, f"{leaf.name}_text", form)
            form = sql.SQL("{} (trace_id) WITH (fillfactor = 100) WHERE trace_id IS NOT NULL").format(table)
            await _rebuild(connection, f"{leaf.name}_trace", form)
            # VACUUM also sets the visibility map, so that counting needs index-only scans.
            async with unlimited(connection):
                await connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table))
            # First, since an interrupted run is only continued on partitions that are not sealed.
            await _drop_ranges(connection, leaf, ())
            await connection.execute("UPDATE log_partitions SET sealed = true WHERE leaf = %s", (leaf.name,))
        sealed.append(leaf.name)
    return sealed


async def compact(connection: Connection) -> str | None:
    """Rebuild the B-tree indexes of one closed day with fillfactor 100; return its name, or None if none is due.

    Their pages are half empty, since they were split when rows of several services were inserted in turn. Raises
    StoreError, also if a lock is not granted within _LOCK_TIMEOUT because of a long read; indexes rebuilt by then stay.
    """
    with store_errors("the log store's partitions can't be read"):
        cursor = await connection.execute(
            "SELECT leaf FROM log_partitions WHERE sealed AND NOT compact ORDER BY day, leaf LIMIT 1"
        )
        found = await cursor.fetchone()
    if found is None:
        return None
    leaf = str(found[0])
    with store_errors(f"the indexes of the partition {leaf} can't be rebuilt"):
        async with unlimited(connection):
            await _rebuild_trees(connection, leaf)
        await connection.execute("UPDATE log_partitions SET compact = true WHERE leaf = %s", (leaf,))
    return leaf


async def _rebuild_trees(connection: Connection, leaf: str) -> None:
    cursor = await connection.execute(
        "SELECT relname, indisvalid, coalesce(reloptions @> ARRAY['fillfactor=100'], false) FROM pg_index"
        " JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam"
        " WHERE indrelid = to_regclass(%s) AND amname = 'btree' ORDER BY 1",
        (leaf,),
    )
    for name, valid, full in await cursor.fetchall():
        index = sql.Identifier(name)
        if not valid:
            if _INTERRUPTED.search(name):
                await connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))
        elif not full:
            await connection.execute(sql.SQL("ALTER INDEX {} SET (fillfactor = 100)").format(index))
            try:
                await connection.execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(index))
            except psycopg.Error:
                if not connection.broken:
                    await connection.execute(sql.SQL("ALTER INDEX {} RESET (fillfactor)").format(index))
                raise


async def _build_text_index(connection: Connection, leaf: Leaf, index: TextIndex) -> str:
    name = f"{leaf.name}_t{index.first}_{index.end}"
    table = sql.Identifier(leaf.name)
    form = sql.SQL("{} USING gin (message gin_trgm_ops) WITH (fastupdate = off) WHERE id >= {} AND id < {}")
    await _rebuild(connection, name, form.format(table, sql.Literal(index.first), sql.Literal(index.end)))
    # Autovacuum analyzes it a minute later at best; until then the planner takes the partition for nearly empty.
    async with unlimited(connection):
        await connection.execute(sql.SQL("ANALYZE {}").format(table))
    bounds = bounds_with(leaf.text_bounds, index)
    await connection.execute("UPDATE log_partitions SET text_bounds = %s WHERE leaf = %s", (list(bounds), leaf.name))
    await _drop_ranges(connection, leaf, bounds)
    return name


async def _drop_ranges(connection: Connection, leaf: Leaf, bounds: Sequence[int]) -> None:
    """Drop the indexes of ranges other than those between consecutive BOUNDS."""
    kept = {f"{leaf.name}_t{first}_{end}" for first, end in pairwise(bounds)}
    cursor = await connection.execute(
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = to_regclass(%s)",
        (leaf.name,),
    )
    range_index = re.compile(rf"{leaf.name}_t\d+_\d+\Z")
    for name in [name async for (name,) in cursor]:
        if name not in kept and range_index.match(name):
            await _drop_index(connection, name)


async def _rebuild(connection: Connection, name: str, form: sql.Composable) -> None:
    """Build an index; replace an invalid one, which an interrupted build leaves."""
    await _drop_index(connection, name)
    statement = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {}").format(sql.Identifier(name), form)
    await _with_long_lock_timeout(connection, statement)


async def _drop_index(connection: Connection, name: str) -> None:
    statement = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name))
    await _with_long_lock_timeout(connection, statement)


async def _with_long_lock_timeout(connection: Connection, statement: sql.Composed) -> None:
    set_timeout = sql.SQL("SET lock_timeout = {}")
    await connection.execute(set_timeout.format(sql.Literal(_INDEX_LOCK_TIMEOUT)))
    try:
        async with unlimited(connection):
            await connection.execute(statement)
    finally:
        if not connection.broken:
            await connection.execute(set_timeout.format(sql.Literal(_LOCK_TIMEOUT)))
