"""What follows from other values, or is the same in most rows, is stored in a shorter form and read in full."""

import json
from datetime import timedelta

import psycopg
import pytest

from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter
from helmd.model.logs.query_language.parse import parsed_query
from helmd.model.suite.names import unit_of
from helmd.store.ingest.logs import Appender, append_with_ids
from helmd.store.logs.entries import after, entry
from helmd.store.logs.export import export
from helmd.store.logs.facets import facets
from helmd.store.maintenance.migrate import migrate, migrations
from helmd.store.session import Connection, connect
from tests.store.conftest import Cluster, Database
from tests.store.stored import BASE, append, everything, find

FIRST, SECOND = "0123456789abcdef" * 2, "fedcba9876543210" * 2


def row(number: int, unit: str | None = unit_of("codex"), boot: str | None = FIRST) -> LogRow:
    return LogRow(BASE + timedelta(hours=9 * number), "codex", "INFO", f"line {number}", unit=unit, boot_id=boot)


ROWS = [row(1), row(2, "helmd.service"), row(3, None), row(4, unit_of("core"), SECOND), row(5, boot=None)]


async def test_every_reader_has_the_whole_value(connection: Connection, database: Database) -> None:
    await append(connection, ROWS[:2])
    await append(connection, ROWS[2:])
    kept = database.query("SELECT unit, length(boot_id) FROM log_entries ORDER BY timestamp")
    assert kept == [("", 1), ("helmd.service", 1), (None, 1), ("hivematrix-core.service", 1), ("", None)]
    assert [each.row for each in reversed(await everything(connection))] == ROWS
    # Of one partition, and of several by ids.
    for few in (LogFilter(end=BASE + timedelta(days=1)), LogFilter(), LogFilter(text="line")):
        page = await find(connection, few, 10)
        assert [each.row for each in reversed(page.entries)] == [
            each for each in ROWS if few.end is None or each.timestamp < few.end
        ]
    whole = await after(connection, 0, 2**62, 10)
    assert [each.row for each in whole] == ROWS
    assert await entry(connection, whole[3].id) == whole[3]
    exported = b"".join([part async for part in export(connection, LogFilter(), "ndjson", oldest_first=True)])
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [(line["unit"], line["boot_id"]) for line in lines] == [(each.unit, each.boot_id) for each in ROWS]
    table = b"".join([part async for part in export(connection, LogFilter(), "csv", oldest_first=True)]).decode()
    assert table.count("hivematrix-codex.service") == 2
    assert (table.count(FIRST), table.count(SECOND)) == (3, 1)
    counted = await facets(connection, {"unit": LogFilter(), "boot_id": LogFilter()}, 10, 5.0)
    assert dict(counted["boot_id"].counts) == {FIRST: 3, SECOND: 1, None: 1}
    assert dict(counted["unit"].counts)["hivematrix-codex.service"] == 2


async def test_rows_of_before_are_read_and_found_with_new_ones(database: Database, cluster: Cluster) -> None:
    """As other roles may read them, too."""
    await migrate(database.owner, "helm", migrations()[:8])
    cluster.execute("CREATE ROLE auditor LOGIN")
    try:
        cluster.execute("GRANT SELECT ON log_entries TO auditor", database.name)
        with psycopg.connect(database.owner, autocommit=True) as older:
            older.execute("SELECT make_log_partition(90::smallint, '2026-03-10')")
            older.execute(
                "INSERT INTO log_entries (timestamp, service_name, level, message, source, unit, boot_id)"
                " VALUES (%s, 'codex', 'INFO', 'old', 'journal', %s, %s)",
                (BASE, unit_of("codex"), FIRST),
            )
        assert str((await migrate(database.owner, "helm"))[0]) == "0009_small_rows"
        with psycopg.connect(cluster.conninfo("auditor", database.name), autocommit=True) as auditor:
            assert auditor.execute("SELECT count(*) FROM log_boots").fetchone() == (0,)
    finally:
        cluster.execute("DROP OWNED BY auditor", database.name)
        cluster.execute("DROP ROLE auditor")
    connection = await connect(database.store, "writer")
    await append(connection, ROWS)
    for query in (f"boot:{FIRST} unit:{unit_of('codex')}", "boot:0123* unit:hivematrix-cod*"):
        page = await find(connection, LogFilter(rest=parsed_query(query)), 10)
        assert [each.row.message for each in page.entries] == ["line 1", "old"]
        assert {each.row.boot_id for each in page.entries} == {FIRST}
    await connection.close()


async def test_a_boot_of_a_transaction_that_failed_is_stored_again(
    connection: Connection, owner: Connection, database: Database
) -> None:
    appender = Appender(lambda _: 90)
    with pytest.raises(ZeroDivisionError):
        async with connection.transaction():
            await appender.append(connection, [row(1)])
            raise ZeroDivisionError
    assert database.query("SELECT count(*) FROM log_boots") == [(0,)]
    async with connection.transaction():
        await appender.append(connection, [row(1)])
        await appender.append(connection, [row(2), row(3, boot=SECOND)])
    async with owner.transaction():
        await append_with_ids(owner, [row(4, boot=SECOND)], [1], lambda _: 90)
    assert [each.row.boot_id for each in await everything(connection)] == [SECOND, SECOND, FIRST, FIRST]
    assert database.query("SELECT count(*) FROM log_boots") == [(2,)]
