"""The last hours and days of all services, from a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest

from helmd.operations.logs.reader import LogReader
from helmd.operations.monitoring import service_history
from helmd.operations.monitoring.service_history import ServiceHistory
from helmd.store.metrics.metrics import MetricSample
from helmd.store.session import Connection, Pool
from tests.store.conftest import Database
from tests.store.stored import append, put_samples, random_rows
from tests.waiting import eventually


async def test_the_figures_of_every_service(owner: Connection, database: Database) -> None:
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    samples = [MetricSample("core", now - timedelta(minutes=n), "cpu_percent", float(n)) for n in range(5)]
    samples += [MetricSample("core", now - timedelta(minutes=90), "cpu_percent", 99.0)]
    samples += [
        MetricSample("core", now - timedelta(minutes=minutes), "restarts", float(count))
        for minutes, count in ((200, 7), (150, 9), (100, 0), (50, 1))
    ]
    yesterday = today - timedelta(hours=6)
    samples += [MetricSample("core", yesterday + timedelta(minutes=n), "health", 1.0 if n else 0.0) for n in range(4)]
    samples += [MetricSample("codex", now, "health", 1.0), MetricSample("codex", now, "cpu_percent", 5.0, {"x": "y"})]
    await put_samples(owner, samples)
    rows = [row._replace(timestamp=now - timedelta(minutes=n)) for n, row in enumerate(random_rows(400, 3, 1))]
    await append(owner, rows)
    async with Pool(database.store, "test") as pool:
        history = ServiceHistory(pool, LogReader(pool, database.store, lambda: False))
        records = await history.records()
        assert not history.trouble
        core = records["core"]
        assert core.cpu.values == (4.0, 3.0, 2.0, 1.0, 0.0) and core.restarts == 3
        day = core.days[yesterday.date()]
        assert (day.mean, day.least) == (0.75, 0.0) and core.last_trouble == day.below
        assert records["codex"].last_trouble is None and not records["codex"].cpu.values
        counted: dict[object, object] = {
            row[0]: row[1]
            for row in database.query(
                "SELECT service_name, count(*) FROM log_entries WHERE level IN ('ERROR', 'CRITICAL')"
                " AND timestamp > now() - interval '24 hours' GROUP BY 1"
            )
        }
        shown = {name: each.levels.get("ERROR", 0) + each.levels.get("CRITICAL", 0) for name, each in records.items()}
        assert all(shown[str(name)] >= int(str(number)) > 0 for name, number in counted.items()) and counted
        last: dict[object, object] = {
            row[0]: row[1]
            for row in database.query(
                "SELECT service_name, date_trunc('minute', max(timestamp)) FROM log_entries"
                " WHERE level IN ('ERROR', 'CRITICAL') GROUP BY 1"
            )
        }
        assert {name: each.last_error for name, each in records.items() if each.last_error} == last
        assert await history.records() is records, "it is kept for a while"


@pytest.mark.usefixtures("database")
async def test_a_store_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_history, "_READ_SECONDS", 0.5)
    async with Pool("host=/nonexistent dbname=x", "test") as pool:
        history = ServiceHistory(pool, LogReader(pool, "host=/nonexistent dbname=x", lambda: True))
        assert await history.records() == {}
        await eventually(lambda: history.trouble)
