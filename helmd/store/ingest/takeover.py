"""Taking over the rows of older tables, which migrations have renamed, in batches.

Older are the tables of the Helm before this one and of earlier versions of this one. The former were made with
SQLAlchemy: timestamps without time zone, in UTC, and no partitions. They are kept unchanged; their rows are copied
during normal operation. A batch and the progress are committed together, so that each row is copied exactly once.

Rows older than their retention, counted back from the newest row or from now, are not copied.
"""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import sql

from helmd.model.errors import UsageError
from helmd.model.ingest.body import Body
from helmd.model.ingest.logs import CONTEXT_LIMIT, log_rows
from helmd.model.logs.entry import HTTP, LogRow
from helmd.model.logs.retention import METRIC_DAYS
from helmd.store.ingest.copy_text import RetentionOf
from helmd.store.ingest.logs import append_with_ids
from helmd.store.session import Connection, columns_of, store_errors, unlimited

_FIELDS = ("level", "message", "context", "trace_id", "user_id", "hostname", "process_id")
_STATUS_COLUMNS = {
    "service_name": "text",
    "status": "text",
    "last_checked": "timestamptz",
    "pid": "integer",
    "port": "integer",
    "started_at": "timestamptz",
    "health_status": "text",
    "health_message": "text",
    "cpu_percent": "double precision",
    "memory_mb": "double precision",
}
_FLAT_METRICS = "service_metrics_flat"
_METRICS = "service_metrics"
"""Not an older table: its rows from before 0006_metric_rollups.sql are only rolled up."""
_BATCH = 1000
"""Rows per batch, which take helmd some tens of milliseconds."""
_METRICS_BATCH = 10
"""Factor for the batches of metrics, which PostgreSQL copies itself."""
_PAUSE = 0.05
_UNNAMEABLE = re.compile(r"[^a-z0-9_-]")

Columns = dict[str, str]
"""The types of a table's columns, by name, as PostgreSQL writes them."""


class _Batch(NamedTuple):
    """The number of rows copied, and the id of the last row read; None at the end of the table."""

    copied: int
    last_id: int | None


async def take_over(
    connection: Connection, retention_of: RetentionOf, say: Callable[[str], None], batch: int = _BATCH
) -> None:
    """Copy all remaining rows. Raises StoreError; batches committed by then stay."""
    with store_errors("older tables can't be taken over"):
        cursor = await connection.execute("SELECT source FROM store_takeovers WHERE NOT finished ORDER BY source")
        for (source,) in await cursor.fetchall():
            if source == _METRICS:
                await _roll_up(connection, _METRICS_BATCH * batch)
                continue
            columns = await columns_of(connection, source)
            until = await _newest(connection, source, columns)
            while not await _next_batch(connection, source, columns, until, retention_of, batch):
                await asyncio.sleep(_PAUSE)
            cursor = await connection.execute("SELECT taken FROM store_takeovers WHERE source = %s", (source,))
            found = await cursor.fetchone()
            if found and found[0]:
                say(f"{found[0]:,} rows of the table {source} were taken over")
            if source == _FLAT_METRICS:
                await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(source)))


async def _next_batch(
    connection: Connection, source: str, columns: Columns, until: datetime, retention_of: RetentionOf, size: int
) -> bool:
    """Copy a batch; return whether it was the last one of the table."""
    async with connection.transaction():
        cursor = await connection.execute(
            "SELECT last_id FROM store_takeovers WHERE source = %s AND NOT finished FOR UPDATE", (source,)
        )
        found = await cursor.fetchone()
        if found is None:
            return True
        after = -(2**63) if found[0] is None else int(found[0])
        if not columns:  # dropped by its owner
            done = _Batch(0, None)
        elif source.endswith("log_entries"):
            done = await _log_entries(connection, source, columns, until, retention_of, (after, size))
        elif source.endswith("service_status"):
            done = await _statuses(connection, source, columns)
        else:
            done = await _metrics(connection, source, columns, until, (after, _METRICS_BATCH * size))
        await connection.execute(
            "UPDATE store_takeovers SET last_id = coalesce(%s, last_id), taken = taken + %s, finished = %s"
            " WHERE source = %s",
            (done.last_id, done.copied, done.last_id is None, source),
        )
        return done.last_id is None


