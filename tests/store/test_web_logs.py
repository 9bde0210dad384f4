"""GET /api/logs and what goes with it, over real sockets, from a real PostgreSQL."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from yarl import URL

from helmd.operations.logs import reader as log_reader
from helmd.web.api import logs
from tests.store.conftest import Database
from tests.store.log_server import HARD, NOW, SLOW, Served, rows, token
from tests.waiting import eventually

FIELDS = {"id", "timestamp", "service_name", "level", "message", "context", "trace_id", "user_id", "hostname"} | {
    "process_id",
    "source",
}


def messages(body: Any) -> list[str]:
    return [entry["message"] for entry in body["logs"]]


async def test_a_list_as_the_contract_has_it(served: Served) -> None:
    await served.append(rows(5))
    code, body = await served.get("/api/logs", limit="2")
    assert code == 200
    assert (body["total"], body["limit"], body["offset"]) == (5, 2, 0)
    assert messages(body) == ["line 4", "line 3"]
    assert body["logs"][0].keys() >= FIELDS
    assert body["logs"][0]["timestamp"] == (NOW + timedelta(milliseconds=4)).isoformat()
    older = (await served.get("/api/logs", limit="2", cursor=body["next_cursor"]))[1]
    assert messages(older) == ["line 2", "line 1"]
    last = (await served.get("/api/logs", limit="2", cursor=older["next_cursor"]))[1]
    assert (messages(last), last["next_cursor"]) == (["line 0"], None)
    assert messages((await served.get("/helm/api/logs", limit="2", offset="3"))[1]) == ["line 1", "line 0"]
    body = (await served.get("/api/logs", total="false"))[1]
    assert (body["total"], body["limit"], len(body["logs"])) == (None, 100, 5)
    assert "total_is_estimate" not in body and "searched_back_to" not in body


async def test_filters(served: Served) -> None:
    some = [
        *rows(2),
        *rows(2, "codex", "ERROR", "bad"),
        rows(1)[0]._replace(trace_id="t-1", user_id="u@x", stream="stderr", message="One thing"),
        rows(1)[0]._replace(source="http", message="posted", timestamp=NOW + timedelta(hours=1)),
    ]
    await served.append(some)

    async def found(**given: str) -> list[str]:
        code, body = await served.get("/api/logs", **given)
        assert code == 200, body
        assert body["total"] == len(body["logs"])
        return sorted(messages(body))

    assert await found(service="codex") == ["bad 0", "bad 1"]
    assert len(await found(service="codex,core")) == 6
    assert await found(level="error") == ["bad 0", "bad 1"]
    assert await found(level="WARNING") == []
    assert await found(min_level="warn") == ["bad 0", "bad 1"]
    assert await found(trace_id="t-1") == await found(user_id="u@x") == await found(stream="stderr") == ["One thing"]
    assert await found(q="THING") == await found(q="one thing", mode="words") == ["One thing"]
    assert await found(q="^o.e", mode="regex") == ["One thing"]
    assert await found(source="http") == ["posted"]
    assert await found(start_time="2026-01-02T04:04:05.5+00:00") == ["posted"]
    assert len(await found(end_time="2026-01-02T04:04:05")) == 5
    headers = {"Authorization": f"Bearer {token('admin')}"}
    async with served.session.get(served.url("/api/logs?service=core&service=codex"), headers=headers) as answer:
        assert len((await answer.json())["logs"]) == 6


BAD = [
    ("limit", "x"),
    ("limit", "0"),
    ("limit", "-1"),
    ("limit", "\u0661"),
    ("offset", "-1"),
    ("offset", "1e3"),
    ("cursor", "x"),
    ("total", "maybe"),
    ("start_time", "yesterday"),
    ("end_time", "2026-13-01"),
    ("level", "LOUD"),
    ("mode", "soundex"),
    ("source", "elsewhere"),
    ("stream", "stdin"),
    ("service", "../x"),
    ("trace_id", "a\0b"),
]


async def test_bad_values_are_named(served: Served) -> None:
    for name, value in BAD:
        code, body = await served.get("/api/logs", **{name: value})
        assert (code, body["code"]) == (400, "usage")
        assert body["error"].startswith(f"{name}: "), body["error"]


async def test_more_bad_values(served: Served) -> None:
    code, body = await served.get("/api/logs", q="(", mode="regex")
    assert (code, body["error"][:3]) == (400, "q: ")
    assert (await served.get("/api/logs?limit=1&limit=2"))[0] == 400
    assert (await served.get("/api/logs", limit="5000"))[1]["limit"] == 1000


async def test_one_entry(served: Served) -> None:
    last = (await served.append([*rows(1), *rows(1, "codex")])).last_id
    code, body = await served.get(f"/api/logs/{last}")
    assert (code, body["id"], body["service_name"]) == (200, last, "codex")
    for path in ("999999999", "9" * 40):
        code, body = await served.get(f"/api/logs/{path}")
        assert (code, body["code"], body["error"]) == (404, "unknown_entry", "there is no such log entry")
    assert (await served.get("/api/logs/x"))[0] == 404


async def test_billing_sees_its_services_alone(served: Served) -> None:
    last = (await served.append([*rows(1, "codex", text="codex"), *rows(2)])).last_id

    async def asked(path: str, **given: str) -> Any:
        return (await served.get(path, "billing", **given))[1]

    assert messages(await asked("/api/logs")) == ["codex 0"]
    assert (await asked("/api/logs"))["total"] == 1
    body = await asked("/api/logs", service="core")
    assert (body["logs"], body["total"]) == ([], 0)
    assert (await served.get(f"/api/logs/{last}", "billing"))[0] == 404
    assert (await served.get(f"/api/logs/{last - 2}", "billing"))[0] == 200
    buckets = (await asked("/api/logs/histogram", start_time=NOW.isoformat(), end_time="2026-01-02T05"))["buckets"]
    assert sum(bucket["total"] for bucket in buckets) == 1
    assert (await asked("/api/logs/export")).count(b"\n") == 1
    for path in ("/api/logs", "/api/logs/1", "/api/logs/histogram", "/api/logs/export", "/api/logs/stream"):
        assert (await served.get(path, "client"))[0] == 403
        assert (await served.get(path, None))[0] == 401


async def test_histogram(served: Served) -> None:
    await served.append([*rows(3), *rows(2, level="ERROR")])
    code, body = await served.get("/api/logs/histogram", start_time="2026-01-02T03:00Z", end_time="2026-01-02T04:00Z")
    assert (code, body["step_seconds"], len(body["buckets"])) == (200, 60, 60)
    assert body["buckets"][4] == {
        "start": "2026-01-02T03:04:00+00:00",
        "counts": {"INFO": 3, "ERROR": 2},
        "total": 5,
    }
    assert sum(bucket["total"] for bucket in body["buckets"]) == 5
    month = {"start_time": "2025-12-10", "end_time": "2026-01-10"}
    body = (await served.get("/api/logs/histogram", q="LINE 1", **month))[1]
    assert (body["step_seconds"], sum(bucket["total"] for bucket in body["buckets"])) == (6 * 3600, 2)
    body = (await served.get("/api/logs/histogram", step="1d", **month))[1]
    assert (body["step_seconds"], len(body["buckets"])) == (86400, 31)
    assert len((await served.get("/api/logs/histogram"))[1]["buckets"]) in (60, 61)
    assert (await served.get("/api/logs/histogram", start_time="0001-01-01"))[1]["step_seconds"] % (7 * 86400) == 0
    for bad in ({"step": "1s"}, {"step": "90"}, {"step": "soon"}, {"step": "1min"}, {"end_time": "2025-12-10"}):
        code, body = await served.get("/api/logs/histogram", **(month | bad))
        assert (code, body["code"]) == (400, "usage"), bad
    assert (await served.get("/api/logs/histogram", end_time="0001-01-01"))[0] == 400


async def test_pages_both_ways_by_their_links(served: Served) -> None:
    await served.append([*rows(7), *rows(3, "codex")])
    headers = {"Authorization": f"Bearer {token('technician')}"}

    async def page(url: str) -> tuple[list[str], dict[str, str]]:
        async with served.session.get(served.url("") + url, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            links = {name: URL(link["url"]).raw_path_qs for name, link in answer.links.items()}
            return messages(await answer.json()), links

    found, first = await page("/helm/api/logs?service=core&limit=3&total=false")
    assert found == ["line 6", "line 5", "line 4"] and first["next"].startswith("/helm/api/logs?service=core&limit=3")
    found, second = await page(first["next"])
    assert found == ["line 3", "line 2", "line 1"]
    found, third = await page(second["next"])
    assert (found, "next" in third) == (["line 0"], False)
    found, back = await page(third["prev"])
    assert found == ["line 3", "line 2", "line 1"], "those that directly follow"
    found, newest = await page(back["prev"])
    assert found == ["line 6", "line 5", "line 4"]
    assert await page(newest["prev"]) == ([], {})
    await served.append([rows(1)[0]._replace(timestamp=NOW + timedelta(days=3), message="days later")])
    assert (await page(newest["prev"]))[0] == ["days later"]
    found, _ = await page(newest["next"])
    assert found == ["line 3", "line 2", "line 1"]
    matching, _ = await page(f"/api/logs?q=line+5&after={third['prev'].partition('after=')[2]}")
    assert matching == ["line 5"]
    status, body = await served.get("/api/logs", after="1-1", cursor="1-1")
    assert (status, body["code"]) == (400, "usage")
    assert (await served.get("/api/logs", after="x"))[0] == 400


async def test_dashboard(served: Served) -> None:
    await served.append([rows(1, level="ERROR")[0]._replace(timestamp=now()) for _ in range(3)])
    # What a job prints is stored, but a job is not a service.
    await served.append([rows(1, "job-20261128-143501-5f3a9c")[0]._replace(timestamp=now())])
    code, body = await served.get("/api/dashboard/status", "client")
    assert code == 200
    assert {name: status["status"] for name, status in body["statuses"].items()} == {
        "core": "running",
        "codex": "stopped",
    }
    assert body["log_stats"] == {"core": {}, "codex": {}}, "clients see states, billing the counts of its services"
    assert (await served.get("/api/dashboard/status", "billing"))[1]["log_stats"] == {"core": {}, "codex": {}}
    body = (await served.get("/api/dashboard/status", "technician"))[1]
    assert body["log_stats"] == {"core": {"ERROR": 3}, "codex": {}}


def now() -> Any:
    return NOW.now(NOW.tzinfo)


async def test_export(served: Served) -> None:
    await served.append([*rows(5000), rows(1)[0]._replace(message='=1+1,"x"\n', service_name="codex")])
    headers = {"Authorization": f"Bearer {token('technician')}"}
    async with served.session.get(served.url("/api/logs/export?service=core"), headers=headers) as answer:
        assert answer.content_type == "application/x-ndjson"
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="helm-logs-')
        found = [json.loads(line) for line in (await answer.read()).splitlines()]
    assert [entry["message"] for entry in found] == [f"line {n}" for n in range(4999, -1, -1)]
    assert found[0].keys() >= FIELDS
    body = (await served.get("/api/logs/export", service="core", order="asc"))[1]
    assert json.loads(body.splitlines()[0])["message"] == "line 0"
    body = (await served.get("/api/logs/export", format="csv", service="codex"))[1]
    head, row = csv.reader(io.StringIO(body.decode()))
    assert dict(zip(head, row, strict=True))["message"].startswith("'=1+1")
    for given in ({"format": "xml"}, {"order": "up"}, {"q": "(", "mode": "regex"}):
        assert (await served.get("/api/logs/export", **given))[0] == 400
    async with served.session.head(served.url("/api/logs/export"), headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_an_export_that_breaks_off_does_not_end_cleanly(served: Served, database: Database) -> None:
    await served.append([row._replace(message="x" * 2000) for row in rows(20_000)])
    headers = {"Authorization": f"Bearer {token('admin')}"}
    with pytest.raises(aiohttp.ClientPayloadError):
        async with served.session.get(served.url("/api/logs/export"), headers=headers) as answer:
            await answer.content.readexactly(100_000)
            assert database.kill_backends("helmd-export") == 1
            while await answer.content.readany():
                pass


async def test_an_export_is_not_read_ahead_and_ends_with_its_client(
    served: Served, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await served.append([row._replace(message="x" * 2000) for row in rows(30_000)])
    headers = {"Authorization": f"Bearer {token('admin')}"}
    async with served.session.get(served.url("/api/logs/export"), headers=headers) as answer:
        await answer.content.readexactly(1000)
        fetching = "SELECT state FROM pg_stat_activity WHERE application_name = 'helmd-export'"
        waits = f"{fetching} AND state_change < clock_timestamp() - interval '0.5 s'"
        await eventually(lambda: database.query(waits) == [("idle in transaction",)])
        answer.close()
    await eventually(lambda: not database.query(fetching))
    assert not caplog.records


async def test_an_export_nobody_reads_gives_up_its_turn(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_STALLED_SECONDS", 0.5)
    await served.append([row._replace(message="x" * 2000) for row in rows(30_000)])
    headers = {"Authorization": f"Bearer {token('admin')}"}
    async with served.session.get(served.url("/api/logs/export"), headers=headers) as answer:
        await answer.content.readexactly(1000)
        exporting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'helmd-export'"
        await eventually(lambda: not database.query(exporting))
        with pytest.raises(aiohttp.ClientPayloadError):
            while await answer.content.readany():
                pass


async def test_who_goes_away_takes_the_query_along(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_reader, "SEARCH_SECONDS", 60.0)
    await served.append([row._replace(message=HARD) for row in rows(3)])
    active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'helmd-logs' AND state = 'active'"
    headers = {"Authorization": f"Bearer {token('admin')}"}
    given = {"q": SLOW, "mode": "regex"}
    answer = asyncio.ensure_future(served.session.get(served.url("/api/logs"), params=given, headers=headers))
    await eventually(lambda: database.query(active) == [(1,)])
    answer.cancel()
    await eventually(lambda: database.query(active) == [(0,)])
    assert (await served.get("/api/logs", limit="1"))[0] == 200
    assert not caplog.records


async def test_a_runaway_expression_ends_in_time_and_others_are_answered(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "SEARCH_SECONDS", 3600.0)
    last = (await served.append([row._replace(message=HARD) for row in rows(3)])).last_id
    async with searching(served, database):
        assert (await served.get(f"/api/logs/{last}"))[0] == 200
    monkeypatch.setattr(log_reader, "SEARCH_SECONDS", 0.5)
    slow = (served.get("/api/logs", q=SLOW, mode="regex", total="false") for _ in range(5))
    for code, body in await asyncio.gather(*slow):
        assert (code, body["error"][:3]) == (400, "q: ")


@asynccontextmanager
async def searching(served: Served, database: Database) -> AsyncIterator[None]:
    """As many searches as there may be go on meanwhile."""
    active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'helmd-logs' AND state = 'active'"
    slow = [asyncio.ensure_future(served.get("/api/logs", q=SLOW, mode="regex", total="false")) for _ in range(3)]
    await eventually(lambda: database.query(active) == [(3,)])
    yield
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    await eventually(lambda: database.query(active) == [(0,)])


async def test_too_many_searches_are_refused(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "_QUEUED_SECONDS", 0.05)
    monkeypatch.setattr(log_reader, "SEARCH_SECONDS", 3600.0)
    await served.append([row._replace(message=HARD) for row in rows(3)])
    async with searching(served, database):
        for code, body in await asyncio.gather(*(served.get("/api/logs", total="false") for _ in range(2))):
            assert (code, body["code"]) == (503, "busy")
    assert (await served.get("/api/logs", total="false"))[0] == 200
