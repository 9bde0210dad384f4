"""Checks that helmd shows: one run for all who ask, results that are kept, failures as sentences, a hostile file."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import pytest

from helmd.cli import check as check_program
from helmd.journal.lines import PrintedLine
from helmd.model.api.json_codec import read_json, to_json
from helmd.model.api.security import SecurityAuditReply
from helmd.model.errors import BusError
from helmd.model.layout import Layout, layout
from helmd.model.security.findings import security_finding
from helmd.model.security.report import AuditFacts, audit_reply
from helmd.model.units.diagnostics import bad, ok
from helmd.model.units.doctor_report import DoctorReport, doctor_report
from helmd.model.units.unit_state import CLD_EXITED, CLD_KILLED, UnitFacts
from helmd.operations.diagnostics import latest as latest_module
from helmd.operations.diagnostics.latest import Glance, LatestCheck, keep_report
from helmd.operations.security.acceptances import AcceptanceStore
from helmd.operations.security.latest import AuditFailedError, AuditUnfinishedError, LatestAudit
from helmd.systemd.bus import Manager
from tests.waiting import WITHIN, eventually

NOW = datetime.now(UTC)
DAY = 86_400.0
"""A result that was made at NOW, when tests were collected, is not older."""
FINDING = security_finding("wide-binding", "core port 5000", "core is open", ["tcp 0.0.0.0:5000"], "bind it")
REPLY = audit_reply(AuditFacts(NOW, 0.5, [FINDING]), 1000)
REPORT = doctor_report([("clock", ok("it is right")), ("disk", bad("it is full", "Delete files."))], NOW)


INACTIVE = UnitFacts("", "loaded")


@dataclass
class FakeManager:
    """Plays systemd with one unit, in which ``run`` is done after ``seconds``."""

    run: Callable[[], None] = lambda: None
    seconds: float = 0.0
    end: UnitFacts = INACTIVE
    refusals: list[str] = field(default_factory=list)
    starts: int = 0
    ends_at: float | None = None
    looks: int = 0
    """How many times it was asked for the unit while that was running."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    """helmd asks in threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def start(self, unit: str) -> str:
        if self.refusals:
            raise BusError(self.refusals.pop(0))
        with self.turn:
            if self.ends_at is None:
                self.starts += 1
                self.ends_at = time.monotonic() + self.seconds
        return "/job/1"

    def facts(self, unit: str) -> UnitFacts:
        with self.turn:
            if self.ends_at is not None:
                if time.monotonic() < self.ends_at:
                    self.looks += 1
                    return UnitFacts(unit, "loaded", "activating", "start", job="/job/1")
                self.ends_at = None
                self.run()
        return replace(self.end, unit=unit)