async def _roll_up(connection: Connection, size: int) -> None:
    """Roll up the metrics that were stored before there were roll-ups, newest first.

    This is done by the same trigger as for new rows, on a temporary table with a copy of the rows.
    """
    await _index_ids(connection)
    await connection.execute("DROP TABLE IF EXISTS pg_temp.earlier_metrics")
    await connection.execute("CREATE TEMP TABLE earlier_metrics (LIKE service_metrics) ON COMMIT DELETE ROWS")
    await connection.execute(
        "CREATE TRIGGER roll_up_metrics AFTER INSERT ON earlier_metrics REFERENCING NEW TABLE AS stored"
        " FOR EACH STATEMENT EXECUTE FUNCTION roll_up_metrics()"
    )
    while not await _roll_up_batch(connection, size):
        await asyncio.sleep(_PAUSE)
    await connection.execute("DROP TABLE earlier_metrics")


async def _index_ids(connection: Connection) -> None:
    """Create the index on ids of partitions that are older than this index, without blocking writers."""
    cursor = await connection.execute(
        "SELECT relname FROM pg_inherits AS leaf JOIN pg_class ON oid = leaf.inhrelid"
        " WHERE leaf.inhparent = 'service_metrics'::regclass AND NOT EXISTS ("
        "SELECT FROM pg_index JOIN pg_inherits AS part ON part.inhrelid = indexrelid"
        " WHERE indrelid = leaf.inhrelid AND part.inhparent = 'service_metrics_id'::regclass) ORDER BY 1"
    )
    for (leaf,) in await cursor.fetchall():
        names = {"name": sql.Identifier(f"{leaf}_by_id"), "leaf": sql.Identifier(leaf)}
        # An interrupted build leaves an invalid index.
        await connection.execute(sql.SQL("DROP INDEX IF EXISTS {name}").format(**names))
        async with unlimited(connection):
            await connection.execute(sql.SQL("CREATE INDEX CONCURRENTLY {name} ON {leaf} (id)").format(**names))
        await connection.execute(sql.SQL("ALTER INDEX service_metrics_id ATTACH PARTITION {name}").format(**names))


async def _roll_up_batch(connection: Connection, size: int) -> bool:
    """Roll up at most SIZE rows; return whether these were the last ones."""
    async with connection.transaction():
        cursor = await connection.execute(
            "SELECT last_id, (SELECT min(id) FROM service_metrics) FROM store_takeovers"
            " WHERE source = %s AND NOT finished FOR UPDATE",
            (_METRICS,),
        )
        found = await cursor.fetchone()
        if found is None:
            return True
        last, first = found
        if done := first is None or last < first:
            await connection.execute("UPDATE store_takeovers SET finished = true WHERE source = %s", (_METRICS,))
        else:
            bounds = (last - size, last)
            cursor = await connection.execute(
                "INSERT INTO earlier_metrics SELECT * FROM service_metrics WHERE id > %s AND id <= %s", bounds
            )
            await connection.execute(
                "UPDATE store_takeovers SET last_id = %s, taken = taken + %s WHERE source = %s",
                (last - size, cursor.rowcount, _METRICS),
            )
        return bool(done)


async def _log_entries(
    connection: Connection,
    source: str,
    columns: Columns,
    until: datetime,
    retention_of: RetentionOf,
    bounds: tuple[int, int],
) -> _Batch:
    chosen = [_time("timestamp", columns), *(_column(name, columns) for name in ("service_name", *_FIELDS))]
    cursor = await connection.execute(
        sql.SQL("SELECT id, {} FROM {} WHERE id > %s ORDER BY id LIMIT %s").format(
            sql.SQL(", ").join(chosen), sql.Identifier(source)
        ),
        bounds,
    )
    found = await cursor.fetchall()
    if not found:
        return _Batch(0, None)
    rows: list[LogRow] = []
    ids: list[int] = []
    for number, timestamp, service, *values in found:
        row = _row(timestamp or until, str(service or ""), dict(zip(_FIELDS, values, strict=True)))
        if until - row.timestamp <= timedelta(days=retention_of(row.service_name)):
            rows.append(row)
            ids.append(number)
    if rows:
        await append_with_ids(connection, rows, ids, retention_of)
    return _Batch(len(rows), found[-1][0])


def _row(timestamp: datetime, service: str, given: dict[str, Any]) -> LogRow:
    """Return the row for an older one, parsed like an entry that was posted at its time."""
    name = _UNNAMEABLE.sub("_", service.lower())[:50] or "helm"
    entry = {field: value for field, value in given.items() if value is not None}
    try:
        (row,) = log_rows(Body(name, (entry,), True, CONTEXT_LIMIT + 1, single=True), timestamp, 0)
    except UsageError:
        return LogRow(timestamp, name, "INFO", str(given["message"]).replace("\0", "\ufffd"), source=HTTP)
    return row


