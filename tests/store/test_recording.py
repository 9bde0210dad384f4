"""Writing states and measurements to a real PostgreSQL, across outages."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from helmd.model.logs.entry import LogRow
from helmd.model.units.health_request import USER_AGENT
from helmd.operations.monitoring import recording
from helmd.operations.monitoring.line_rates import LineRates
from helmd.operations.monitoring.recording import Recorder
from helmd.store.ingest.ingested import stored_up_to
from helmd.store.ingest.logs import Appender
from helmd.store.maintenance.migrate import migrate
from helmd.store.metrics.metrics import MetricSample
from helmd.store.metrics.service_status import StatusRow
from helmd.store.session import Pool, connect
from tests.store.conftest import Database
from tests.waiting import eventually

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def samples(count: int, name: str = "cpu_percent") -> list[MetricSample]:
    return [MetricSample("core", NOW + timedelta(seconds=n), name, float(n)) for n in range(count)]


@asynccontextmanager
async def recording_to(database: Database) -> AsyncIterator[Recorder]:
    async def prepare() -> None:
        await migrate(database.owner, "helm")

    async with Pool(database.store, "test-recorder") as pool:
        recorder = Recorder(pool, prepare)
        task = asyncio.create_task(recorder.run())
        try:
            yield recorder
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def counted(database: Database, statement: str) -> int:
    try:
        return int(str(database.query(statement)[0][0]))
    except Exception:  # noqa: BLE001 - the server or the table is not there yet
        return -1


async def test_the_newest_state_and_every_sample_are_written(database: Database) -> None:
    async with recording_to(database) as recorder:
        recorder.statuses([StatusRow("core", "starting", NOW)])
        recorder.statuses([StatusRow("core", "running", NOW, 42, 5000, NOW, "healthy", "answered 200", 1.5, 60.0)])
        recorder.statuses([StatusRow("codex", "stopped", NOW)])
        recorder.samples(samples(7))
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_metrics") == 7)
    rows = database.query("SELECT service_name, status, pid, health_status FROM service_status ORDER BY 1")
    assert rows == [("codex", "stopped", None, None), ("core", "running", 42, "healthy")]


async def test_samples_of_an_outage_are_written_afterwards(database: Database) -> None:
    async with recording_to(database) as recorder:
        recorder.samples(samples(1))
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_metrics") == 1)
        database.cluster.stop()
        try:
            recorder.samples(samples(20, "memory_mb"))
            recorder.statuses([StatusRow("core", "error", NOW)])
            await eventually(lambda: bool(recorder.trouble))
            recorder.statuses([StatusRow("core", "running", NOW + timedelta(seconds=9))])
        finally:
            database.cluster.start()
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_metrics") == 21)
        await eventually(lambda: not recorder.trouble)
    assert database.query("SELECT status FROM service_status") == [("running",)]


async def test_the_queue_is_bounded_and_keeps_the_newest(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_SAMPLES", 10)
    async with recording_to(database) as recorder:
        recorder.samples(samples(8))
        recorder.samples(samples(25)[8:])
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_metrics") == 10)
    assert database.query("SELECT min(metric_value), max(metric_value) FROM service_metrics") == [(15.0, 24.0)]


async def test_statuses_of_removed_services_are_deleted(database: Database) -> None:
    async with recording_to(database) as recorder:
        recorder.statuses([StatusRow(name, "running", NOW) for name in ("core", "codex", "old")])
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_status") == 3)
        recorder.keep_only(["core", "codex"])
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_status") == 2)
        # As of a store that was restored, or of a transaction that was rolled back.
        columns = "service_name, status, last_checked"
        inserted = f"INSERT INTO service_status ({columns}) VALUES ('old', 'running', now()) RETURNING service_name"
        assert database.query(inserted) == [("old",)]
        recorder.samples(samples(1))
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_status") == 2)
        assert database.query("SELECT service_name FROM service_status ORDER BY 1") == [("codex",), ("core",)]
        # One that was added while the bus was away: its units are read later.
        recorder.statuses([StatusRow("new", "running", NOW)])
        await eventually(lambda: counted(database, "SELECT count(*) FROM service_status") == 3)
        recorder.samples(samples(3, "memory_mb"))
        written = "SELECT count(*) FROM service_metrics WHERE metric_name = 'memory_mb'"
        await eventually(lambda: counted(database, written) == 3)
    assert counted(database, "SELECT count(*) FROM service_status") == 3


async def add_lines(database: Database, counts: dict[str, int]) -> None:
    connection = await connect(database.owner, "test")
    try:
        async with connection.transaction():
            rows = [LogRow(NOW, name, "INFO", "x") for name, count in counts.items() for _ in range(count)]
            await Appender(lambda _: 90).append(connection, rows)
    finally:
        await connection.close()


async def test_line_rates_count_lines_since_the_previous_call(database: Database) -> None:
    await migrate(database.owner, "helm")
    await add_lines(database, {"core": 5})
    async with Pool(database.store, "test-rates") as pool:
        rates = LineRates(pool)
        assert await rates.take() is None, "what was there before says nothing about a rate"
        begun = time.monotonic()
        assert await rates.take() == {}
        await add_lines(database, {"core": 30, "codex": 10})
        await asyncio.sleep(0.5)
        found = await rates.take()
        assert found is not None
        assert 2.9 < found["core"] / found["codex"] < 3.1
        assert 30 / (time.monotonic() - begun) < found["core"] < 60
        database.cluster.stop()
        try:
            assert await rates.take() is None
        finally:
            database.cluster.start()


async def test_line_rates_leave_out_helms_own_checks(database: Database) -> None:
    await migrate(database.owner, "helm")
    checked = '127.0.0.1 - - [28/Nov/2026] "GET /up HTTP/1.0" 200 -'
    fields = {"client": "127.0.0.1", "method": "GET", "path": "/up", "protocol": "HTTP/1.0"}
    rows = [
        LogRow(NOW, "core", "DEBUG", checked),
        LogRow(NOW, "core", "DEBUG", "request", fields),
        LogRow(NOW, "core", "DEBUG", f'"GET / HTTP/1.1" "{USER_AGENT}"'),
        LogRow(NOW, "codex", "DEBUG", checked),
        LogRow(NOW, "codex", "DEBUG", "no access line"),
        LogRow(NOW, "codex", "INFO", checked),
    ]
    async with Pool(database.store, "test-rates") as pool:
        rates = LineRates(pool, lambda service: ("/up",) if service == "core" else ())
        begun = time.monotonic()
        await rates.take()
        connection = await connect(database.owner, "test")
        async with connection.transaction():
            await Appender(lambda _: 90).append(connection, rows)
        await connection.close()
        await asyncio.sleep(0.5)
        found = await rates.take()
        assert found is not None and list(found) == ["codex"]
        assert 3 / (time.monotonic() - begun) < found["codex"] <= 6
        assert list(rates.totals) == ["codex"] and rates.totals["codex"] == 3


async def test_how_far_the_journal_is_stored(database: Database) -> None:
    await migrate(database.owner, "helm")
    async with Pool(database.store, "test-position") as pool:
        async with pool.connection("testing") as connection:
            assert await stored_up_to(connection, "m", 7, "c") is None
        for boot, realtime in (("a", 100), ("b", 300), ("c", 200)):
            values = f"('m', 7, '{boot}', '', {realtime}, 1, 1, false), ('m', 8, '{boot}', '', 999, 1, 1, false)"
            database.query(
                "INSERT INTO journal_cursor (machine_id, uid, boot_id, cursor, realtime, monotonic, ties, finished)"
                f" VALUES {values} RETURNING 1"
            )
        async with pool.connection("testing") as connection:
            # That of this boot, whatever the clock was in an earlier one.
            assert await stored_up_to(connection, "m", 7, "c") == 200
