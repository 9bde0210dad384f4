"""Partitions are made by whoever needs one, and nobody changes what is in them."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter
from helmd.store.ingest.logs import Appender
from helmd.store.maintenance.migrate import migrate, migrations
from helmd.store.maintenance.partitions import Leaf, group_by_day, growing_groups, leaves, make_ahead
from helmd.store.session import Connection, connect
from tests.store.conftest import Cluster, Database
from tests.store.stored import BASE, append, everything, find

LEAF = "log_entries_90_20260310"


def row(service: str = "codex", days: float = 0.0, text: str = "line") -> LogRow:
    return LogRow(BASE + timedelta(days=days), service, "INFO", text)


async def names(connection: Connection) -> list[str]:
    return [leaf.name for leaf in await leaves(connection)]


async def test_writers_make_what_is_missing(connection: Connection, database: Database) -> None:
    await append(connection, [row("core"), row("codex", 1), row("core", 1 - 1e-11)])
    assert await names(connection) == ["log_entries_90_20260311", "log_entries_7_20260310"]
    tables = database.query("SELECT tableoid::regclass::text, count(*) FROM log_entries GROUP BY 1 ORDER BY 1")
    assert tables == [("log_entries_7_20260310", 2), ("log_entries_90_20260311", 1)]


async def test_what_was_rolled_back_is_made_again(connection: Connection) -> None:
    appender = Appender(lambda _: 90)
    with pytest.raises(ZeroDivisionError):
        async with connection.transaction():
            await appender.append(connection, [row()])
            raise ZeroDivisionError
    assert await names(connection) == []
    async with connection.transaction():
        await appender.append(connection, [row()])
    async with connection.transaction():
        await appender.append(connection, [row()])
    assert await names(connection) == [LEAF]
    assert len(await everything(connection)) == 2


async def test_a_service_whose_class_changes_is_found_in_both(connection: Connection) -> None:
    await append(connection, [row(text="before")], lambda _: 7)
    await append(connection, [row(text="after")], lambda _: 365)
    assert await names(connection) == ["log_entries_365_20260310", "log_entries_7_20260310"]
    page = await find(connection, LogFilter(services=frozenset({"codex"})), 10)
    assert [entry.row.message for entry in page.entries] == ["after", "before"]


@pytest.mark.parametrize(
    "instant",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
    ],
)
async def test_odd_days(connection: Connection, instant: datetime) -> None:
    await append(connection, [LogRow(instant, "codex", "INFO", "odd")])
    assert [entry.row.timestamp for entry in (await find(connection, LogFilter(), 10)).entries] == [instant]
    assert await names(connection) == [f"log_entries_90_{instant:%Y%m%d}"]


@pytest.mark.parametrize(
    ("retention", "day"), [(8, "2026-03-10"), (90, "1969-12-31"), (90, "infinity"), (0, "2026-01-01")]
)
async def test_no_class_or_day_but_those_there_are(connection: Connection, retention: int, day: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="there is no retention class"):
        await connection.execute("SELECT make_log_partition(%s::smallint, %s::date)", (retention, day))


async def test_days_ahead_are_made_once(connection: Connection, database: Database) -> None:
    owner = await connect(database.owner, "maintenance")
    now = BASE + timedelta(hours=23)
    assert await make_ahead(owner, [90, 7, 90], now) == 6
    assert await make_ahead(owner, [90, 7], now) == 0
    assert await make_ahead(owner, [90, 7], now + timedelta(hours=2)) == 2
    await owner.close()
    assert len(await names(connection)) == 8


async def test_many_writers_at_a_new_day(connection: Connection, database: Database) -> None:
    async def write(n: int) -> None:
        writer = await connect(database.store, "writer")
        appender = Appender(lambda service: 7 if service == "core" else 90)
        for days in range(5):
            async with writer.transaction():
                await appender.append(writer, [row("core", days), row("codex", days, str(n))])
        await writer.close()

    async def make() -> None:
        owner = await connect(database.owner, "maintenance")
        for days in range(5):
            await make_ahead(owner, [7, 30, 90], BASE + timedelta(days=days))
        await owner.close()

    await asyncio.gather(*(write(n) for n in range(4)), make())
    assert len(await everything(connection)) == 40
    assert len(await names(connection)) == 3 * 7
    assert database.query("SELECT sum(entries) FROM log_counts_hour") == [(40,)]


CHANGES = ("UPDATE {} SET message = ''", "DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET retention = 7")


@pytest.mark.parametrize("table", ["log_entries", "log_entries_90", LEAF])
@pytest.mark.parametrize("change", CHANGES)
async def test_nobody_changes_what_is_logged(
    connection: Connection, database: Database, table: str, change: str
) -> None:
    await append(connection, [row()])
    statement = change.format(table).encode()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
        await connection.execute(statement)
    with psycopg.connect(database.owner, autocommit=True) as owner:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="log entries are final"):
            owner.execute(statement)
    assert [entry.row.message for entry in await everything(connection)] == ["line"]


@pytest.mark.parametrize(
    "statement",
    [
        f"DROP TABLE {LEAF}",
        f"ALTER TABLE {LEAF} DISABLE TRIGGER ALL",
        f"ALTER TABLE log_entries_90 DETACH PARTITION {LEAF}",
        "DELETE FROM log_partitions",
        "UPDATE log_partitions SET leaf = 'pg_authid'",
        "DELETE FROM log_counts_hour",
        "SELECT setval('log_entry_ids', 1)",
        "CREATE TABLE mine (n int)",
    ],
)
async def test_the_daemons_role_has_no_other_way(connection: Connection, statement: str) -> None:
    await append(connection, [row()])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await connection.execute(statement.encode())


async def test_who_may_only_read_may_only_read_partitions_too(
    connection: Connection, database: Database, cluster: Cluster
) -> None:
    cluster.execute("CREATE ROLE auditor LOGIN")
    try:
        cluster.execute("GRANT SELECT ON log_entries TO auditor", database.name)
        await append(connection, [row(), row("core", 3)])
        with psycopg.connect(cluster.conninfo("auditor", database.name), autocommit=True) as auditor:
            assert auditor.execute(f"SELECT count(*) FROM {LEAF}".encode()).fetchone() == (1,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                auditor.execute(f"INSERT INTO {LEAF} SELECT * FROM {LEAF}".encode())
    finally:
        cluster.execute("DROP OWNED BY auditor", database.name)
        cluster.execute("DROP ROLE auditor")


async def test_a_store_of_before_partitions_is_taken_over(database: Database) -> None:
    first = migrations()[:1]
    await migrate(database.owner, "helm", first)
    with psycopg.connect(database.owner, autocommit=True) as owner:
        owner.execute(
            b"INSERT INTO log_entries (timestamp, service_name, level, message, context, source)"
            b" SELECT '2026-03-10'::timestamptz + n * interval '7 hours', (ARRAY['core', 'codex'])[1 + mod(n, 2)],"
            b" 'INFO', 'line ' || n, '{\"a\": [1]}', 'journal' FROM generate_series(1, 100) AS n"
        )
    before = database.query("SELECT id, timestamp, service_name, level, message, context FROM log_entries ORDER BY id")
    assert len(await migrate(database.owner, "helm")) == len(migrations()) - 1
    after = database.query("SELECT id, timestamp, service_name, level, message, context FROM log_entries ORDER BY id")
    assert after == before
    for table in ("log_counts_minute", "log_counts_hour"):
        assert database.query(f"SELECT sum(entries), count(DISTINCT service_name) FROM {table}") == [(100, 2)]
    connection = await connect(database.store, "writer")
    done = await append(connection, [row()])
    assert done.first_id == 101
    assert len((await find(connection, LogFilter(text="line"), 200)).entries) == 101
    await connection.close()
    with psycopg.connect(database.owner, autocommit=True) as owner:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="log entries are final"):
            owner.execute("DELETE FROM log_entries")


@pytest.mark.parametrize("oldest_first", [False, True])
def test_ranges_of_days_are_the_same_wherever_one_begins(oldest_first: bool) -> None:
    found = [
        Leaf(f"log_entries_{kept}_0", kept, date(2026, 3, 10) - timedelta(days=n), (0,), True)
        for n in range(200)
        for kept in (30, 90)
    ]
    days = group_by_day(found)[:: -1 if oldest_first else 1]
    portioned = [list(growing_groups(days[begin:], 64)) for begin in range(100)]
    for begin, some in enumerate(portioned):
        assert [day for chunk in some for day in chunk] == days[begin:]
        assert all(len(chunk) <= most for chunk, most in zip(some, (1, 4, 16, *[64] * 9), strict=False))
        assert len(some) <= 3 + 4
    assert portioned[0][-2:] == portioned[40][-2:]
    assert list(growing_groups([], 64)) == []