async def _statuses(connection: Connection, source: str, columns: Columns) -> _Batch:
    """Copy all rows, one for each service."""
    chosen = []
    for name, kind in _STATUS_COLUMNS.items():
        value = _time(name, columns) if kind == "timestamptz" else _column(name, columns)
        chosen.append(sql.SQL("({})::{} AS {}").format(value, sql.SQL(kind), sql.Identifier(name)))
    cursor = await connection.execute(
        sql.SQL(
            "INSERT INTO service_status ({columns}) SELECT DISTINCT ON (service_name) service_name,"
            " coalesce(status, 'unknown'), coalesce(last_checked, now()), pid, port, started_at,"
            " CASE WHEN health_status IN ('healthy', 'unhealthy', 'degraded') THEN health_status END,"
            " health_message, cpu_percent, memory_mb FROM (SELECT {chosen} FROM {source}) AS older"
            " WHERE service_name IS NOT NULL ORDER BY service_name, last_checked DESC NULLS LAST ON CONFLICT DO NOTHING"
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, _STATUS_COLUMNS)),
            chosen=sql.SQL(", ").join(chosen),
            source=sql.Identifier(source),
        )
    )
    return _Batch(cursor.rowcount, None)


async def _metrics(
    connection: Connection, source: str, columns: Columns, until: datetime, bounds: tuple[int, int]
) -> _Batch:
    table = sql.Identifier(source)
    cursor = await connection.execute(
        sql.SQL("SELECT max(id) FROM (SELECT id FROM {} WHERE id > %s ORDER BY id LIMIT %s) AS batch").format(table),
        bounds,
    )
    found = await cursor.fetchone()
    last = found[0] if found else None
    if last is None:
        return _Batch(0, None)
    tags = (
        _column("tags", columns)
        if columns.get("tags") == "jsonb"
        else sql.SQL("to_jsonb({}::text)").format(_column("tags", columns))
    )
    chosen = sql.SQL(
        "SELECT service_name, {} AS timestamp, metric_name, metric_value, {} AS tags FROM {} WHERE id > %(after)s"
        " AND id <= %(last)s"
    ).format(_time("timestamp", columns), tags, table)
    wanted = sql.SQL(
        " FROM ({}) AS older WHERE timestamp > %(since)s AND service_name IS NOT NULL AND metric_name IS NOT NULL"
        " AND abs(metric_value) < 'Infinity'"
    ).format(chosen)
    given = {"after": bounds[0], "last": last, "since": until - timedelta(days=METRIC_DAYS)}
    cursor = await connection.execute(
        sql.SQL(
            "SELECT day, make_metric_partition(day)"
            " FROM (SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date AS day{}) AS days"
        ).format(wanted),
        given,
    )
    days = [day async for day, _ in cursor]
    # They were inserted before all new rows.
    await connection.execute("UPDATE metric_partitions SET begun = 0 WHERE day = ANY(%s)", (days,))
    cursor = await connection.execute(
        sql.SQL(
            "INSERT INTO service_metrics (service_name, timestamp, metric_name, metric_value, tags)"
            " SELECT service_name, timestamp, metric_name, metric_value, tags{}"
        ).format(wanted),
        given,
    )
    return _Batch(cursor.rowcount, last)


async def _newest(connection: Connection, source: str, columns: Columns) -> datetime:
    """Return the earlier one of now and the time of the newest row: retention is counted back from there."""
    now = datetime.now(UTC)
    if "timestamp" not in columns:
        return now
    cursor = await connection.execute(
        sql.SQL("SELECT max({}) FROM {}").format(_time("timestamp", columns), sql.Identifier(source))
    )
    found = await cursor.fetchone()
    return min(now, found[0]) if found and found[0] is not None else now


def _column(name: str, columns: Columns) -> sql.Composable:
    return sql.Identifier(name) if name in columns else sql.SQL("NULL")


def _time(name: str, columns: Columns) -> sql.Composable:
    """Return the expression for a time that Python can represent, or null; without time zone it is UTC."""
    if name not in columns:
        return sql.SQL("NULL::timestamptz")
    column = sql.Identifier(name)
    value = column if columns[name] == "timestamp with time zone" else sql.SQL("({} AT TIME ZONE 'UTC')").format(column)
    return sql.SQL("CASE WHEN {0} BETWEEN '1970-01-01' AND '9990-01-01' THEN {1} END").format(column, value)
