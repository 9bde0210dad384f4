"""A database that the older Helm made: its tables are kept, and their rows are taken over, each once."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from helmd.model.errors import StoreError
from helmd.model.logs.filter import LogFilter
from helmd.model.logs.retention import METRIC_DAYS
from helmd.store.ingest import takeover
from helmd.store.ingest.takeover import take_over
from helmd.store.logs.counts import total
from helmd.store.maintenance.migrate import migrate, migrations
from helmd.store.metrics.metrics import MetricSample
from helmd.store.session import connect
from tests.store.conftest import Database
from tests.store.stored import append, everything, find, put_samples, random_rows, read_samples, read_statuses

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
OLDER_SCHEMA = """
CREATE TABLE log_entries (
    id BIGSERIAL PRIMARY KEY, timestamp TIMESTAMP WITHOUT TIME ZONE NOT NULL, service_name VARCHAR(50) NOT NULL,
    level VARCHAR(20) NOT NULL, message TEXT NOT NULL, context JSONB, trace_id VARCHAR(36), user_id VARCHAR(100),
    hostname VARCHAR(255), process_id INTEGER);
CREATE INDEX ix_log_entries_timestamp ON log_entries (timestamp);
CREATE INDEX log_entries_time ON log_entries (service_name, timestamp);
CREATE TABLE service_status (
    id SERIAL PRIMARY KEY, service_name VARCHAR(50) NOT NULL UNIQUE, status VARCHAR(20) NOT NULL, pid INTEGER,
    port INTEGER, started_at TIMESTAMP, last_checked TIMESTAMP NOT NULL, health_status VARCHAR(20),
    health_message TEXT, cpu_percent FLOAT, memory_mb FLOAT);
CREATE TABLE service_metrics (
    id BIGSERIAL PRIMARY KEY, service_name VARCHAR(50) NOT NULL, timestamp TIMESTAMP NOT NULL,
    metric_name VARCHAR(100) NOT NULL, metric_value FLOAT NOT NULL, tags JSONB);
CREATE INDEX ix_service_metrics_timestamp ON service_metrics (timestamp);
"""
LOGS, METRICS = 2500, 3000


def older(database: Database, logs: int = LOGS) -> None:
    """The older Helm's tables with rows of the last days, one of each ten of them odd."""
    with psycopg.connect(database.owner, autocommit=True) as connection:
        connection.execute(OLDER_SCHEMA)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO log_entries (timestamp, service_name, level, message, context, trace_id, process_id)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [
                    (
                        (NOW - n * DAY * 80 / logs).replace(tzinfo=None),
                        ("Core", "codex", "odd name")[n % 3],
                        ("INFO", "warn", "Error", "nonsense")[n % 4],
                        f"older {n}",
                        json.dumps({"n": n}) if n % 2 else None,
                        f"t{n}",
                        n,
                    )
                    for n in range(logs)
                ],
            )
            cursor.execute("DELETE FROM log_entries WHERE id % 10 = 3")
            cursor.execute(
                "INSERT INTO log_entries (timestamp, service_name, level, message) VALUES"
                " ('infinity', 'core', 'INFO', 'no time'), ('1999-01-01', 'core', 'INFO', 'long ago')"
            )
            cursor.execute(
                "INSERT INTO service_status (service_name, status, last_checked, health_status, pid)"
                " VALUES ('core', 'running', now(), 'odd', 7), ('codex', 'stopped', now(), 'healthy', NULL)"
            )
            cursor.execute(
                "INSERT INTO service_metrics (service_name, timestamp, metric_name, metric_value, tags)"
                " SELECT 'core', (now() AT TIME ZONE 'UTC') - n * interval '10 minutes', 'cpu_percent', n, '{\"a\": 1}'"
                " FROM generate_series(0, %s) AS n",
                (METRICS - 1,),
            )


