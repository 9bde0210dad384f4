"""Metrics that are posted over real HTTP, in a real PostgreSQL: odd bodies, repeats, many series, the store away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from helmd.operations.monitoring import custom_metrics
from helmd.operations.monitoring.recording import Recorder
from helmd.store.ingest import measurements
from helmd.store.maintenance.migrate import migrate
from helmd.store.metrics.metrics import MetricSample
from helmd.store.session import Pool
from tests.store.conftest import Database
from tests.store.ingest_server import METRICS, Served, serving, user_token
from tests.store.proxy import Proxy
from tests.waiting import WITHIN, eventually

NOW = datetime.now(UTC)


def measured(**fields: Any) -> dict[str, Any]:
    return {"service_name": "codex", "metrics": [{"name": "queue.length", "value": 3, **fields}]}


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Served]:
    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path) as made:
        yield made


def stored(database: Database) -> list[tuple[object, ...]]:
    return database.query("SELECT metric_name, metric_value, tags FROM service_metrics ORDER BY id")


async def test_measurements(served: Served, database: Database) -> None:
    stamp = NOW - timedelta(hours=1)
    good = measured(timestamp=stamp.isoformat(), tags={"queue": "mail\0"})
    status, answer, _ = await served.post(good, path=METRICS)
    assert (status, answer["success"], answer["ingested"]) == (200, True, 1)
    row = ("codex", "queue.length", 3.0, stamp, {"queue": "mail\ufffd"})
    columns = "service_name, metric_name, metric_value, timestamp, tags"
    assert database.query(f"SELECT {columns} FROM service_metrics") == [row], "it is stored before the answer"
    assert (await served.post(measured(), path=METRICS, token="core"))[0] == 403
    assert (await served.post(measured(), path=METRICS, token=None))[0] == 401
    assert (await served.post(measured(), path=METRICS, token=user_token("technician")))[0] == 200
    flat = {"service_name": "codex", "name": "x", "value": -1.5}
    assert (await served.post(flat, path=METRICS))[0] == 200
    assert (await served.post({"service_name": "codex", "metrics": []}, path=METRICS))[1]["ingested"] == 0
    assert len(stored(database)) == 3
    latest = sorted((each.metric_name, each.metric_value) for each in served.measured.latest())
    assert latest == [("queue.length", 3.0), ("x", -1.5)], "what was measured an hour ago is old"
    series = "SELECT metric_name, tags, samples, total, minimum, maximum FROM metric_five_minutes"
    assert database.query(f"{series} JOIN metric_series ON metric_series.id = series ORDER BY 1, 2") == [
        ("queue.length", {}, 1, 3.0, 3.0, 3.0),
        ("queue.length", {"queue": "mail\ufffd"}, 1, 3.0, 3.0, 3.0),
        ("x", {}, 1, -1.5, -1.5, -1.5),
    ]


async def test_a_clock_that_was_ahead_hides_no_newer_measurements(served: Served) -> None:
    """Within one body the times decide."""
    at = [datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (5, 9, 7)]
    body = {
        "service_name": "codex",
        "metrics": [{"name": "x", "value": n, "timestamp": each.isoformat()} for n, each in enumerate(at)],
    }
    assert (await served.post(body, path=METRICS))[0] == 200
    assert [each.metric_value for each in served.measured.latest()] == [1.0]
    for value in (10, 11):
        assert (await served.post(measured(name="x", value=value), path=METRICS))[0] == 200
        assert [each.metric_value for each in served.measured.latest()] == [float(value)]


async def test_measurements_that_are_none(served: Served, database: Database) -> None:
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"service_name": "codex"}, "metrics: is missing"),
        ({"service_name": "codex", "metrics": {}}, "metrics: must be a list"),
        ({"service_name": "codex", "metrics": [1]}, "metrics[0]: must be an object"),
        (measured(name="1x"), "metrics[0].name"),
        (measured(name="x" * 101), "metrics[0].name"),
        (measured(name=None), "metrics[0].name"),
        (measured(value="3"), "metrics[0].value"),
        (measured(value=True), "metrics[0].value"),
        (measured(value=float("nan")), "metrics[0].value"),
        (measured(value=float("inf")), "metrics[0].value"),
        (measured(value=10**400), "metrics[0].value"),
        (measured(value=-1.1e300), "metrics[0].value"),
        (measured(tags=[]), "metrics[0].tags"),
        (measured(tags={"a": 1}), "metrics[0].tags"),
        (measured(tags={str(n): "x" for n in range(33)}), "metrics[0].tags"),
    ]
    for body, words in bodies:
        status, answer, _ = await served.post(body, path=METRICS)
        assert status == 400 and words in answer["error"], body
    assert stored(database) == []


async def test_a_repeat_stores_nothing_and_is_answered_as_the_first(served: Served, database: Database) -> None:
    two = {"service_name": "codex", "metrics": [{"name": "x", "value": n} for n in (1, 2)]}
    for body in (two, two, measured()):
        status, answer, _ = await served.post(body, path=METRICS, Idempotency_Key="a")
        assert (status, answer["ingested"]) == (200, 2)
    log = {"service_name": "codex", "logs": [{"message": "another kind"}]}
    assert (await served.post(log, Idempotency_Key="a"))[1]["ingested"] == 1
    assert database.query("SELECT count(*) FROM log_entries") == [(1,)]
    both = await asyncio.gather(*(served.post(two, path=METRICS, Idempotency_Key="b") for _ in range(5)))
    assert [answer["ingested"] for _, answer, _ in both] == [2] * 5
    assert len(stored(database)) == 4
    assert database.query("SELECT sum(samples) FROM metric_minutes") == [(4,)]


async def test_what_helm_measures_is_not_mixed_with_what_is_posted(served: Served, database: Database) -> None:
    for name, tags in (("cpu_percent", None), ("cpu_percent", {"core": "1"}), ("cpu_percents", None)):
        assert (await served.post(measured(name=name, tags=tags), path=METRICS))[0] == 200
    assert [row[2] for row in stored(database)] == [{"source": "posted"}, {"core": "1"}, None]


async def test_a_service_has_a_bounded_number_of_series(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "MOST_SERIES", 3)
    for number in (1, 2, 3, 3):
        assert (await served.post(measured(tags={"id": str(number)}), path=METRICS))[0] == 200
    status, answer, _ = await served.post(measured(tags={"id": "4"}), path=METRICS)
    assert (status, answer["code"]) == (400, "usage")
    assert "more than 3 series" in answer["error"]
    many = {"service_name": "core", "metrics": [{"name": f"m{n}", "value": 1} for n in range(4)]}
    assert (await served.post(many, path=METRICS, token="core"))[0] == 400
    assert (await served.post({**many, "metrics": many["metrics"][:3]}, path=METRICS, token="core"))[0] == 200
    # Those that were not stored for long do not count, the others go on.
    database.query('UPDATE metric_series SET last_day = current_date - 15 WHERE tags = \'{"id": "1"}\' RETURNING 1')
    assert (await served.post(measured(tags={"id": "4"}), path=METRICS))[0] == 200
    assert (await served.post(measured(tags={"id": "1"}), path=METRICS))[0] == 400
    monkeypatch.setattr(measurements, "MOST_OF_ALL", 6)
    monkeypatch.setattr(measurements, "MOST_SERIES", 100)
    assert (await served.post(measured(tags={"id": "9"}), path=METRICS))[0] == 400
    assert (await served.post(measured(tags={"id": "2"}), path=METRICS))[0] == 200
    assert len(stored(database)) == 9


async def test_while_the_store_is_away(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_metrics, "_ANSWER_SECONDS", 0.5)
    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path) as served:
        database.cluster.stop()
        try:
            for number in range(3):
                posted = measured(value=number)
                assert (await served.post(posted, path=METRICS, Idempotency_Key=f"k{number}"))[0] == 200
            assert (await served.post(measured(), path=METRICS, Idempotency_Key="k0"))[1]["ingested"] == 1
            await eventually(lambda: served.measured.trouble)
            monkeypatch.setattr(custom_metrics, "MAX_WAITING", 3)
            status, answer, _ = await served.post(measured(), path=METRICS)
            assert (status, answer["code"]) == (503, "store")
        finally:
            database.cluster.start()
        async with asyncio.timeout(WITHIN):
            while served.measured.trouble or len(stored(database)) < 3:
                await asyncio.sleep(0.05)
        assert [row[1] for row in stored(database)] == [0.0, 1.0, 2.0]
        assert (await served.post(measured(), path=METRICS, Idempotency_Key="k2"))[1]["ingested"] == 1
        assert len(stored(database)) == 3


async def test_a_commit_in_doubt_stores_once(database: Database, tmp_path: Path) -> None:
    await migrate(database.owner, "helm")
    async with Proxy(tmp_path, database.cluster.directory) as proxy:
        conninfo = database.cluster.conninfo("helm", database.name, tmp_path)
        async with serving(conninfo, tmp_path) as served, Pool(conninfo, "test-recorder") as pool:
            proxy.lose_answers_to_commit = 1
            assert (await served.post(measured(), path=METRICS))[1]["ingested"] == 1
            assert proxy.lost == 1
            recorder = Recorder(pool, nothing_to_prepare)
            proxy.lose_answers_to_commit = 1
            task = asyncio.create_task(recorder.run())
            recorder.samples([MetricSample("core", NOW, "cpu_percent", 5.0)])
            async with asyncio.timeout(WITHIN):
                while proxy.lost < 2 or len(stored(database)) < 2 or recorder.trouble:
                    await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
    assert [row[1] for row in stored(database)] == [3.0, 5.0]
    assert database.query("SELECT samples FROM metric_minutes") == [(1,), (1,)]


async def nothing_to_prepare() -> None:
    pass
