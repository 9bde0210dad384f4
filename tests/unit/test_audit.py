"""The audit trail in real journal files: what Helm recorded, and what others wrote to look like it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from helmd.journal.actions import record, record_change
from helmd.journal.keys import JournalKeys
from helmd.model.identity.audit import AuditedChange, AuditEntry
from helmd.model.identity.origin import Origin
from helmd.model.layout import Layout, layout
from helmd.operations.logs import audit_live
from helmd.operations.logs.audit import AuditQuery, JournalPart, audit_entries, audit_place
from helmd.operations.logs.audit_live import follow_audit
from tests.store.journals import SECOND, UID, append, continue_numbers, line
from tests.waiting import WITHIN

CHANGE = AuditedChange(
    "POST /api/tokens",
    "refused",
    "amira",
    reason="for CI",
    detail="peer_refused: hivematrix-codex.service may not",
    origin=Origin("token", "192.0.2.9", "hivematrix-codex.service", "0a1b2c"),
)

EVERYTHING = AuditQuery()
NOW = 1_772_000_000_000_000


class Journal:
    """A journal that records go into."""

    def __init__(self, directory: Path) -> None:
        self.places: Layout = replace(layout({}, directory, UID, directory), uid=UID)
        self.keys = JournalKeys(self.places.journal_keys)
        self.files = directory / "journal"
        self.files.mkdir()
        self.sent: list[dict[str, str]] = []
        self._lines: list[bytes] = []

    def sendv(self, *fields: bytes) -> None:
        """As sd_journal_sendv(3)."""
        self.sent.append(dict(field.decode().split("=", 1) for field in fields))

    def receive(self, fields: Mapping[str, str], unit: str | None = "session-3.scope", late: int = 0) -> None:
        """What journald makes of FIELDS from a process in UNIT; None if the process is gone."""
        self._lines.append(_as_line(fields, len(self._lines), unit, late))

    def entries(self, wanted: AuditQuery = EVERYTHING, limit: int = 100) -> list[AuditEntry]:
        return self.part(wanted, limit).entries

    def part(self, wanted: AuditQuery = EVERYTHING, limit: int = 100) -> JournalPart:
        self.flush()
        return audit_entries(self.places, {"nightly"}, wanted, limit, self.files)

    def flush(self) -> None:
        """Write what was received."""
        if self._lines:
            append(self.files / "test.journal", self._lines)
            self._lines.clear()

    def changes(self, wanted: AuditQuery = EVERYTHING, limit: int = 100) -> list[AuditedChange]:
        return [entry.change for entry in self.entries(wanted, limit)]


def _as_line(fields: Mapping[str, str], number: int, unit: str | None, late: int) -> bytes:
    given = {**fields, "_TRANSPORT": "journal", "_SYSTEMD_USER_UNIT": unit or ""}
    message = given.pop("MESSAGE")
    realtime = int(given["HIVEMATRIX_WRITTEN"]) + 1 + late
    made = line(message, SECOND + number, realtime=realtime, fields=given)
    return made if unit else made.replace(b"_SYSTEMD_USER_UNIT=\n", b"")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    made = Journal(tmp_path)
    monkeypatch.setattr("systemd._journal.sendv", made.sendv)
    return made


def test_a_change_is_read_as_it_was_recorded(journal: Journal) -> None:
    record_change(journal.keys, CHANGE, "helmd")
    record(journal.keys, "restart", "core", "done", "by hand", actor="helmctl", on_behalf_of="hive", detail="healthy")
    for fields in journal.sent:
        journal.receive(fields)
    newest, oldest = journal.entries()
    assert oldest.change == CHANGE
    assert newest.change == AuditedChange("restart", "done", "hive", "core", "by hand", "healthy")
    assert newest.host == "testhost" and newest.time > oldest.time
    assert oldest.body.unit == "hivematrix-codex.service"


def forged(fields: Mapping[str, str], **changes: str) -> dict[str, str]:
    return {**fields, **changes}


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: forged(fields, HIVEMATRIX_ACTOR="nobody"),
        lambda fields: forged(fields, HIVEMATRIX_UNIT="session-1.scope"),
        lambda fields: forged(fields, HIVEMATRIX_RESULT="done"),
        lambda fields: forged(fields, HIVEMATRIX_HMAC="0" * 64),
        lambda fields: forged(fields, HIVEMATRIX_SESSION="more"),
        lambda fields: {name: value for name, value in fields.items() if name != "HIVEMATRIX_HMAC"},
        lambda fields: {name: value for name, value in fields.items() if name != "HIVEMATRIX_REASON"},
    ],
    ids=["actor", "unit", "result", "signature", "session", "unsigned", "less"],
)
def test_what_helm_did_not_sign_is_not_shown(
    journal: Journal, change: Callable[[Mapping[str, str]], Mapping[str, str]]
) -> None:
    record_change(journal.keys, CHANGE, "helmd")
    journal.receive(change(journal.sent[0]))
    assert journal.entries() == []
    journal.receive(journal.sent[0])
    assert journal.changes() == [CHANGE]


@pytest.mark.parametrize("unit", ["hivematrix-codex.service", None], ids=["service", "process that is gone"])
def test_a_copy_of_a_record_changes_nothing(journal: Journal, unit: str | None) -> None:
    record_change(journal.keys, CHANGE, "helmd")
    journal.receive(journal.sent[0])
    once = journal.entries()
    journal.receive(journal.sent[0], unit, late=SECOND)
    assert journal.entries() == once


def recorded(journal: Journal, changes: Sequence[AuditedChange]) -> None:
    for change in changes:
        record_change(journal.keys, change, "helmd")
    for fields in journal.sent:
        journal.receive(fields)


def test_filters(journal: Journal) -> None:
    others = [replace(CHANGE, actor="bea"), replace(CHANGE, result="done"), replace(CHANGE, service="core")]
    recorded(journal, [CHANGE, *others])
    everything = [*reversed([CHANGE, *others])]
    assert journal.changes() == everything
    assert journal.changes(limit=2) == everything[:2]
    assert journal.changes(AuditQuery(who="bea")) == [others[0]]
    assert journal.changes(AuditQuery(result="done")) == [others[1]]
    assert journal.changes(AuditQuery(service="core")) == [others[2]]
    assert journal.changes(AuditQuery(service="core", who="bea")) == []
    newest = max(int(fields["HIVEMATRIX_WRITTEN"]) for fields in journal.sent)
    assert journal.changes(AuditQuery(since=newest)) == everything[:1]
    assert journal.changes(AuditQuery(until=newest)) == everything[1:]


def paged(journal: Journal, limit: int, wanted: AuditQuery = EVERYTHING) -> list[AuditEntry]:
    """Return all entries, read by pages."""
    found: list[AuditEntry] = []
    while page := journal.entries(wanted, limit):
        found += page
        wanted = replace(wanted, behind=audit_place(page[-1].cursor))
    return found


def test_pages_have_each_record_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in the same microsecond, and received by journald in another order and later."""
    monkeypatch.setattr("time.time_ns", lambda: NOW * 1000)
    changes = [replace(CHANGE, actor=f"user{number}") for number in range(20)]
    for change in changes:
        record_change(journal.keys, change, "helmd")
    monkeypatch.setattr("time.time_ns", lambda: (NOW + 5) * 1000)
    record_change(journal.keys, replace(CHANGE, actor="later"), "helmd")
    for number, fields in enumerate(journal.sent):
        journal.receive(fields, late=600 * SECOND if number in (3, 20) else number % 4)
    everything = journal.entries()
    assert everything[0].change.actor == "later" and len(everything) == 21
    for limit in (1, 2, 7, 20, 21):
        assert paged(journal, limit) == everything
    assert paged(journal, 3, AuditQuery(until=NOW)) == []
    assert [each.change.actor for each in paged(journal, 3, AuditQuery(since=NOW + 1))] == ["later"]