async def test_an_older_database_is_taken_over(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "_PAUSE", 0.0)
    older(database)
    before = database.query("SELECT id, message FROM log_entries ORDER BY id")
    assert await migrate(database.owner, "helm") == migrations()
    writer = await connect(database.store, "writer")
    fresh = (await append(writer, random_rows(50, 3))).first_id
    assert fresh > before[-1][0]  # type: ignore[operator]
    owner = await connect(database.owner, "maintenance")
    said: list[str] = []
    await take_over(owner, lambda _: 90, said.append, 200)
    assert database.query("SELECT id, message FROM older_log_entries ORDER BY id") == before
    taken = database.query("SELECT id, message FROM log_entries WHERE id < %s ORDER BY id", fresh)
    assert taken == [row for row in before if row[1] != "long ago"]
    entries = {entry.row.message: entry for entry in await everything(writer)}
    row = entries["older 5"].row
    assert (row.service_name, row.level, row.trace_id) == ("odd_name", "WARNING", "t5")
    assert entries["older 7"].row.level == "INFO"
    assert entries["older 7"].row.context is not None and entries["older 7"].row.context["n"] == 7
    assert abs(row.timestamp - (NOW - 5 * DAY * 80 / LOGS)) < timedelta(seconds=1)
    assert (await total(writer, LogFilter(), 5.0)).entries == len(taken) + 50
    assert len((await find(writer, LogFilter(text="older 24"), 300)).entries) == len(
        [m for _, m in taken if "older 24" in str(m)]
    )
    assert {status.service_name: status.health_status for status in await read_statuses(writer)} == {
        "core": None,
        "codex": "healthy",
    }
    samples = await read_samples(writer, "core", NOW - 30 * DAY, NOW + DAY)
    assert len(samples) == METRIC_DAYS * 144
    assert json.dumps(samples[0].tags) == '{"a": 1}'
    assert len(said) == 3
    await take_over(owner, lambda _: 90, said.append)
    assert len(said) == 3
    assert await migrate(database.owner, "helm") == ()
    await owner.close()
    await writer.close()


async def test_each_row_once_whenever_it_is_killed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "_PAUSE", 0.0)
    older(database, 600)
    await migrate(database.owner, "helm")
    step: Callable[..., object] = takeover._next_batch
    for killed_after in range(12):
        owner = await connect(database.owner, f"maintenance-{killed_after}")
        left = [killed_after % 3 + 1]

        async def some(*arguments: object) -> object:
            if not left[0]:  # noqa: B023
                database.kill_backends(f"maintenance-{killed_after}")  # noqa: B023
            left[0] -= 1  # noqa: B023
            return await step(*arguments)  # type: ignore[misc]

        monkeypatch.setattr(takeover, "_next_batch", some)
        with pytest.raises(StoreError):
            await take_over(owner, lambda _: 90, lambda _: None, 10)
        await owner.close()
    monkeypatch.setattr(takeover, "_next_batch", step)
    owner = await connect(database.owner, "maintenance")
    await take_over(owner, lambda _: 90, lambda _: None, 100)
    await owner.close()
    assert database.query("SELECT count(*), count(DISTINCT id) FROM log_entries") == [(541, 541)]
    assert database.query("SELECT count(*), count(DISTINCT timestamp) FROM service_metrics") == [(2016, 2016)]


async def test_a_table_of_somebody_else_is_left_alone(database: Database) -> None:
    with psycopg.connect(database.owner, autocommit=True) as connection:
        connection.execute("CREATE TABLE log_entries (what text)")
    with pytest.raises(StoreError, match="no Helm has made"):
        await migrate(database.owner, "helm")
    assert database.query(
        "SELECT to_regclass('log_entries') IS NOT NULL, to_regclass('schema_migrations') IS NULL"
    ) == [(True, True)]


async def test_metrics_of_the_version_before_are_taken_over(database: Database) -> None:
    await migrate(database.owner, "helm", migrations()[:3])
    database.query(
        "INSERT INTO service_metrics (service_name, timestamp, metric_name, metric_value)"
        " SELECT 'core', now() - n * interval '1 hour', 'cpu_percent', n FROM generate_series(0, 999) AS n RETURNING id"
    )
    await migrate(database.owner, "helm")
    writer = await connect(database.store, "writer")
    await put_samples(writer, [MetricSample("core", NOW, "memory_mb", 1.0)])
    owner = await connect(database.owner, "maintenance")
    await take_over(owner, lambda _: 90, lambda _: None)
    assert len(await read_samples(writer, "core", NOW - 90 * DAY, NOW + DAY)) == METRIC_DAYS * 24 + 1
    assert database.query("SELECT to_regclass('service_metrics_flat') IS NULL") == [(True,)]
    await owner.close()
    await writer.close()
