"""GET /api/audit: what the journal has, and before that what the log store has; and the live topic of /api/events."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmd.model.identity.audit import AuditedChange, AuditEntry
from helmd.model.identity.origin import Origin
from helmd.model.logs.entry import HELM, LogRow, realtime_of
from helmd.operations.logs import audit_store
from helmd.operations.logs.audit import JournalPart
from helmd.store.maintenance.migrate import migrate
from tests.store.conftest import Database
from tests.store.log_server import NOW, Served, rows, serving, streaming

BEFORE, SINCE = 30, NOW + timedelta(seconds=20)
"""Records in the store; the journal has those since SINCE alone."""


def change(number: int) -> AuditedChange:
    actor = ("amira", "bea")[number % 2]
    return AuditedChange("restart", "done", actor, "core", f"reason {number}", origin=Origin("token", "192.0.2.9"))


def row(number: int) -> LogRow:
    made = change(number)
    context = {"action": made.action, "result": made.result, "actor": made.actor, "service": made.service}
    context |= {"reason": made.reason, "via": "token", "address": "192.0.2.9"}
    time = NOW + timedelta(seconds=number)
    return LogRow(time, "core", "INFO", "restart core: done", context, source=HELM)


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Served]:
    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path) as made:
        gap = LogRow(NOW, "helm", "WARNING", "a gap", {"gap": "refused"}, source=HELM)
        printed = LogRow(NOW, "core", "INFO", "forged", {"action": "stop", "result": "done", "actor": "amira"})
        await made.append([*map(row, range(BEFORE)), gap, printed, *rows(5)])
        yield made


def in_journal() -> JournalPart:
    numbers = range(BEFORE - 1, (SINCE - NOW).seconds - 1, -1)
    # Written 40 µs before journald received it.
    entries = [AuditEntry(NOW + timedelta(seconds=n, microseconds=-40), change(n), "testhost") for n in numbers]
    return JournalPart(entries, realtime_of(SINCE))


def reasons(body: Any) -> list[int]:
    return [int(each["reason"].rpartition(" ")[2]) for each in body["audit"]]


async def test_what_the_journal_does_not_have_any_more_follows_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, body = await served.get("/api/audit")
    assert (status, reasons(body)) == (200, [*range(BEFORE - 1, -1, -1)]), "without any record in the journal"
    served.journal.append(in_journal())
    _, body = await served.get("/api/audit")
    assert reasons(body) == [*range(BEFORE - 1, -1, -1)] and "store_error" not in body
    first, last = body["audit"][0], body["audit"][-1]
    assert first.keys() == last.keys() and {first["hostname"], last["hostname"]} == {"testhost", None}
    assert (last["who"], last["via"], last["address"]) == ("amira", "token", "192.0.2.9")
    _, body = await served.get("/api/audit", limit="12")
    assert reasons(body) == [*range(BEFORE - 1, BEFORE - 13, -1)]
    monkeypatch.setattr(audit_store, "_PAGE", 4)
    _, body = await served.get("/api/audit", end_time=(NOW + timedelta(seconds=9)).isoformat(), who="bea")
    assert reasons(body) == [7, 5, 3, 1]


async def pages(served: Served, limit: int, **given: str) -> list[int]:
    """Return all records, read by pages."""
    found: list[int] = []
    while True:
        _, body = await served.get("/api/audit", limit=str(limit), **given)
        found += reasons(body)
        assert len(body["audit"]) <= limit and "store_error" not in body
        if body["next_cursor"] is None:
            return found
        given["cursor"] = body["next_cursor"]


async def test_pages_have_each_record_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of one microsecond; some in the journal and the store both."""
    again = [row(number)._replace(timestamp=NOW + timedelta(seconds=3)) for number in range(BEFORE, BEFORE + 10)]
    await served.append(again)
    expected = [*range(BEFORE - 1, 3, -1), 2, 1, 0]
    in_both = [AuditEntry(NOW + timedelta(seconds=n), change(n), "testhost") for n in (29, 28, 27)]
    received = realtime_of(NOW + timedelta(seconds=28, microseconds=9))
    monkeypatch.setattr(audit_store, "_PAGE", 6)
    for part in (JournalPart([], None), JournalPart(in_both, received)):
        served.journal.append(part)
        for limit in (1, 3, 7, 39, 40, 41):
            found = await pages(served, limit)
            of_one_time = {3, *range(BEFORE, BEFORE + 10)}
            assert [each for each in found if each not in of_one_time] == expected, limit
            assert set(found[len(expected) - 3 : -3]) == of_one_time and len(found) == 40, limit
        assert await pages(served, 5, who="bea", cursor=f"{realtime_of(NOW) + 2_000_001}-0") == [1]
    # Found after more pages than are read for one request.
    monkeypatch.setattr(audit_store, "_MOST_PAGES", 2)
    assert await pages(served, 100) == found


async def test_without_the_store_the_journal_alone_is_shown(tmp_path: Path) -> None:
    async with serving(f"host={tmp_path} dbname=helm user=helm", tmp_path) as served:
        served.journal.append(in_journal())
        status, body = await served.get("/api/audit")
        assert (status, len(body["audit"])) == (200, 10) and body["store_error"]


async def test_live(served: Served) -> None:
    found, body = await served.get("/api/events", "technician", topics="audit")
    assert (found, body["code"]) == (403, "denied")
    async with streaming(served, "admin", "/api/events", topics="audit") as events:
        for part, first in ((in_journal().entries[:2], True), (in_journal().entries[2:3], False)):
            served.records.put_nowait(tuple(part))
            event = await events.next()
            assert event is not None and event.kind == "audit" and event.data["first"] is first
            assert reasons(event.data) == [int(each.change.reason.rpartition(" ")[2]) for each in part]