def test_the_clock_set_back_hides_no_records(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them after that than are asked for; journald begins a file with numbers that go on."""
    changes = {}
    for first, file in ((NOW + 3600 * SECOND, "before"), (NOW, "test")):
        for number in range(5):
            monkeypatch.setattr("time.time_ns", lambda at=first + number * SECOND: at * 1000)
            change = replace(CHANGE, actor=f"{file}{number}")
            changes[first + number * SECOND] = change
            record_change(journal.keys, change, "helmd")
            journal.receive(journal.sent[-1])
        journal.flush()
        if file == "before":
            (journal.files / "test.journal").rename(journal.files / "before.journal")
    continue_numbers(journal.files / "test.journal", journal.files / "before.journal", 6)
    everything = [changes[at] for at in sorted(changes, reverse=True)]
    assert journal.changes() == everything
    for limit in (1, 3, 4):
        assert journal.changes(limit=limit) == everything[:limit]
        assert [each.change for each in paged(journal, limit)] == everything
    assert journal.changes(AuditQuery(since=NOW + 3600 * SECOND + 1)) == everything[:4]
    assert journal.changes(AuditQuery(until=NOW + 3600 * SECOND), limit=2) == everything[5:7]


def test_a_job_is_explained_by_a_record_on_the_page_before(journal: Journal) -> None:
    record(journal.keys, "stop", "core", "done", actor="helmctl", on_behalf_of="hive")
    of_manager(journal, "hivematrix-core.service", "1", "stop", -2)
    of_manager(journal, "hivematrix-core.service", "1", "stop", -1, "done")
    assert [each.change.actor for each in journal.entries()] == ["outside Helm"]
    journal.receive(journal.sent[0])
    assert [each.change.actor for each in paged(journal, 1)] == ["hive"]


def test_without_a_key_nothing_is_believed(journal: Journal) -> None:
    recorded(journal, [CHANGE])
    journal.places.journal_keys.unlink()
    assert journal.entries() == []


def of_manager(journal: Journal, unit: str, job: str, kind: str, seconds: int, result: str = "") -> None:
    """A line of the user manager about a job, as long after the last record."""
    began = {"start": "7d4958e842da4a758f6c1cdc7b36dcc5", "stop": "de5b426a63be47a7b6ac3eaac82e2f6f"}
    ended = {"start": "39f53479d3a045ac8e11786248231fbf", "stop": "9d1aaa27d60140bd96365438aad20286"}
    written = int(journal.sent[-1]["HIVEMATRIX_WRITTEN"]) + seconds * SECOND
    fields = {
        "MESSAGE": f"{kind} {unit}",
        "MESSAGE_ID": (ended if result else began)[kind],
        "SYSLOG_IDENTIFIER": "systemd",
        "USER_UNIT": unit,
        "JOB_ID": job,
        "JOB_TYPE": kind,
        "HIVEMATRIX_WRITTEN": str(written),
    }
    journal.receive(fields | ({"JOB_RESULT": result} if result else {}), "init.scope")


def test_what_systemd_did_without_helm(journal: Journal) -> None:
    record(journal.keys, "restart", "core", "done", actor="helmctl", on_behalf_of="hive")
    journal.receive(journal.sent[0])
    for number, (unit, kind) in enumerate(
        [
            ("hivematrix-core.service", "stop"),
            ("hivematrix-nexus.service", "stop"),
            ("helmd.service", "stop"),
            ("hivematrix-job-1.service", "start"),
            ("hivematrix-nightly.service", "start"),
            ("other.service", "stop"),
        ]
    ):
        of_manager(journal, unit, str(number), kind, 0)
        of_manager(journal, unit, str(number), kind, 1, "done")
    outside = AuditedChange("stop", "done", "outside Helm", "nexus", origin=Origin("systemd"))
    own = AuditedChange("restart", "done", "hive", "core")
    assert journal.changes() == [outside, own]
    assert journal.changes(AuditQuery(who="outside Helm")) == [outside]
    assert journal.changes(limit=1) == [outside]


async def test_records_are_followed_as_they_come(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_live, "POLL_SECONDS", 0.05)
    others = [replace(CHANGE, actor=name) for name in ("a", "b", "c", "d")]
    for change in others:
        record_change(journal.keys, change, "helmd")
    for fields in journal.sent[:2]:
        journal.receive(fields)
    journal.flush()
    async with aclosing(follow_audit(journal.places, 10, journal.files)) as source, asyncio.timeout(WITHIN):
        assert [each.change for each in await anext(source)] == [others[1], others[0]]
        journal.receive(forged(journal.sent[2], HIVEMATRIX_ACTOR="nobody"))
        journal.receive(journal.sent[0], "hivematrix-codex.service", late=SECOND)
        journal.receive(journal.sent[2])
        journal.flush()
        assert [each.change for each in await anext(source)] == [others[2]], "neither a forged one nor a copy"
        journal.receive(journal.sent[3])
        journal.flush()
        assert [each.change for each in await anext(source)] == [others[3]]


def test_since_when_the_journal_has_all(journal: Journal) -> None:
    assert journal.part().since is None
    recorded(journal, [CHANGE, replace(CHANGE, actor="bea")])
    oldest = min(int(fields["HIVEMATRIX_WRITTEN"]) for fields in journal.sent) + 1
    assert journal.part(AuditQuery(who="bea")).since == oldest, "of what was not asked for, too"
