"""Live followers: over real sockets, from a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter
from helmd.operations.logs import feed as feed_module
from helmd.operations.logs import reader as log_reader
from helmd.operations.logs.feed import Feed, FeedEndedError, Skipped, Subscription, batch_of, entry_json
from helmd.operations.logs.following import Start, follow_entries
from helmd.operations.logs.reader import LogReader
from helmd.store.logs.entries import StoredEntry
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import Pool
from helmd.web.auth import verifier
from helmd.web.http import cancellation as presence
from tests.store.conftest import STALLED, Database
from tests.store.log_server import HARD, SLOW, Served, rows, serving, streaming, token
from tests.store.proxy import Proxy
from tests.waiting import WITHIN, eventually


@pytest.fixture
async def without_polling(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """Yield a server that only what happens has do something: its time limits are far away."""
    monkeypatch.setattr(feed_module, "_POLL_SECONDS", 3600.0)
    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path, heartbeat=3600.0) as served:
        await served.feed.position()
        yield served


async def test_stored_entries_are_received_at_once(without_polling: Served) -> None:
    served = without_polling
    async with streaming(served) as events:
        assert events.answer.headers["Content-Type"] == "text/event-stream"
        assert events.answer.headers["X-Accel-Buffering"] == "no"
        assert await events.answer.content.readline() == b"retry: 2000\n"
        await served.append(rows(3))
        assert await events.messages(3) == ["line 0", "line 1", "line 2"]


async def test_entries_are_as_the_lists_give_them(served: Served) -> None:
    odd = "a\n\u2028\x7f\x1b[31m\N{PILE OF POO}"
    async with streaming(served) as events:
        await served.append([replace_message(odd)])
        event = await events.next()
    assert event is not None
    assert event.data == (await served.get(f"/api/logs/{event.id}"))[1]
    assert event.data["message"] == odd


def replace_message(text: str) -> LogRow:
    return rows(1)[0]._replace(message=text, context={"k": [text]}, trace_id="t")


async def test_each_gets_what_its_filter_takes(served: Served) -> None:
    async with (
        streaming(served, service="codex") as of_codex,
        streaming(served, min_level="error") as errors,
        streaming(served, q="LINE 1", mode="words") as words,
        streaming(served, q="^line [12]$", mode="regex") as expression,
        streaming(served, role="billing") as of_billing,
    ):
        await served.append([*rows(2), *rows(2, "codex", text="codex"), *rows(1, "core", "ERROR", "bad")])
        assert await of_codex.messages(2) == ["codex 0", "codex 1"]
        assert await errors.messages(1) == ["bad 0"]
        assert await words.messages(1) == ["line 1"]
        assert await expression.messages(1) == ["line 1"]
        assert await of_billing.messages(2) == ["codex 0", "codex 1"]
        await served.append(rows(3, text="line"))
        assert await expression.messages(2) == ["line 1", "line 2"]


async def test_a_follower_resumes_without_a_gap_or_a_double(served: Served) -> None:
    first = (await served.append(rows(1))).last_id
    appending = asyncio.create_task(append_slowly(served, 40, 50))
    received: list[str] = []
    last = first
    while len(received) < 2000:
        async with streaming(served, since=last) as events:
            for _ in range(min(97, 2000 - len(received))):
                event = await events.next()
                assert event is not None and event.kind == "log" and event.id is not None
                received.append(event.data["message"])
                last = event.id
    await appending
    assert received == [f"line {n}" for _ in range(40) for n in range(50)]


async def append_slowly(served: Served, times: int, count: int) -> None:
    for _ in range(times):
        await served.append(rows(count))
        await asyncio.sleep(0.01)


async def test_resuming_by_parameter_in_pages_and_with_a_filter(served: Served) -> None:
    first = (await served.append(rows(1))).last_id
    await served.append([*rows(1200), *rows(1, "codex", text="codex")])
    async with streaming(served, last_event_id=str(first)) as events:
        assert await events.messages(1201) == [f"line {n}" for n in range(1200)] + ["codex 0"]
    for given in ({"service": "codex"}, {"q": "^CODEX", "mode": "regex"}):
        async with streaming(served, since=first, **given) as events:
            assert await events.messages(1) == ["codex 0"]
            await served.append(rows(1, "codex", text="codex more"))
            assert await events.messages(1) == ["codex more 0"]
            await served.append(rows(0))
        first = events.last_id or 0
        await served.append(rows(1, "codex", text="codex"))


async def test_the_last_ones_first(served: Served) -> None:
    await served.append([*rows(5), *rows(5, "codex", text="codex")])
    async with streaming(served, tail="2", service="core") as events:
        assert await events.messages(2) == ["line 3", "line 4"]
        await served.append(rows(1, text="new"))
        assert await events.messages(1) == ["new 0"]


async def test_the_last_ones_come_once_though_many_are_stored_meanwhile(served: Served) -> None:
    await served.append(rows(5))
    async with Pool(served.conninfo, "test-tail", 2) as pool:
        reader = LogReader(pool, served.conninfo, lambda: False)
        async with aclosing(follow_entries(served.feed, reader, LogFilter(), Start(tail=10), 1.0)) as source:
            await anext(source)
            last = (await served.append(rows(600))).last_id
            found: list[int] = []
            async with asyncio.timeout(WITHIN):
                while await served.feed.position() < last:
                    await asyncio.sleep(0.01)
                async for update in source:
                    found += [line.id for batch in update.batches for line in batch.lines]
                    if update.reached >= last:
                        break
    assert found == list(range(last - 9, last + 1))


async def test_a_list_may_be_ahead_of_the_feed(database: Database, tmp_path: Path) -> None:
    await migrate(database.owner, "helm")
    (tmp_path / "proxy").mkdir()
    async with Proxy(tmp_path / "proxy", database.cluster.directory) as proxy:
        feeding = database.cluster.conninfo("helm", database.name, proxy.directory)
        async with serving(database.store, tmp_path, feeding=feeding) as served:
            await served.feed.position()
            await proxy.close()
            seen = (await served.append(rows(3))).last_id
            async with streaming(served, since=seen) as events:
                await proxy.open()
                await served.append(rows(2, text="new"))
                assert await events.messages(2) == ["new 0", "new 1"]
            # One that the store can't have given: it was restored to an earlier state.
            async with streaming(served, since=seen + 1000) as events:
                await served.append(rows(1, text="after"))
                assert await events.messages(1) == ["after 0"]


async def test_the_connection_breaks_and_nothing_is_missed(served: Served, database: Database) -> None:
    async with streaming(served) as events:
        for n in range(3):
            await served.append(rows(2, text=f"round {n}"))
            assert await events.messages(2) == [f"round {n} 0", f"round {n} 1"]
            assert database.kill_backends("helmd-feed") == 1
            await served.append(rows(2, text=f"between {n}"))
            assert await events.messages(2) == [f"between {n} 0", f"between {n} 1"]


async def test_unannounced_entries_are_found(
    served: Served, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setattr(feed_module, "_POLL_SECONDS", 0.1)
    async with streaming(served) as events:
        await served.append(rows(1))
        assert await events.messages(1) == ["line 0"]
        database.query(
            "INSERT INTO log_entries (timestamp, service_name, level, message, source)"
            " VALUES ('2026-01-02T03:04:05Z', 'core', 'INFO', 'by hand', 'journal') RETURNING 1"
        )
        assert await events.messages(1) == ["by hand"]


async def reached(feed: Feed, number: int) -> bool:
    return await feed.position() >= number


async def test_without_followers_nothing_is_read(served: Served) -> None:
    last = (await served.append(rows(10))).last_id
    await eventually(lambda: reached(served.feed, last))
    async with streaming(served) as events:
        await served.append(rows(1, text="new"))
        assert await events.messages(1) == ["new 0"]


async def test_the_feed_skips_ahead_in_a_flood(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BEHIND", 100)
    await served.append(rows(1))
    async with streaming(served, tail="1") as events:
        assert await events.messages(1) == ["line 0"]
        done = await served.append(rows(5000))
        event = await events.next()
        assert event is not None and event.kind == "skipped"
        assert event.data["from_id"] == done.first_id
        newest = [f"line {n}" for n in range(event.data["to_id"] - done.first_id + 1, 5000)]
        assert event.data["count"] == 5000 - len(newest)
        assert event.data["at_most"] is True
        assert await events.messages(len(newest)) == newest


async def test_a_slow_client_is_reported_and_holds_up_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "QUEUE_BYTES", 50_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1 << 24)
    writer.write(f"GET /api/logs/stream HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token('admin')}\r\n\r\n".encode())
    await reader.readuntil(b"id: 0\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    text = "x" * 10_000
    async with streaming(served) as events:
        for n in range(60):
            await served.append(rows(20, text=f"{n} {text}"))
            assert len(await events.messages(20)) == 20
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    await served.append(rows(1, text="at last"))
    raw = await asyncio.wait_for(reader.readuntil(b"at last"), WITHIN)
    assert b'event: skipped\ndata: {"from_id": ' in raw
    writer.close()


async def test_an_expression_that_runs_away_harms_only_its_follower(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "SEARCH_SECONDS", 1.0)
    async with streaming(served, q=SLOW, mode="regex") as slow, streaming(served) as events:
        done = await served.append([row._replace(message=HARD) for row in rows(3)])
        assert await events.messages(3) == [HARD] * 3
        event = await slow.next()
        assert event is not None and event.kind == "skipped"
        assert (event.data["to_id"], event.data["at_most"]) == (done.last_id, True)
        monkeypatch.undo()
        await served.append([rows(1)[0]._replace(message="xxxxy")])
        assert await slow.messages(1) == ["xxxxy"]


async def test_heartbeats_say_where_to_resume(database: Database, tmp_path: Path) -> None:
    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path, heartbeat=0.1) as served:
        async with streaming(served, service="codex") as events:
            last = (await served.append(rows(5))).last_id
            async with asyncio.timeout(WITHIN):
                while events.last_id != last:
                    assert await read_line(events)
        assert events.comments >= 1


async def read_line(events: object) -> bool:
    line = (await events.answer.content.readline()).decode()  # type: ignore[attr-defined]
    if line.startswith(":"):
        events.comments += 1  # type: ignore[attr-defined]
    if line.startswith("id: "):
        events.last_id = int(line[4:])  # type: ignore[attr-defined]
    return bool(line)


async def test_a_stream_ends_with_its_session(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_WATCH_SECONDS", 0.05)
    monkeypatch.setattr(presence, "_RECHECK_SECONDS", 0.1)
    monkeypatch.setattr(verifier, "VERDICT_SECONDS", 0.0)
    async with streaming(served, role="technician") as events, streaming(served) as others:
        await served.append(rows(1))
        assert await events.messages(1) == ["line 0"]
        served.core.revoked.add("technician")
        event = await events.next()
        assert event is not None
        assert (event.kind, event.data) == ("end", {"code": "bad_token", "error": "the session has ended"})
        assert await events.next() is None
        await served.append(rows(1, text="more"))
        assert await others.messages(2) == ["line 0", "more 0"]


async def test_streams_end_with_helmd_at_once(without_polling: Served) -> None:
    served = without_polling
    async with streaming(served) as events, streaming(served, q="x", mode="regex") as expression:
        served.running.cancel()
        assert await events.next() is None
        assert await expression.next() is None


async def test_what_is_wrong_from_the_beginning_is_answered_as_such(served: Served) -> None:
    for given, name in (
        ({"q": "(", "mode": "regex"}, "q"),
        ({"last_event_id": "x"}, "last_event_id"),
        ({"tail": "-1"}, "tail"),
        ({"min_level": "loud"}, "level"),
    ):
        code, body = await served.get("/api/logs/stream", **given)
        assert (code, body["code"]) == (400, "usage")
        assert body["error"].startswith(f"{name}: ")
    assert (await served.get("/api/logs/stream", role="client"))[0] == 403
    assert (await served.get("/api/logs/stream", role=None))[0] == 401
    assert (await served.get("/api/logs/ws"))[0] == 400


async def test_without_the_store_it_is_said_at_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_READY_SECONDS", 1.0)
    nowhere = f"host={tmp_path} dbname=helm user=helm"
    async with serving(nowhere, tmp_path) as served:
        for path in ("/api/logs/stream", "/api/logs", "/api/logs/histogram", "/api/logs/1", "/api/logs/export"):
            begun = time.monotonic()
            code, body = await served.get(path)
            assert (code, body["code"]) == (503, "store"), path
            assert time.monotonic() - begun < STALLED / 2, path
        code, body = await served.get("/api/dashboard/status", role="client")
        assert (code, body["log_stats"]) == (200, {"core": {}, "codex": {}})


async def test_websocket(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"Authorization": f"Bearer {token('technician')}"}
    async with served.session.ws_connect(served.url("/api/logs/ws?service=core"), headers=headers) as socket:
        await served.append([*rows(1, "codex"), *rows(1)])
        notified = await socket.receive_json(timeout=WITHIN)
        assert (notified["type"], notified["entry"]["message"], notified["entry"]["id"]) == (
            "log",
            "line 0",
            notified["id"],
        )
        assert notified["entry"] == (await served.get(f"/api/logs/{notified['id']}"))[1]
    own = {"Origin": f"http://127.0.0.1:{served.port}", **headers}
    async with served.session.ws_connect(
        served.url(f"/api/logs/ws?last_event_id={notified['id'] - 2}"), headers=own
    ) as socket:
        found = [(await socket.receive_json(timeout=WITHIN))["id"] for _ in range(2)]
        assert found == [notified["id"] - 1, notified["id"]]
        served.running.cancel()
        assert (await socket.receive(timeout=WITHIN)).type is aiohttp.WSMsgType.CLOSE
    for origin in ("http://evil.example", "null", "http://[", ""):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await served.session.ws_connect(served.url("/api/logs/ws"), headers={"Origin": origin, **headers})
        assert refused.value.status == 403
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await served.session.ws_connect(served.url("/api/logs/ws"))
    assert refused.value.status == 401


async def test_followers_are_counted_and_let_go(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_module, "MAX_FOLLOWERS", 2)
    monkeypatch.setattr(presence, "_WATCH_SECONDS", 0.05)
    async with streaming(served) as one, streaming(served):
        await eventually(lambda: served.feed.followers >= 2)
        code, body = await served.get("/api/logs/stream")
        assert (code, body["code"]) == (503, "busy")
        one.answer.close()
        await eventually(lambda: served.feed.followers != 2)
        async with streaming(served) as third:
            await served.append(rows(1))
            assert await third.messages(1) == ["line 0"]
    assert not caplog.records, "that a client goes away is not a fault"


def batch(first: int, last: int) -> feed_module.FeedBatch:
    return batch_of([entry_json(StoredEntry(n, rows(1)[0])) for n in range(first, last + 1)])


async def test_a_queue_is_bounded_and_says_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Subscription(1000)
    monkeypatch.setattr(feed_module, "QUEUE_BYTES", 3 * batch(1001, 1010).size)
    for first in (1001, 1011, 1021, 1031):
        queue.put(first + 9, batch(first, first + 9))
    update = await queue.next(1)
    assert (update.skipped, update.reached) == (Skipped(1001, 1030, 30), 1040)
    assert [each.lines[0].id for each in update.batches] == [1031]
    assert (await queue.next(0.001)).batches == ()
    queue.put(1050, None)
    assert (await queue.next(0.001)).reached == 1050
    queue.put(1055, batch(1051, 1055))
    queue.skip(Skipped(1056, 1100, 45, True))
    update = await queue.next(1)
    assert (update.skipped, update.batches, update.reached) == (Skipped(1051, 1100, 50, True), (), 1100)
    queue.end()
    with pytest.raises(FeedEndedError):
        await queue.next(1)


def test_equal_filters_are_one() -> None:
    assert LogFilter(services=frozenset({"a", "b"})) == replace(LogFilter(), services=frozenset({"b", "a"}))
