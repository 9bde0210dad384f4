"""What the owner of the tables does to partitions: indexes for days that nothing comes to any more.

Everything here is by CONCURRENTLY or on a table nobody writes, so that writers and readers go on; a step that was
broken off is taken up again from what PostgreSQL itself says is there.
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

_UPKEEP_LOCK = 4
_INTERRUPTED = re.compile(r"_cc(new|old)\d*\Z")
"""What REINDEX CONCURRENTLY leaves if it is interrupted (PostgreSQL manual, REINDEX)."""
_STATEMENT_SECONDS = 60.0
"""How long a statement may take, except for those that rewrite, index or detach a partition."""
_LOCK_WAIT, _INDEX_WAIT = "5s", "10min"
"""How long locks are waited for. An index made by CONCURRENTLY waits for whoever reads anything (an export), holds up
nobody meanwhile, and is expensive to begin again."""


async def connect_as_owner(conninfo: str) -> Connection | None:
    """Return a connection for upkeep, or None when another process is at it. Raises StoreError."""
    connection = await connect(conninfo, "helm upkeep", _STATEMENT_SECONDS)
    try:
        with store_errors("the log store can't be kept up"):
            await connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS, _UPKEEP_LOCK))
            found = await cursor.fetchone()
    except BaseException:
        await connection.close()
        raise
    if found == (True,):
        return connection
    await connection.close()
    return None


async def has_trigrams(connection: Connection) -> bool:
    """Return whether the database has what text indexes are made of. Raises StoreError."""
    with store_errors("the log store can't be kept up"):
        cursor = await connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")
        return await cursor.fetchone() is not None


async def summarize(connection: Connection) -> int:
    """Have the indexes by ranges of pages take in the pages that are full by now; return how many ranges.

    autosummarize leaves that to autovacuum, which looks once a minute and forgets most of what a flood asks of it; a
    search reads through all pages that were not taken in. Raises StoreError.
    """
    taken = 0
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
            taken += int(found[0] or 0) if found else 0
    return taken


async def index_text(connection: Connection, now: datetime) -> list[str]:
    """Build the text indexes that are due on days that go on; return the names of those built. Raises StoreError."""
    built = []
    for leaf in await leaves(connection):
        if leaf.sealed or is_over(leaf.day, now):
            continue
        with store_errors(f"the partition {leaf.name} can't be indexed"):
            cursor = await connection.execute(
                sql.SQL(
                    "SELECT (SELECT count(*) FROM (SELECT 1 FROM {0} WHERE id >= %s LIMIT %s) AS loose),"
                    " (SELECT coalesce(max(id), 0) FROM {0})"
                ).format(sql.Identifier(leaf.name)),
                (leaf.text_bounds[-1], MAX_UNINDEXED),
            )
            found = await cursor.fetchone()
            assert found is not None
            if index := text_index(leaf.text_bounds, *found):
                built.append(await _build_text_index(connection, leaf, index))
    return built


async def seal(connection: Connection, now: datetime, resting: Callable[[str, int], bool], text: bool) -> list[str]:
    """Give the days that are over indexes over all of their entries; return the names of those sealed.

    RESTING decides from a partition's name and highest id whether it gets no more rows; rows that come later all the
    same are indexed as they come. TEXT: there can be text indexes. Raises StoreError.
    """
    sealed = []
    for leaf in await leaves(connection):
        if leaf.sealed or not is_over(leaf.day, now):
            continue
        table = sql.Identifier(leaf.name)
        with store_errors(f"the partition {leaf.name} can't be indexed"):
            cursor = await connection.execute(sql.SQL("SELECT coalesce(max(id), 0) FROM {}").format(table))
            newest = await cursor.fetchone()
            if newest is None or not resting(leaf.name, newest[0]):
                continue
            if text:
                form = sql.SQL("{} USING gin (message gin_trgm_ops)").format(table)
                await _rebuild(connection, f"{leaf.name}_text", form)
            form = sql.SQL("{} (trace_id) WITH (fillfactor = 100) WHERE trace_id IS NOT NULL").format(table)
            await _rebuild(connection, f"{leaf.name}_trace", form)
            # Also says which pages all can see, so that counting needs the index alone.
            async with unlimited(connection):
                await connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table))
            await connection.execute("UPDATE log_partitions SET sealed = true WHERE leaf = %s", (leaf.name,))
            await _drop_ranges(connection, leaf, ())
        sealed.append(leaf.name)
    return sealed


async def compact(connection: Connection) -> str | None:
    """Rebuild the B-trees of one closed day without free space; the partition's name, None if none is due.

    They grew with the rows, and their pages are half empty where services came in turn. Raises StoreError, also if
    locks can't be had within _LOCK_WAIT, since somebody reads for long; what was rebuilt by then stays so.
    """
    cursor = await connection.execute(
        "SELECT leaf FROM log_partitions WHERE sealed AND NOT compact ORDER BY day, leaf LIMIT 1"
    )
    if (found := await cursor.fetchone()) is None:
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
    # Autovacuum comes a minute later at best; till then searches are planned as if the day were all but empty.
    async with unlimited(connection):
        await connection.execute(sql.SQL("ANALYZE {}").format(table))
    bounds = bounds_with(leaf.text_bounds, index)
    await connection.execute("UPDATE log_partitions SET text_bounds = %s WHERE leaf = %s", (list(bounds), leaf.name))
    await _drop_ranges(connection, leaf, bounds)
    return name


async def _drop_ranges(connection: Connection, leaf: Leaf, bounds: Sequence[int]) -> None:
    """Drop the indexes of ranges that are not between two of BOUNDS."""
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
    """Build an index, in place of an invalid one that an interrupted build has left."""
    await _drop_index(connection, name)
    await _patiently(connection, sql.SQL("CREATE INDEX CONCURRENTLY {} ON {}").format(sql.Identifier(name), form))


async def _drop_index(connection: Connection, name: str) -> None:
    await _patiently(connection, sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name)))


async def _patiently(connection: Connection, statement: sql.Composed) -> None:
    set_wait = sql.SQL("SET lock_timeout = {}")
    await connection.execute(set_wait.format(sql.Literal(_INDEX_WAIT)))
    try:
        async with unlimited(connection):
            await connection.execute(statement)
    finally:
        if not connection.broken:
            await connection.execute(set_wait.format(sql.Literal(_LOCK_WAIT)))
