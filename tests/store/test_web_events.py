"""GET /api/events: several topics in one stream, each as far as its reader may see, from a real PostgreSQL."""

from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from helmd.model.api.jobs import JobReply
from helmd.model.errors import StoreError
from helmd.operations.logs import feed
from helmd.operations.logs.reader import LogReader
from helmd.store.logs.entries import StoredEntry
from helmd.web.api import events as events_module
from tests.store.log_server import Events, Served, rows, serving, streaming
from tests.waiting import eventually

PATH = "/api/events"


async def data(events: Events, kind: str) -> Any:
    event = await events.next()
    assert event is not None and event.kind == kind, event
    return event.data


async def test_states_first_all_then_those_that_change(served: Served) -> None:
    async with streaming(served, "client", PATH) as events:
        first = await data(events, "status")
        assert {name: each["status"] for name, each in first["statuses"].items()} == {
            "core": "running",
            "codex": "stopped",
        }
        served.changed.notify()  # of nothing that is seen
        served.known.set("codex", True)
        served.changed.notify()
        found = await data(events, "status")
        assert ({name: each["status"] for name, each in found["statuses"].items()}, found["removed"]) == (
            {"codex": "running"},
            [],
        )
        served.known.set("codex", None)
        served.changed.notify()
        assert await data(events, "status") == {"statuses": {}, "removed": ["codex"]}


async def test_a_change_while_a_slow_reader_is_written_to_is_not_missed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = events_module._Writer.write

    async def written(writer: events_module._Writer, frames: bytes) -> None:
        await write(writer, frames)
        if frames.startswith(b"event: status"):
            monkeypatch.undo()
            served.known.set("codex", True)
            served.changed.notify()

    monkeypatch.setattr(events_module._Writer, "write", written)
    async with streaming(served, "client", PATH) as events:
        assert (await data(events, "status"))["statuses"]["codex"]["status"] == "stopped"
        assert (await data(events, "status"))["statuses"]["codex"]["status"] == "running"


async def test_the_newest_entries_come_though_the_store_was_away_first(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> list[StoredEntry]:
        monkeypatch.undo()
        raise StoreError("the log store is away")

    await served.append(rows(5))
    monkeypatch.setattr(LogReader, "last", away)
    async with streaming(served, "technician", PATH, topics="logs", tail="2") as events:
        assert (await data(events, "unavailable"))["topic"] == "logs"
        assert events.last_id is None, "a client that resumes there gets none of them"
        assert await events.messages(2) == ["line 3", "line 4"]


async def test_entries_and_states_in_one_stream_which_resumes(served: Served) -> None:
    async with streaming(served, "technician", PATH, topics="status,logs", service="core") as events:
        await data(events, "status")
        await eventually(lambda: served.feed.followers)
        await served.append([*rows(2), *rows(1, "codex")])
        assert [(await data(events, "log"))["message"] for _ in range(2)] == ["line 0", "line 1"]
        served.known.set("codex", True)
        served.changed.notify()
        await data(events, "status")
        last = events.last_id
    await served.append(rows(1, text="while away"))
    async with streaming(served, "technician", PATH, since=last, topics="logs", service="core") as events:
        assert await events.messages(1) == ["while away 0"]


async def test_a_topic_is_confined_as_its_own_routes_are(served: Served) -> None:
    async with streaming(served, "billing", PATH, topics="logs", tail="10") as events:
        await eventually(lambda: served.feed.followers)
        await served.append([*rows(1, "core"), *rows(1, "codex", text="for billing")])
        assert await events.messages(1) == ["for billing 0"]
    for role, topics, status, code in (
        ("client", "logs", 403, "denied"),
        ("technician", "status,jobs", 403, "denied"),
        ("admin", "status,weather", 400, "usage"),
    ):
        found, body = await served.get(PATH, role, topics=topics)
        assert (found, body["code"]) == (status, code)


def job(id: str, **values: Any) -> JobReply:
    """Return a job with these values; the others are of no interest here."""
    given: dict[str, Any] = {each.name: "" for each in fields(JobReply)}
    given |= {"id": id, "state": "running", "steps": (), "started_at": None, "ended_at": None, "result": None}
    return JobReply(**{**given, "requested_at": datetime.now(UTC), **values})


async def test_jobs(served: Served) -> None:
    served.jobs.append(first := job("00aa"))
    async with streaming(served, "admin", PATH, topics="jobs") as events:
        assert [each["id"] for each in (await data(events, "jobs"))["jobs"]] == ["00aa"]
        served.jobs[:] = [job("00bb"), first]
        assert [each["id"] for each in (await data(events, "jobs"))["jobs"]] == ["00bb"]
        served.jobs[:] = [job("00bb", requested_at=served.jobs[0].requested_at, state="succeeded")]
        found = await data(events, "jobs")
        assert ([each["state"] for each in found["jobs"]], found["removed"]) == (["succeeded"], ["00aa"])


async def test_without_the_store_states_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_READY_SECONDS", 1.0)
    async with serving(f"host={tmp_path} dbname=helm user=helm", tmp_path, heartbeat=0.5) as served:
        async with streaming(served, "admin", PATH, topics="logs,status") as events:
            kinds = set()
            for _ in range(2):
                event = await events.next()
                assert event is not None
                kinds.add(event.kind)
                if event.kind == "unavailable":
                    assert (event.data["topic"], event.data["code"]) == ("logs", "store")
            assert kinds == {"status", "unavailable"}
            served.known.set("codex", True)
            served.changed.notify()
            assert "codex" in (await data(events, "status"))["statuses"]
            assert events.comments, "what passes it on closes a silent connection"
