"""Maintenance beside writers and readers: nothing is lost, nobody is blocked, interrupted steps are completed."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import cast

import psycopg
import pytest

from helmd.model.errors import StoreError
from helmd.model.logs import index_policy as decisions
from helmd.model.logs import retention as retention_policy
from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter
from helmd.model.logs.retention import Partition
from helmd.operations.logs import retention
from helmd.operations.logs.retention import StoreMaintenance
from helmd.store.maintenance import indexes as sealing
from helmd.store.maintenance.expiry import drop_partitions
from helmd.store.maintenance.indexes import compact, connect_as_owner, has_trigrams, index_text, seal, summarize
from helmd.store.maintenance.partitions import leaves
from helmd.store.session import Connection, connect
from tests.store.conftest import Database
from tests.store.stored import BASE, append, everything, find, random_rows
from tests.waiting import WITHIN, eventually

DAY = timedelta(days=1)
OVER = BASE + DAY + timedelta(hours=1)
"""When the first day of the rows is over."""
LEAF = "log_entries_90_20260310"


@pytest.fixture
async def owner(owner: Connection) -> Connection:
    await owner.execute("SET lock_timeout = '200ms'")
    return owner


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sealing, decisions):
        monkeypatch.setattr(module, "MAX_UNINDEXED", 100)
    monkeypatch.setattr(sealing, "_LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(sealing, "_INDEX_LOCK_TIMEOUT", "300ms")


async def drop_expired(connection: Connection, now: datetime) -> list[str]:
    """Drop the days that are past their retention by NOW, without waiting."""
    found = [Partition(leaf.name, leaf.retention, leaf.day, 0) for leaf in await leaves(connection)]
    return await drop_partitions(connection, [each for each in found if (now.date() - each.day).days > each.retention])


def rows(number: int, days: float = 0.0) -> list[LogRow]:
    return [LogRow(BASE + timedelta(days=days), "codex", "INFO", f"line {n}") for n in range(number)]


def indexes(database: Database) -> set[str]:
    """Return the valid indexes of LEAF that maintenance built."""
    found = database.query(
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE indisvalid AND indrelid = %s::regclass AND relname ~ '_(text|trace|t[0-9]+_[0-9]+)$'",
        LEAF,
    )
    return {str(name) for (name,) in found}


async def test_one_at_a_time(owner: Connection, database: Database) -> None:
    assert await connect_as_owner(database.owner) is None
    await owner.close()
    again = await eventually(lambda: connect_as_owner(database.owner))
    await again.close()


@pytest.mark.usefixtures("small")
async def test_ranges_get_an_index_each_and_many_become_one(
    connection: Connection, owner: Connection, database: Database
) -> None:
    await append(connection, rows(99))
    assert await index_text(owner, BASE) == []
    first = await append(connection, rows(1))
    assert await index_text(owner, BASE) == [f"{LEAF}_t0_{first.last_id + 1}"]
    # Without statistics the planner takes an index for what it finds nothing by.
    assert database.query("SELECT attname FROM pg_stats WHERE tablename = %s AND attname = 'service_name'", LEAF)
    assert await index_text(owner, BASE) == []
    for _ in range(40):
        await append(connection, rows(100))
        while await index_text(owner, BASE):
            pass
        (leaf,) = await leaves(owner)
        assert len(leaf.text_bounds) <= decisions.MAX_RANGES + 1
        assert leaf.text_bounds[0] == 0
        assert indexes(database) == {f"{LEAF}_t{first}_{end}" for first, end in leaf.text_ranges if end is not None}
        assert len((await find(connection, LogFilter(text="line"), 10_000)).entries) == len(
            await everything(connection)
        )
    # As in a merge tree: few large ones, not all of one size.
    assert len(indexes(database)) < decisions.MAX_RANGES


@pytest.mark.usefixtures("small")
async def test_a_day_that_is_over_is_sealed_once_nothing_comes(
    connection: Connection, owner: Connection, database: Database
) -> None:
    newest = (await append(connection, rows(150))).last_id
    await append(connection, rows(10, days=1))
    await index_text(owner, BASE)
    asked: list[tuple[str, int]] = []

    def is_idle(leaf: str, newest: int) -> bool:
        asked.append((leaf, newest))
        return len(asked) > 1

    before = OVER - timedelta(seconds=1)
    assert await seal(owner, before, is_idle, True) == []
    assert asked == []
    assert await seal(owner, OVER, is_idle, True) == []
    assert await seal(owner, OVER, is_idle, True) == [LEAF]
    assert asked == [(LEAF, newest)] * 2
    assert await seal(owner, OVER, is_idle, True) == []
    assert indexes(database) == {f"{LEAF}_text", f"{LEAF}_trace"}
    assert await index_text(owner, OVER) == []
    # A straggler is found like any other.
    await append(connection, [LogRow(BASE, "codex", "INFO", "straggler", trace_id="late")])
    for wanted in (LogFilter(text="straggler"), LogFilter(trace_id="late")):
        assert len((await find(connection, wanted, 5)).entries) == 1


@pytest.mark.usefixtures("small")
async def test_what_is_new_is_taken_into_the_index_of_traces(connection: Connection, owner: Connection) -> None:
    await append(connection, [row._replace(trace_id=f"t{n}") for n, row in enumerate(rows(12_000))])
    assert await summarize(owner) > 2
    assert await summarize(owner) == 0


@pytest.mark.usefixtures("small")
async def test_while_others_write(
    connection: Connection, owner: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A writer may hold its locks for long on a busy machine.
    monkeypatch.setattr(sealing, "_INDEX_LOCK_TIMEOUT", "30s")
    monkeypatch.setattr(sealing, "_LOCK_TIMEOUT", "30s")
    stopped = asyncio.Event()
    number = 0

    async def write(days: float) -> None:
        nonlocal number
        connection = await connect(database.store, "writer")
        while not stopped.is_set():
            await append(connection, rows(50, days))
            number += 50
        await connection.close()

    writing = asyncio.gather(write(0.0), write(0.5), write(1.0))
    built: list[str] = []
    while len(built) < 6:
        built += await index_text(owner, BASE)
    sealed = await seal(owner, OVER, lambda *_: True, True)
    await asyncio.sleep(0.1)
    stopped.set()
    await writing
    assert sealed == [LEAF]
    assert len(await everything(connection)) == number
    assert len((await find(connection, LogFilter(text="line"), number + 1, seconds=30)).entries) == number
    assert database.query("SELECT sum(entries) FROM log_counts_minute") == [(number,)]


SIZES = (
    "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid"
    " WHERE indrelid = %s::regclass AND indisvalid AND relam = (SELECT oid FROM pg_am WHERE amname = 'btree')"
)


async def test_indexes_of_a_closed_day_are_rebuilt_without_free_space(
    connection: Connection, owner: Connection, database: Database
) -> None:
    """Also after a rebuilding that was interrupted."""
    some = [LogRow(BASE, f"service{n % 9}", "INFO", "line", user_id=f"u{n % 9}") for n in range(9000)]
    for first in range(0, len(some), 90):
        await append(connection, some[first : first + 90])
    assert await compact(owner) is None
    assert await seal(owner, OVER, lambda *_: True, True) == [LEAF]
    before = dict(cast("list[tuple[str, int]]", database.query(SIZES, LEAF)))
    for statement in (
        f"CREATE INDEX left_ccnew ON {LEAF} (level)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'left_ccnew'::regclass",
    ):
        database.cluster.execute(statement, database.name)
    await owner.execute("SET lock_timeout = '30s'")
    assert await compact(owner) == LEAF
    assert await compact(owner) is None
    after = dict(cast("list[tuple[str, int]]", database.query(SIZES, LEAF)))
    assert after.keys() == before.keys() and database.query("SELECT to_regclass('left_ccnew') IS NULL") == [(True,)]
    for name in (f"{LEAF}_service_name_timestamp_id_idx", f"{LEAF}_user_id_timestamp_id_idx"):
        assert after[name] < 0.75 * before[name]
    await append(connection, some[:100])
    assert len((await find(connection, LogFilter(user_id="u3"), 2000, seconds=30)).entries) == 1011


async def test_a_reader_delays_rebuilding_and_nothing_else(
    connection: Connection, owner: Connection, database: Database
) -> None:
    await append(connection, rows(100))
    assert await seal(owner, OVER, lambda *_: True, True) == [LEAF]
    reader = await connect(database.store, "reader")
    await owner.execute("SET lock_timeout = '300ms'")
    async with reader.transaction():
        await reader.execute(f"SELECT count(*) FROM {LEAF}".encode())
        with pytest.raises(StoreError, match=f"the indexes of the partition {LEAF} can't be rebuilt: .*lock timeout"):
            await compact(owner)
        assert (await append(connection, rows(10))).stored == 10
        assert len((await find(connection, LogFilter(text="line"), 200)).entries) == 110
    await reader.close()
    await owner.execute("SET lock_timeout = '30s'")
    assert await compact(owner) == LEAF
    assert database.query("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


@pytest.mark.usefixtures("small")
async def test_an_index_that_was_broken_off_is_made_again(
    connection: Connection, owner: Connection, database: Database
) -> None:
    await append(connection, rows(200))
    with psycopg.connect(database.store) as reader:
        # An export that goes on keeps an index from being finished.
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM log_entries")
        with pytest.raises(StoreError, match=f"{LEAF} can't be indexed: canceling statement due to lock timeout"):
            await index_text(owner, BASE)
        with pytest.raises(StoreError, match="lock timeout"):
            await seal(owner, OVER, lambda *_: True, True)
        assert (await leaves(owner))[0].text_bounds == (0,)
        assert not (await leaves(owner))[0].sealed
        assert len((await find(connection, LogFilter(text="line"), 500)).entries) == 200
        newest = (await append(connection, rows(50))).last_id
    broken = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert database.query(broken) != [(0,)]
    assert await index_text(owner, BASE) == [f"{LEAF}_t0_{newest + 1}"]
    assert await seal(owner, OVER, lambda *_: True, True) == [LEAF]
    assert database.query(broken) == [(0,)]
    assert indexes(database) == {f"{LEAF}_text", f"{LEAF}_trace"}
    assert await (await owner.execute("SHOW lock_timeout")).fetchone() == ("200ms",)


@pytest.mark.usefixtures("small")
async def test_indexes_of_ranges_go_also_if_their_removal_was_broken_off(
    connection: Connection, owner: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(connection, rows(150))
    assert len(await index_text(owner, BASE)) == 1
    with monkeypatch.context() as killed:

        async def end(*_: object) -> None:
            raise asyncio.CancelledError

        killed.setattr(sealing, "_drop_ranges", end)
        with pytest.raises(asyncio.CancelledError):
            await seal(owner, OVER, lambda *_: True, True)
    assert len((await find(connection, LogFilter(text="line"), 200)).entries) == 150
    assert await seal(owner, OVER, lambda *_: True, True) == [LEAF]
    assert indexes(database) == {f"{LEAF}_text", f"{LEAF}_trace"}


async def test_what_expired_goes_with_its_counts(connection: Connection, owner: Connection, database: Database) -> None:
    await append(connection, random_rows(800, seed=1))
    now = BASE + 8 * DAY
    kept = [
        entry
        for entry in await everything(connection)
        if entry.row.service_name != "core" or entry.row.timestamp >= now - 7 * DAY
    ]
    assert await drop_expired(owner, now) == ["log_entries_7_20260310"]
    assert await drop_expired(owner, now) == []
    assert await everything(connection) == kept
    number = sum(entry.row.duplicate_of is None for entry in kept)
    for table in ("log_counts_minute", "log_counts_hour"):
        assert database.query(f"SELECT sum(entries) FROM {table}") == [(number,)]
    assert len(await drop_expired(owner, BASE + 400 * DAY)) == 15
    assert await everything(connection) == []
    assert database.query("SELECT count(*) FROM log_counts_minute") == [(0,)]


async def test_a_reader_of_an_old_day_holds_up_that_day_alone(
    connection: Connection, owner: Connection, database: Database
) -> None:
    await append(connection, [row for days in range(4) for row in rows(5, days)])
    now = BASE + 93 * DAY
    # It reads what is neither the newest nor the oldest of those that go.
    with psycopg.connect(database.store) as reader:
        reader.execute("SELECT count(*) FROM log_entries_90_20260311")
        with pytest.raises(StoreError, match=r"the expired partition log_entries_90_20260311 can't be dropped: .*lock"):
            await drop_expired(owner, now)
        assert [leaf.name for leaf in await leaves(owner)] == ["log_entries_90_20260313", "log_entries_90_20260311"]
        # Others go on meanwhile.
        await append(connection, rows(1, days=3))
        assert len(await everything(connection)) == 11
    assert await drop_expired(owner, now) == ["log_entries_90_20260311"]
    assert len((await find(connection, LogFilter(), 100)).entries) == 6


async def test_a_detaching_that_was_broken_off_is_finished_first(
    connection: Connection, owner: Connection, database: Database
) -> None:
    await append(connection, [row for days in range(4) for row in rows(5, days)])
    with psycopg.connect(database.store) as reader:
        # A query of the whole table, but for that day: detaching waits for it, half done.
        reader.execute("SELECT count(*) FROM log_entries WHERE timestamp >= '2026-03-13' AND retention = 90")
        with pytest.raises(StoreError, match="lock timeout"):
            await drop_expired(owner, BASE + 91 * DAY)
    assert database.query("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending") == [(LEAF,)]
    # Meanwhile more have expired, on both sides of it in every order.
    await append(connection, rows(1, days=-1))
    dropped = await drop_expired(owner, BASE + 93 * DAY)
    assert dropped[0] == LEAF
    assert sorted(dropped) == [f"log_entries_90_202603{day:02}" for day in (9, 10, 11, 12)]
    assert len(await everything(connection)) == 5


@pytest.mark.usefixtures("small")
async def test_without_trigrams_days_are_sealed_and_searched(
    connection: Connection, owner: Connection, database: Database
) -> None:
    assert await has_trigrams(owner)
    with psycopg.connect(database.cluster.conninfo("postgres", database.name), autocommit=True) as superuser:
        superuser.execute("DROP EXTENSION pg_trgm CASCADE")
    assert not await has_trigrams(owner)
    await append(connection, rows(120))
    assert await seal(owner, OVER, lambda *_: True, False) == [LEAF]
    assert indexes(database) == {f"{LEAF}_trace"}
    assert len((await find(connection, LogFilter(text="line 11"), 500)).entries) == 11
    assert (await find(connection, LogFilter(text="absent"), 500)).entries == ()


async def test_the_loop_goes_on_past_what_fails(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(retention, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(sealing, "_LOCK_TIMEOUT", "100ms")
    now = datetime.now(UTC)
    old, over = now - 95 * DAY, now - 2 * DAY
    await append(connection, [LogRow(old, "codex", "INFO", "old"), LogRow(over, "codex", "INFO", "over")])
    tidied = 0

    async def tidy(_: Connection) -> None:
        nonlocal tidied
        tidied += 1

    async def nothing() -> None:
        pass

    database.query("UPDATE log_partitions SET begun_up = begun_up - 1000000000 RETURNING 1")
    monkeypatch.setattr(retention_policy, "HOLD_SECONDS", 0)
    caplog.set_level(logging.INFO)
    with psycopg.connect(database.store) as reader:
        reader.execute(f"SELECT count(*) FROM log_entries_90_{old:%Y%m%d}".encode())
        loop = asyncio.create_task(StoreMaintenance(database.owner, nothing, lambda: [90, 7], [tidy]).run())
        try:
            async with asyncio.timeout(WITHIN):
                # The day that somebody reads stays; all else is done.
                while (
                    database.query("SELECT count(*) FROM log_partitions WHERE sealed") != [(2,)]
                    or database.query("SELECT count(*) FROM log_partitions") != [(8,)]
                    or not tidied
                    or "can't be dropped" not in caplog.text
                ):
                    await asyncio.sleep(0.05)
                reader.rollback()
                while "has expired and was dropped" not in caplog.text:
                    await asyncio.sleep(0.05)
                assert database.query("SELECT count(*) FROM log_partitions") == [(7,)]
                database.kill_backends("helm maintenance")
                before = tidied
                await eventually(lambda: tidied >= before + 2)
        finally:
            loop.cancel()
            await asyncio.wait({loop})
    assert "has expired and was dropped" in caplog.text
