"""Measurements and the timeline of a service over the API, from a real PostgreSQL."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner, Result

from helmd.cli.metrics import metrics_command
from helmd.model.errors import UsageError
from helmd.model.logs.entry import LogRow
from helmd.store.metrics.metrics import MetricSample
from helmd.store.session import connect
from tests.store.log_server import Served
from tests.store.stored import put_samples

NOW = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=5)


async def put(served: Served, *samples: MetricSample) -> None:
    connection = await connect(served.conninfo, "test")
    try:
        await put_samples(connection, samples)
    finally:
        await connection.close()


def values(body: Any) -> list[tuple[str, float]]:
    return [(each["metric_name"], each["metric_value"]) for each in body["metrics"]]


async def test_metrics(served: Served) -> None:
    samples = [MetricSample("core", NOW + timedelta(seconds=n), "memory_mb", float(n)) for n in range(4)]
    other = MetricSample("core", NOW, "queue_length", 9.0, {"queue": "mail"})
    await put(served, *samples, other, MetricSample("codex", NOW, "memory_mb", 7.0))
    status, body = await served.get("/api/metrics/core", "technician")
    assert (status, body["service_name"]) == (200, "core")
    assert values(body)[:3] == [("memory_mb", 3.0), ("memory_mb", 2.0), ("memory_mb", 1.0)]
    assert len(body["metrics"]) == 5 and "truncated" not in body
    body = (await served.get("/api/metrics/core", metric_name="queue_length"))[1]
    assert values(body) == [("queue_length", 9.0)] and body["metrics"][0]["tags"] == {"queue": "mail"}
    body = (await served.get("/api/metrics/core", end_time=(NOW + timedelta(seconds=2)).isoformat()))[1]
    assert ("memory_mb", 2.0) not in values(body) and ("memory_mb", 1.0) in values(body)
    body = (await served.get("/api/metrics/core", metric_name="memory_mb", step="60"))[1]
    (mean,) = body["metrics"]
    assert (mean["metric_value"], mean["minimum"], mean["maximum"], mean["id"]) == (1.5, 0.0, 3.0, None)
    assert (mean["count"], mean["tags"], body["step"]) == (4, None, 60)
    both = [("memory_mb", 1.5), ("queue_length", 9.0)]
    for names in ("memory_mb,queue_length", "queue_length, memory_mb,nosuch"):
        assert sorted(values((await served.get("/api/metrics/core", metric_name=names, step="60"))[1])) == both
    body = (await served.get("/api/metrics/core", metric_name="queue_length", step="60"))[1]
    assert body["metrics"][0]["tags"] == {"queue": "mail"}
    assert (await served.get("/api/metrics/core", start_time=NOW.isoformat(), end_time=NOW.isoformat()))[0] == 200
    for odd in ({"start_time": "0001-01-01", "end_time": "9999-12-31T23:59:59"}, {"end_time": "1950-01-01"}):
        assert (await served.get("/api/metrics/core", **odd))[0] == 200
    assert datetime.fromisoformat(mean["timestamp"]) == NOW
    assert (await served.get("/api/metrics/core", "billing"))[0] == 403
    for wrong in (
        {"metric_name": "memory_mb,\0"},
        {"step": "0"},
        {"step": "x"},
        {"start_time": "yesterday"},
        {"step": "9" * 12},
        {"start_time": "2026-02-02", "end_time": "2026-02-01"},
    ):
        status, body = await served.get("/api/metrics/core", **wrong)
        assert (status, body["code"]) == (400, "usage")


async def run(served: Served, *words: str) -> Result:
    """helmctl metrics, by its owner."""
    layout = SimpleNamespace(socket=served.unix_socket)
    context = SimpleNamespace(suite_layout=layout, suite_or_installed=None, chosen_one=lambda name, *_, **__: name)
    return await asyncio.to_thread(CliRunner().invoke, metrics_command, list(words), obj=context)


async def test_helmctl_metrics(served: Served) -> None:
    samples = [MetricSample("core", NOW - timedelta(minutes=n), "memory_mb", 100.0 + n) for n in range(10) if n != 4]
    await put(served, *samples, MetricSample("core", NOW, "queue", -3.0, {"queue": "a\x1bb"}))
    times = ("--since", (NOW - timedelta(minutes=9)).isoformat(), "--until", (NOW + timedelta(minutes=1)).isoformat())
    done = await run(served, "core", *times, "--step", "1min")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[1].split() == ["memory_mb", "100", "104.556", "109", "100", "█████", "████"]
    assert lines[2].startswith("queue{queue=a\\x1bb}") and lines[2].endswith("         ▁")
    done = await run(served, "core", *times, "--json", "-m", "memory_mb", "-m", "nosuch")
    assert [each["metric_name"] for each in json.loads(done.output)["metrics"]] == ["memory_mb"] * 9
    done = await run(served, "core", "--since", "2020-01-01", "--until", "2020-01-02")
    assert (done.exit_code, done.output) == (0, "nothing was measured of core in that time\n")
    assert isinstance(
        (await run(served, "core", "--since", "2020-01-02", "--until", "2020-01-01")).exception, UsageError
    )
    assert isinstance((await run(served, "core", "--since", "2020-01-01", "--step", "1")).exception, UsageError)


async def test_timeline(served: Served) -> None:
    await served.append(
        [
            LogRow(NOW, "core", "INFO", "Started hivematrix-core.service.", source="systemd"),
            LogRow(NOW + timedelta(seconds=1), "core", "INFO", "a line of its own", source="journal"),
            LogRow(NOW + timedelta(seconds=2), "core", "WARNING", "restart core: begun", source="helm"),
            LogRow(NOW + timedelta(seconds=3), "codex", "INFO", "Started codex", source="systemd"),
        ]
    )
    status, body = await served.get("/api/services/core/timeline", "technician", limit="1")
    assert (status, [each["source"] for each in body["events"]]) == (200, ["helm"])
    body = (await served.get("/api/services/core/timeline", cursor=body["next_cursor"]))[1]
    assert [each["message"] for each in body["events"]] == ["Started hivematrix-core.service."]
    assert body["next_cursor"] is None
