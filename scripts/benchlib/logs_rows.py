"""Rows made up by PostgreSQL itself, spread over days, with the indexes that the product's own upkeep builds."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import psycopg
from logs_figures import GivenUp, note, say, show
from logs_tools import Sizes, conninfo, store, value

from helmd.store.maintenance.indexes import connect_as_owner, has_trigrams, index_text, seal
from helmd.store.maintenance.migrate import migrate

OWN_DATABASE = "bench_queries"
"""Where rows are made up when the store itself is somebody's."""
SERVICES = ("core", "nexus", "codex", "ledger", "knowledgetree", "ticker", "beacon")

_MAKE = """
    INSERT INTO log_entries (timestamp, service_name, level, message, context, trace_id, user_id, hostname, process_id,
                             source, unit, stream, boot_id)
    SELECT %(since)s + (%(until)s - %(since)s) * ((n - %(first)s)::float8 / %(rows)s),
           (%(services)s::text[])[1 + (h >> 3) %% 7],
           CASE WHEN h %% 100 < 80 THEN 'INFO' WHEN h %% 100 < 92 THEN 'DEBUG' WHEN h %% 100 < 98 THEN 'WARNING'
                ELSE 'ERROR' END,
           concat_ws(' ', w[1 + h %% 40], w[1 + (h >> 5) %% 40], w[1 + (h >> 9) %% 40], w[1 + (h >> 12) %% 40],
                     w[1 + (h >> 15) %% 40], w[1 + (h >> 7) %% 40], w[1 + (h >> 3) %% 40], h %% 1000003,
                     CASE WHEN n %% 100003 = 7 THEN 'quicksilver' END),
           jsonb_build_object('logger', 'app.' || w[1 + (h >> 4) %% 40], 'module', w[1 + (h >> 6) %% 40],
                              'function', w[1 + (h >> 8) %% 40], 'line', h %% 900),
           CASE WHEN h %% 5 > 0 THEN md5((n / 5)::text)::uuid::text END,
           CASE WHEN h %% 2 = 0 THEN 'user' || (h >> 2) %% 200 || '@example.com' END,
           'host1', 1000 + h %% 50, 'journal', 'hivematrix-core.service', 'stdout', repeat('b', 32)
    FROM (
        SELECT n, abs(hashint8(n)::bigint) AS h, string_to_array(
            'request user login invoice ticket customer sync failed loaded database connection timeout cache token'
            ' refresh page view export import report started finished processing queue worker index search update'
            ' delete create company contact asset device backup network billing plan contract shutdown', ' ') AS w
        FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(rows)s - 1) AS n
    ) AS numbered
"""
_ROUNDS = 500
_COUNT = (
    "INSERT INTO log_counts_minute SELECT date_trunc('minute', timestamp), retention, service_name, level, count(*)"
    " FROM log_entries GROUP BY 1, 2, 3, 4",
    "INSERT INTO log_counts_hour SELECT date_trunc('hour', slot), retention, service_name, level, sum(entries)"
    " FROM log_counts_minute GROUP BY 1, 2, 3, 4",
)


def own_database() -> None:
    """A store beside the one that there is."""
    drop_own_database()
    with store("postgres") as connection:
        connection.execute(f"CREATE DATABASE {OWN_DATABASE} OWNER helm_owner")
    asyncio.run(_migrate())


async def _migrate() -> None:
    await migrate(conninfo(OWN_DATABASE, "helm_owner"), "helm")


def drop_own_database() -> None:
    with store("postgres") as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {OWN_DATABASE} WITH (FORCE)")


def make_rows(sizes: Sizes, database: str) -> None:
    """A tenth of the rows today, the others evenly over the days before; then all the indexes that are due."""
    began = time.monotonic()
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = sizes.days - 1
    today = sizes.rows // 10
    each = (sizes.rows - today) // days
    with store(database) as connection:
        first = 1
        for back in range(days, -1, -1):
            day = midnight - timedelta(days=back)
            rows, until = (each, day + timedelta(days=1)) if back else (sizes.rows - each * days, now)
            connection.execute("SELECT make_log_partition(90::smallint, %s)", (day.date(),))
            given = {"since": day, "until": until, "first": first, "rows": rows, "services": list(SERVICES)}
            connection.execute(_MAKE, given)
            first += rows
            if back % 10 == 0:
                note(f"made {first - 1:,} rows in {time.monotonic() - began:.0f} s")
        for statement in _COUNT:
            connection.execute(statement)
        connection.execute("ANALYZE")
    made = time.monotonic()
    asyncio.run(_index(sizes, database))
    with store(database) as connection:
        # What autovacuum does in a while: counting by an index then needs no rows.
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    note(f"{sizes.rows:,} rows made in {made - began:.0f} s, sealed and indexed in {time.monotonic() - made:.0f} s")


async def _index(sizes: Sizes, database: str) -> None:
    """As helmd's upkeep does it, round by round, until nothing is due."""
    end = time.monotonic() + sizes.patience
    # A helmd that has just been stopped may still hold it.
    while (connection := await connect_as_owner(conninfo(database, "helm_owner"))) is None:
        if time.monotonic() > end:
            raise GivenUp(f"somebody else has been keeping up the store for {sizes.patience:g} s")
        await asyncio.sleep(0.5)
    try:
        text = await has_trigrams(connection)
        if not text:
            say("WRONG: the store has no trigram indexes")
        for _ in range(_ROUNDS):
            now = datetime.now(UTC)
            built = await index_text(connection, now) if text else []
            if not built + await seal(connection, now, lambda leaf, newest: True, text):
                return
        say(f"WRONG: after {_ROUNDS} rounds of upkeep there are still indexes due")
    finally:
        await connection.close()


def sealed_until(connection: psycopg.Connection[object]) -> datetime:
    """The end of the last day that is sealed."""
    last = value(connection, "SELECT max(day) FROM log_partitions WHERE sealed")
    if last is None:
        raise GivenUp("no day of the store is sealed")
    return datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)


def show_sizes(database: str) -> None:
    with store(database) as connection:
        rows = value(connection, "SELECT count(*) FROM log_entries")
        whole, plain = connection.execute(
            "SELECT sum(pg_total_relation_size(leaf::regclass)), sum(pg_table_size(leaf::regclass)) FROM log_partitions"
        ).fetchone() or (0, 0)
        text = value(
            connection,
            "SELECT coalesce(sum(pg_relation_size(indexrelid)), 0) FROM pg_index JOIN pg_class ON oid = indexrelid"
            " WHERE indrelid IN (SELECT leaf::regclass FROM log_partitions) AND relam = (SELECT oid FROM pg_am WHERE"
            " amname = 'gin')",
        )
    indexes = float((whole - plain) / rows)
    notified = (
        f"{float(plain / rows):,.0f} of them the row, {indexes:,.0f} its indexes ({float(text / rows):,.0f} for text)"
    )
    show("bytes a row with all indexes", [float(whole / rows)], "{:,.0f} bytes", notified)