def failed(result: str, code: int = CLD_EXITED, status: int = 1) -> UnitFacts:
    return UnitFacts(
        "", "loaded", "failed", "failed", result, exit_code=code, exit_status=status, changed_at=time.time(),
        invocation="0f", oneshot=True,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    made = layout({}, tmp_path, os.getuid(), Path(__file__).resolve().parents[2])
    made.secrets.mkdir(parents=True, mode=0o700)
    return made


@pytest.fixture(autouse=True)
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the unit printed; the journal of this machine has nothing of it."""
    lines: list[str] = []
    monkeypatch.setattr(latest_module, "last_lines", lambda *_, **__: [PrintedLine(0.0, line) for line in lines])
    return lines


def doctor(place: Layout, manager: FakeManager, wait: float = WITHIN) -> LatestCheck[DoctorReport]:
    connect = cast("Callable[[], Manager]", lambda: manager)
    return LatestCheck(place, "doctor", DoctorReport, "the check of this machine", "helmctl doctor", connect, wait)


def audit(place: Layout, manager: FakeManager, wait: float = WITHIN) -> LatestAudit:
    return LatestAudit(place, AcceptanceStore(place), cast("Callable[[], Manager]", lambda: manager), wait)


async def test_all_who_wait_get_one_run_and_later_ones_its_result(place: Layout) -> None:
    manager = FakeManager(lambda: keep_report(place, "audit", audit_reply(AuditFacts(datetime.now(UTC), 0.5, []), 1)))
    manager.seconds = 0.3
    latest = audit(place, manager)
    replies = await asyncio.gather(*(latest.reply(300) for _ in range(5)))
    assert all(reply == replies[0] for reply in replies) and manager.starts == 1
    assert await latest.reply(300) == replies[0] and await audit(place, manager).reply(300) == replies[0]
    assert manager.starts == 1, "a helmd that was restarted knows the result as well"
    assert (await latest.reply(0)).checked_at > replies[0].checked_at and manager.starts == 2
    assert place.last_check("audit").stat().st_mode & 0o777 == 0o600


async def test_a_run_that_another_helmd_began_is_waited_for(place: Layout) -> None:
    manager = FakeManager(lambda: keep_report(place, "audit", REPLY), 10 * WITHIN)
    manager.start("")
    waiting = asyncio.create_task(audit(place, manager).reply(0))
    await eventually(lambda: manager.looks)
    manager.ends_at = 0.0
    assert await waiting == REPLY and manager.starts == 1


async def test_acceptances_are_those_of_now(place: Layout) -> None:
    keep_report(place, "audit", REPLY)
    latest, store = audit(place, FakeManager()), AcceptanceStore(place)
    store.accept(FINDING, "known", NOW + timedelta(days=1), "hive")
    accepted = await latest.reply(DAY)
    assert accepted.findings[0].accepted is not None and accepted.summary.accepted == 1
    place.accepted_findings.write_text("garbage")
    damaged = await latest.reply(DAY)
    assert damaged.findings[0].accepted is None and "can't be used" in damaged.unchecked[0]


async def test_nobody_waits_longer_than_the_gateway_does(place: Layout) -> None:
    manager = FakeManager(lambda: keep_report(place, "audit", REPLY), 60)
    with pytest.raises(AuditUnfinishedError, match=r"within 0\.1 s"):
        await audit(place, manager, wait=0.1).reply(300)
    keep_report(place, "audit", REPLY)
    assert await audit(place, manager, wait=0.1).reply(0) == REPLY, "the last one, while a new one runs"
    assert manager.starts == 1


@pytest.mark.parametrize(
    ("end", "lines", "sentence"),
    [
        (failed("exit-code"), ["error: no suite", "Run: helmctl setup"], "the security audit failed: no suite"),
        (failed("exit-code"), ["Traceback"], "the security audit exited with code 1"),
        (failed("signal", CLD_KILLED, 9), [], "the security audit was killed by SIGKILL"),
        (failed("oom-kill", CLD_KILLED, 9), [], "the security audit was killed by the OOM killer"),
        (failed("timeout", CLD_KILLED, 15), [], "the security audit did not end in time and was killed"),
        (UnitFacts("", "loaded"), [], "the security audit was stopped"),
    ],
)
async def test_a_run_that_gave_no_result_is_said(
    place: Layout, printed: list[str], end: UnitFacts, lines: list[str], sentence: str
) -> None:
    printed += lines
    end = replace(end, changed_at=time.time())
    manager = FakeManager(end=end)
    latest = audit(place, manager)
    old = replace(REPLY, checked_at=NOW - timedelta(hours=1))
    keep_report(place, "audit", old)
    with pytest.raises(AuditFailedError) as caught:
        await latest.reply(300)
    assert caught.value.sentence == sentence and "journalctl --user-unit helmd-check@audit" in caught.value.hint
    if end.active_state == "failed":
        seen = await latest.glance(300)
        assert seen.failure is not None and seen.failure.sentence == sentence
        assert (seen.report, manager.starts) == (old, 1), "the result before it is kept, and it is not tried again"
        assert (await latest.glance(0)).running and manager.starts == 2, "a user asks for it"
        manager.end = replace(end, changed_at=time.time() - 61)
        assert (await latest.glance(300)).running and manager.starts == 3


async def test_a_newer_result_ends_a_failure(place: Layout) -> None:
    """helmctl, or a later run, has made one; systemd still has the unit as failed."""
    manager = FakeManager(end=replace(failed("exit-code"), changed_at=NOW.timestamp() - 5))
    keep_report(place, "doctor", REPORT)
    assert await doctor(place, manager).known() == Glance(REPORT)


async def test_a_manager_that_does_not_answer(place: Layout) -> None:
    manager = FakeManager(refusals=["no answer", "no answer"], run=lambda: keep_report(place, "doctor", REPORT))
    assert (await doctor(place, manager).newest(0)).report == REPORT, "it is asked again"
    manager.refusals += ["Unit helmd-check@doctor.service not found."] * 6
    for seen in (await doctor(place, manager).glance(-1), await doctor(place, manager).newest(-1)):
        assert seen.report == REPORT and seen.failure is not None
        assert "could not be started: Unit helmd-check@doctor.service not found." in seen.failure.sentence


class Away(FakeManager):
    def facts(self, unit: str) -> UnitFacts:
        raise BusError("systemd does not answer")


async def test_what_is_kept_is_shown_without_a_manager(place: Layout) -> None:
    keep_report(place, "doctor", REPORT)
    assert await doctor(place, Away()).glance(DAY) == Glance(REPORT)
    assert (await doctor(place, Away(), wait=0.1).newest(-1)).report == REPORT


def changed(**members: object) -> str:
    return json.dumps({**to_json(REPORT), **members})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        changed(healthy="yes"),
        changed(checked_at="tomorrow"),
        changed(checked_at=5),
        changed(findings={"check": "disk"}),
        changed(findings=[{"check": "disk", "verdict": "good", "sentence": "", "fix": ""}]),
        changed(findings=[{"check": "disk", "verdict": ["bad"], "sentence": "", "fix": ""}]),
        changed(findings=[{"check": "disk", "verdict": "bad", "sentence": 1, "fix": ""}]),
        changed(findings=[{"check": "disk", "verdict": "bad"}]),
    ],
    ids=range(12),
)
async def test_nothing_is_believed_of_the_file(place: Layout, text: str) -> None:
    path = place.last_check("doctor")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    manager = FakeManager(run=lambda: keep_report(place, "doctor", REPORT))
    seen = await doctor(place, manager).glance(300)
    assert seen.report is None and seen.failure is not None and str(path) in seen.failure.sentence
    assert manager.starts == 0, "what a run wrote just now is not written again at once"
    assert (await doctor(place, manager).newest(300)).report == REPORT


async def test_a_file_of_others_is_not_read(place: Layout, tmp_path: Path) -> None:
    keep_report(place, "doctor", REPORT)
    path = place.last_check("doctor")
    path.chmod(0o622)
    seen = await doctor(place, FakeManager()).known()
    assert seen.failure is not None and "other accounts can write it" in seen.failure.sentence
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert (await doctor(place, FakeManager()).known()).report is None


async def test_a_result_from_the_future_is_old(place: Layout) -> None:
    keep_report(place, "doctor", replace(REPORT, checked_at=NOW + timedelta(days=1)))
    assert (await doctor(place, FakeManager(seconds=9)).glance(300)).running


@pytest.mark.parametrize("reply", [REPLY, replace(REPLY, severity=None)])
def test_what_is_kept_is_what_is_read(reply: SecurityAuditReply) -> None:
    assert read_json(SecurityAuditReply, json.loads(json.dumps(to_json(reply)))) == reply


def test_the_program_of_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_program.main(["doctor"]) == 0
    written: dict[str, Any] = json.loads((tmp_path / ".local/state/hivematrix/last-doctor.json").read_text())
    assert {each["check"] for each in written["findings"]} >= {"set-up", "disk"} and written["healthy"] is False
    assert check_program.main(["audit"]) == 1
    assert "has no suite here" in capsys.readouterr().err
    assert check_program.main(["audit", "doctor"]) == check_program.main([]) == check_program.main(["why"]) == 2


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/state/last-doctor.json")

    monkeypatch.setattr(check_program, "keep_report", full)
    monkeypatch.setitem(cast("dict[str, Any]", check_program._MAKE), "doctor", lambda context: REPORT)
    assert check_program.main(["doctor"]) == 1
    assert "error: /state/last-doctor.json: No space left on device" in capsys.readouterr().err
