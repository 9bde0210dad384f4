"""Rows and position go in together, by one process at a time, and ids become visible in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from helmd.model.errors import StoreError
from helmd.model.logs.entry import LogRow
from helmd.model.logs.parsing.position import Position
from helmd.store.ingest.journal import IngestTakenError, JournalStore, PositionMovedError
from helmd.store.ingest.logs import Appender
from helmd.store.logs.columns import with_values
from helmd.store.maintenance.migrate import migrate
from helmd.store.metrics import service_status as status
from helmd.store.metrics.metrics import MetricSample
from helmd.store.session import Pool, connect, deadline
from tests.store.conftest import Database
from tests.store.stored import put_samples, read_samples, read_statuses
from tests.waiting import eventually

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
MACHINE, UID, BOOT = "m" * 32, 1000, "b" * 32


def rows(first: int, last: int) -> list[LogRow]:
    return [LogRow(NOW, "core", "INFO", f"line {n}") for n in range(first, last + 1)]


def position(n: int) -> Position:
    return Position(BOOT, f"s=1;i={n:x}", 1_000 + n, n, 1)


@pytest.fixture
async def migrated(database: Database) -> Database:
    await migrate(database.owner, "helm")
    return database


@pytest.fixture
async def store(migrated: Database) -> AsyncIterator[JournalStore]:
    store = await JournalStore.open(migrated.store, MACHINE, UID, lambda _: 90)
    yield store
    await store.close()


def state(database: Database) -> tuple[int, list[object]]:
    count = database.query("SELECT count(*) FROM log_entries")[0][0]
    assert isinstance(count, int)
    return count, [cursor for (cursor,) in database.query("SELECT cursor FROM journal_cursor")]


async def test_every_column_comes_back(store: JournalStore, migrated: Database) -> None:
    full = LogRow(
        timestamp=NOW,
        service_name="core",
        level="ERROR",
        message='tab\t newline\n backslash\\ \\N "quote" \u2028 \N{PILE OF POO}',
        context={"größe": "\u2603", "n": 1, "deep": [None, {"a": "b\\n"}]},
        trace_id="t",
        user_id="u",
        hostname="h",
        process_id=7,
        source="journal",
        unit="hivematrix-core.service",
        stream="stderr",
        boot_id=BOOT,
    )
    await store.append([full], position(1), None)
    found = migrated.query(with_values("SELECT * FROM log_entries"))
    assert [LogRow(*row[1:]) for row in found] == [full]  # type: ignore[arg-type]
    assert await store.positions() == {BOOT: position(1)}


async def test_rows_and_position_together_or_neither(store: JournalStore, migrated: Database) -> None:
    await store.append(rows(1, 10), position(10), None)
    with psycopg.connect(migrated.owner, autocommit=True) as owner:
        # The counts are written after the rows; what is refused there is not the content of a row.
        owner.execute("REVOKE INSERT ON log_counts_minute FROM helm")
    with pytest.raises(StoreError, match="permission denied for table log_counts_minute"):
        await store.append(rows(11, 500), position(500), position(10))
    assert state(migrated) == (10, [position(10).cursor])


async def test_a_row_that_is_refused_is_stored_as_text(store: JournalStore, migrated: Database) -> None:
    refused = [*rows(1, 500), LogRow(NOW, "core", "LOUD", "no such level")]
    await store.append(refused, position(501), None)
    assert state(migrated) == (501, [position(501).cursor])
    found = migrated.query("SELECT level, message, context ? '_unparsed' FROM log_entries WHERE message !~ '^line'")
    assert found == [("INFO", "no such level", True)]


async def test_the_backend_killed_in_the_middle_stores_neither(store: JournalStore, migrated: Database) -> None:
    await store.append(rows(1, 10), position(10), None)
    with psycopg.connect(migrated.owner) as blocker:
        # Another writer holds the table, so the batch stands in the middle of its transaction.
        blocker.execute("LOCK TABLE log_entries IN SHARE MODE")
        task = asyncio.create_task(store.append(rows(11, 20), position(20), position(10)))
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock'"
        await eventually(lambda: migrated.query(waits))
        migrated.kill_backends("helmd-journal")
        with pytest.raises(StoreError):
            await task
    assert state(migrated) == (10, [position(10).cursor])
    again = await JournalStore.open(migrated.store, MACHINE, UID, lambda _: 90)
    await again.append(rows(11, 20), position(20), (await again.positions())[BOOT])
    await again.close()
    assert state(migrated) == (20, [position(20).cursor])


@pytest.mark.parametrize("before", [None, position(9), position(11)])
async def test_a_position_replaces_only_the_one_read_on_from(
    store: JournalStore, migrated: Database, before: Position | None
) -> None:
    await store.append(rows(1, 10), position(10), None)
    with pytest.raises(PositionMovedError):
        await store.append(rows(11, 20), position(20), before)
    assert state(migrated) == (10, [position(10).cursor])
    again = await JournalStore.open(migrated.store, MACHINE, UID, lambda _: 90)
    await again.append(rows(11, 20), position(20), position(10))
    await again.close()
    assert state(migrated) == (20, [position(20).cursor])


async def test_a_position_that_was_never_stored_is_not_moved(store: JournalStore, migrated: Database) -> None:
    with pytest.raises(PositionMovedError):
        await store.append(rows(1, 2), position(2), position(1))
    assert state(migrated) == (0, [])


async def test_only_one_stores_an_accounts_journal(store: JournalStore, migrated: Database) -> None:
    with pytest.raises(IngestTakenError):
        await JournalStore.open(migrated.store, MACHINE, UID, lambda _: 90)
    other = await JournalStore.open(migrated.store, MACHINE, UID + 1, lambda _: 90)
    await other.close()
    await store.close()

    async def again() -> JournalStore | None:
        with suppress(IngestTakenError):
            return await JournalStore.open(migrated.store, MACHINE, UID, lambda _: 90)
        return None

    await (await eventually(again)).close()


async def test_ids_become_visible_in_order(migrated: Database) -> None:
    async def write(n: int) -> None:
        connection = await connect(migrated.store, "writer")
        for _ in range(20):
            async with connection.transaction():
                await Appender(lambda _: 90).append(connection, rows(1, 1 + n))
        await connection.close()

    async def watch() -> int:
        """Return what a follower that asks for "after id N" gets."""
        connection = await connect(migrated.store, "follower")
        seen, last, quiet = 0, 0, 0
        while quiet < 5:
            cursor = await connection.execute("SELECT count(*), max(id) FROM log_entries WHERE id > %s", (last,))
            found = await cursor.fetchone()
            assert found is not None
            seen, last = seen + found[0], found[1] or last
            quiet = quiet + 1 if writers.done() and not found[0] else 0
        await connection.close()
        return seen

    writers = asyncio.gather(*(write(n) for n in range(5)))
    assert await watch() == 20 * (1 + 2 + 3 + 4 + 5)
    await writers


async def test_a_server_that_hangs_is_given_up(migrated: Database) -> None:
    connection = await connect(migrated.store, "unhurried")
    with pytest.raises(psycopg.OperationalError):
        with deadline(connection, 0.2):
            await connection.execute("SELECT pg_sleep(30)")
    assert connection.broken


async def test_statuses_are_kept_one_a_service(migrated: Database) -> None:
    first = status.StatusRow("core", "running", NOW, pid=1, port=5000, started_at=NOW, health_status="healthy")
    later = status.StatusRow("core", "stopped", NOW + timedelta(seconds=5), health_message="gone")
    other = status.StatusRow("nexus", "running", NOW, cpu_percent=1.5, memory_mb=80.25)
    async with Pool(migrated.store, "test") as pool, pool.connection("testing") as connection:
        await status.put_statuses(connection, [other, first])
        await status.put_statuses(connection, [later])
        await status.put_statuses(connection, [first])
        assert await read_statuses(connection) == (later, other)
        await status.drop_statuses(connection, ["nexus"])
        assert await read_statuses(connection) == (other,)


async def test_samples_come_back_in_order(migrated: Database) -> None:
    times = [NOW + timedelta(seconds=n) for n in range(9)]
    samples = [MetricSample("core", time, "cpu_percent", time.second / 3, {"n": str(time)}) for time in times]
    elsewhere = MetricSample("nexus", NOW, "cpu_percent", 1.0)
    async with Pool(migrated.store, "test") as pool, pool.connection("testing") as connection:
        await put_samples(connection, [*reversed(samples), elsewhere])
        end = NOW + timedelta(seconds=8)
        assert await read_samples(connection, "core", NOW, end) == tuple(samples[:8])
        assert await read_samples(connection, "core", NOW, end, "memory_mb") == ()


async def test_a_pool_opens_without_a_server_and_says_what_is_wrong(database: Database, tmp_path: object) -> None:
    async with Pool(f"host={tmp_path} dbname=helm user=helm", "test") as pool:
        with pytest.raises(StoreError, match="testing: the log store"):
            async with pool.connection("testing", seconds=0.2):
                pass
