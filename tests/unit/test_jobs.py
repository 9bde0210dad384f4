"""Jobs: the state that follows from their files and from systemd, bodies and replies, and their directories."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.api.jobs import ActionsBody, ControlBody, ControlReply, RestartReply
from helmd.model.api.json_codec import to_json
from helmd.model.errors import HelmError, UsageError
from helmd.model.jobs.codec import event_line, logged_events, read_events
from helmd.model.jobs.control import (
    ConfirmationError,
    check_confirmed,
    check_controlled,
    check_mode,
    control_result,
    helmctl_words,
)
from helmd.model.jobs.record import (
    JOB_ID,
    START_SECONDS,
    JobEnd,
    JobEvents,
    JobLine,
    JobOutcome,
    JobRecord,
    JobRequest,
    JobStep,
    Requester,
    job_id_at,
    job_id_for,
    job_unit,
    job_verdict,
)
from helmd.model.jobs.replies import ControlFailure, job_reply
from helmd.model.suite.names import RESERVED_PREFIX, SERVICE_NAME
from helmd.model.units.unit_state import CLD_EXITED, CLD_KILLED, UnitFacts
from helmd.operations.jobs.directory import KEPT_JOBS, KEPT_SECONDS, JobDirectory, UnknownJobError
from helmd.operations.jobs.process import MAX_LOG, JobProcess, begin
from helmd.operations.lifecycle.steps import Step
from helmd.web.http.validation import parse_request

NOW, BOOT = 1_764_340_000.0, "b" * 32
ALICE = Requester("alice", "token", "192.0.2.7")
REQUEST = JobRequest(
    "20261128-143501-5f3a9c", "start", ("nexus",), ("start", "nexus", "--json"), ALICE, "a look", NOW, BOOT
)
BEGUN = JobEvents(begun_at=NOW + 1)
UNIT = job_unit(REQUEST.id)


def record(outcome: JobOutcome | None = None, *steps: JobStep, **more: Any) -> JobRecord:
    return JobRecord(REQUEST, JobEvents(NOW + 1, steps, outcome), **more)


def unit(active: str, sub: str = "", **more: Any) -> UnitFacts:
    return UnitFacts(UNIT, "loaded", active, sub, **more)


GONE = UnitFacts(UNIT)
WELL = JobOutcome(NOW + 5, 0)
BADLY = JobOutcome(NOW + 5, 1, detail="core exited with code 1")
CANCELLED = JobOutcome(NOW + 5, 130, cancelled=True)
DONE = unit("active", "exited", exit_code=CLD_EXITED, ended_at=NOW + 6)
FAILED = unit("failed", "failed", result="exit-code", exit_code=CLD_EXITED, exit_status=1, ended_at=NOW + 6)


@pytest.mark.parametrize(
    ("job", "facts", "state", "detail"),
    [
        (JobRecord(REQUEST), GONE, "queued", ""),
        (JobRecord(REQUEST), unit("inactive", "dead", job="/job/1"), "queued", ""),
        (JobRecord(REQUEST), unit("active", "running"), "queued", ""),
        (record(), unit("active", "running"), "running", ""),
        (record(), unit("deactivating", "stop-sigterm"), "running", ""),
        (record(WELL), unit("active", "running"), "running", ""),
        (record(WELL), DONE, "succeeded", ""),
        (record(), DONE, "succeeded", ""),
        (record(BADLY), FAILED, "failed", "core exited with code 1"),
        (record(), FAILED, "failed", "its process exited with code 1"),
        (record(BADLY), DONE, "succeeded", ""),
        (
            record(),
            unit("failed", result="signal", exit_code=CLD_KILLED, exit_status=9),
            "failed",
            "its process was killed by SIGKILL",
        ),
        (record(), unit("failed", result="oom-kill"), "failed", "it was killed by the OOM killer"),
        (JobRecord(REQUEST), unit("failed", result="resources"), "failed", "its process did not start (resources)"),
        (
            record(CANCELLED),
            unit("failed", result="timeout"),
            "failed",
            "it took longer than a job may, and was stopped",
        ),
        (record(CANCELLED), FAILED, "cancelled", "cancelled by SIGTERM; what systemd had begun for it goes on"),
        (
            record(cancelled_by=ALICE),
            unit("failed", result="timeout"),
            "cancelled",
            "cancelled by alice (token, from 192.0.2.7); what systemd had begun for it goes on",
        ),
        (record(WELL, cancelled_by=ALICE), DONE, "succeeded", ""),
        (record(WELL), GONE, "succeeded", ""),
        (record(CANCELLED), GONE, "cancelled", "cancelled by SIGTERM; what systemd had begun for it goes on"),
        (record(), GONE, "interrupted", "its unit was removed before it wrote a result"),
        (record(), None, "running", ""),
        (JobRecord(REQUEST), None, "queued", ""),
        (record(BADLY), None, "failed", "core exited with code 1"),
        (record(end=JobEnd(NOW, "succeeded")), FAILED, "succeeded", ""),
        (
            JobRecord(REQUEST, JobEvents(abandoned=JobEnd(NOW, "cancelled", "before"))),
            unit("active"),
            "cancelled",
            "before",
        ),
    ],
)
def test_the_state_of_a_job(job: JobRecord, facts: UnitFacts | None, state: str, detail: str) -> None:
    verdict = job_verdict(job, facts, BOOT, NOW + 10)
    assert (verdict.state, verdict.end.detail if verdict.end else "") == (state, detail)
    assert (verdict.end is None) == (state in ("queued", "running"))


def test_a_job_does_not_outlive_its_boot() -> None:
    """Not even where another unit has the name of its own meanwhile."""
    for facts in (GONE, unit("active", "running")):
        verdict = job_verdict(record(), facts, "c" * 32, NOW + 90)
        assert verdict.end == JobEnd(NOW + 90, "interrupted", "the machine was restarted before it ended")
    assert job_verdict(record(WELL), GONE, "c" * 32, NOW + 90).state == "succeeded"


def test_a_job_that_the_shutdown_ended() -> None:
    """Its process gets SIGTERM, or the manager goes away first; a cancellation is one also then."""
    away = JobOutcome(NOW + 5, 1, code="bus", detail="systemd refused LoadUnit: Connection reset by peer")
    for outcome in (CANCELLED, away):
        assert job_verdict(record(outcome), GONE, "c" * 32, NOW + 90).state == "interrupted"
    assert job_verdict(record(away), GONE, BOOT, NOW + 90).state == "failed"
    assert job_verdict(record(CANCELLED, cancelled_by=ALICE), GONE, "c" * 32, NOW + 90).state == "cancelled"


def test_a_job_that_was_never_started() -> None:
    """helmd was killed between writing the request and asking systemd."""
    assert job_verdict(JobRecord(REQUEST), GONE, BOOT, NOW + START_SECONDS - 1).state == "queued"
    late = job_verdict(JobRecord(REQUEST), GONE, BOOT, NOW + START_SECONDS + 1)
    assert late.end == JobEnd(NOW + START_SECONDS + 1, "interrupted", "it was never started")
    cancelled = job_verdict(JobRecord(REQUEST, cancelled_by=ALICE), GONE, BOOT, NOW + 1)
    assert cancelled.state == "cancelled"


def test_ids_are_names_of_units() -> None:
    for job_id in (job_id_at(NOW, "5f3a9c"), job_id_for("token user alice", "x" * 255)):
        assert JOB_ID.match(job_id) and SERVICE_NAME.match(RESERVED_PREFIX + job_id)
    assert job_id_at(NOW, "5f3a9c") == "20251128-142640-5f3a9c"
    assert job_id_for("a", "b c") != job_id_for("a b", "c")


STEPS = st.builds(JobStep, st.floats(0, 1e10), st.text(), st.text(), st.text(), lines=st.lists(st.text()).map(tuple))


@given(st.lists(STEPS), st.integers(0, 200))
def test_events_can_be_read_however_much_of_them_is_there(steps: list[JobStep], missing: int) -> None:
    lines = [
        event_line("begun", {"at": NOW}),
        *(event_line("step", step) for step in steps),
        event_line("ended", WELL),
    ]
    found = read_events(b"".join(lines))
    assert found == JobEvents(NOW, tuple(steps), WELL)
    part = read_events(b"".join(lines)[: -missing - 1])
    assert part.steps == tuple(steps)[: len(part.steps)]


@given(st.binary())
def test_no_content_of_the_file_of_events_breaks_its_reader(content: bytes) -> None:
    read_events(content)
    logged_events(content)


def test_unknown_events_are_passed_by() -> None:
    content = b'{"event": "begun", "at": 1}\n{"event": "step"}\n[]\nx\n' + event_line("line", JobLine(NOW, "hello"))
    assert read_events(content) == JobEvents(1.0)
    assert logged_events(content) == [(5, JobLine(NOW, "hello"))]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "must be object"),
        ("{", "not JSON"),
        ('{"mode": "turbo"}', "mode: must be one of development, production"),
        ('{"mode": ["production"]}', "mode: must be"),
        ('{"wait": "no"}', "wait: must be boolean"),
        ('{"confirm": 1}', "confirm: must be boolean"),
        ('{"reason": 3}', "reason: must be string"),
        ('{"reason": "a\\nb"}', "reason: must match"),
        ('{"reason": "a\\u0000"}', "reason: must match"),
        (json.dumps({"reason": "x" * 501}), "reason: must have at most 500"),
        ('{"confrim": true}', "confrim: is not known"),
    ],
)
def test_a_faulty_body(body: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_request(body.encode(), ControlBody)


def test_bodies() -> None:
    assert parse_request(b"", ControlBody) == parse_request(b"{}", ControlBody)
    body = b'{"mode": "production", "wait": false, "reason": "a", "confirm": true}'
    assert asdict(parse_request(body, ControlBody)) == {
        "mode": "production", "wait": False, "reason": "a", "confirm": True,
    }  # fmt: skip
    actions = parse_request(b'{"action": "restart", "services": ["core", "nexus"], "dry_run": true}', ActionsBody)
    assert (actions.action, actions.services, actions.dry_run) == ("restart", ("core", "nexus"), True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "action: is missing"),
        ('{"services": ["core"]}', "action: is missing"),
        ('{"action": "kill", "services": ["core"]}', "action: must be one of start, stop, restart, reload"),
        ('{"action": "stop"}', "services: is missing"),
        ('{"action": "stop", "services": []}', "services: must have at least 1"),
        ('{"action": "stop", "services": [1]}', "services.0: must be string"),
        ('{"action": "stop", "services": ["--all"]}', "services.0: must match"),
        ('{"action": "stop", "services": ["core"], "mode": "production"}', "mode: a stop has none"),
        (json.dumps({"action": "stop", "services": [f"s{n}" for n in range(101)]}), "services: must have at most 100"),
    ],
)
def test_a_faulty_body_of_actions(body: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_mode(parse_request(body.encode(), ActionsBody))


def test_what_needs_a_confirmation() -> None:
    for names in (("core",), ("codex", "nexus"), ("keycloak",), ("all",)):
        with pytest.raises(ConfirmationError):
            check_confirmed("stop", names, False)
        check_confirmed("stop", names, True)
        check_confirmed("restart", names, False)
    check_confirmed("stop", ("codex",), False)
    with pytest.raises(UsageError, match="Helm itself"):
        check_controlled(("core", "helm"))


def test_words() -> None:
    assert helmctl_words("restart", ("core", "nexus"), "production") == (
        "restart", "core", "nexus", "--json", "--mode", "production",
    )  # fmt: skip
    assert helmctl_words("stop", ("core",), None) == ("stop", "core", "--json")


def result(action: Any, job: JobRecord, facts: UnitFacts) -> ControlReply | RestartReply | ControlFailure:
    return control_result(action, "nexus", job, job_verdict(job, facts, BOOT, NOW + 10), 4711, 8443)


def test_a_start_as_older_clients_read_it() -> None:
    reply = result("start", record(WELL, JobStep(NOW, "nexus", "done", "started")), DONE)
    assert asdict(reply) == {
        "success": True, "message": "Service started successfully", "pid": 4711, "port": 8443, "job": REQUEST.id,
    }  # fmt: skip
    stopped = result("stop", record(WELL, JobStep(NOW, "nexus", "killed", "stopped")), DONE)
    assert asdict(stopped) | {"job": ""} == {
        "success": True, "message": "Service stopped successfully", "pid": None, "port": None, "job": "",
    }  # fmt: skip


def test_a_restart_as_older_clients_read_it() -> None:
    reply = result("restart", record(WELL, JobStep(NOW, "nexus", "done", "restarted")), DONE)
    assert isinstance(reply, RestartReply)
    assert reply.message == "Stop: Service stopped successfully. Start: Service started successfully"
    assert asdict(reply.details.start) == {
        "success": True, "message": "Service started successfully", "pid": 4711, "port": 8443,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "said"),
    [("start", "Service already running (PID: 4711)"), ("stop", "Service not running or PID unknown")],
)
def test_nothing_to_do_is_a_failure(action: str, said: str) -> None:
    reply = result(action, record(WELL, JobStep(NOW, "nexus", "already", "already running, healthy")), DONE)
    assert isinstance(reply, ControlFailure)
    assert (reply.detail, reply.code) == (said, "already_running" if action == "start" else "not_running")


CORE = JobStep(NOW, "core", "failed", "was not healthy within 3 s", "not_healthy", lines=("boom",))


def test_why_a_start_failed() -> None:
    own = record(JobOutcome(NOW, 1), replace(CORE, service="nexus"))
    assert result("start", own, FAILED) == ControlFailure(
        "not_healthy", "nexus: was not healthy within 3 s", "", ("boom",)
    )
    skipped = JobStep(NOW, "nexus", "skipped", "not started, because core failed", "dependency_failed", hint="Fix core")
    assert result("start", record(JobOutcome(NOW, 1), CORE, skipped), FAILED) == ControlFailure(
        "dependency_failed",
        "nexus: not started, because core failed: core: was not healthy within 3 s",
        "Fix core",
        ("boom",),
    )
    usage = record(JobOutcome(NOW, 2, code="usage", detail="nexus runs in production mode", hint="To switch ..."))
    assert result("start", usage, FAILED) == ControlFailure("usage", "nexus runs in production mode", "To switch ...")
    killed = unit("failed", result="signal", exit_code=CLD_KILLED, exit_status=9)
    assert result("start", record(), killed) == ControlFailure("failed", "its process was killed by SIGKILL")
    cancelled = result("start", record(CANCELLED, cancelled_by=ALICE), FAILED)
    assert isinstance(cancelled, ControlFailure) and cancelled.code == "cancelled"


def test_a_job_as_the_api_shows_it() -> None:
    job = record(JobOutcome(NOW + 5, 1), CORE)
    shown = json.loads(json.dumps(to_json(job_reply(job, job_verdict(job, FAILED, BOOT, NOW + 9)))))
    assert {key: shown[key] for key in ("id", "kind", "target", "state", "step", "by", "via", "address", "unit")} == {
        "id": REQUEST.id, "kind": "start", "target": "nexus", "state": "failed",
        "step": "core: was not healthy within 3 s", "by": "alice", "via": "token", "address": "192.0.2.7", "unit": UNIT,
    }  # fmt: skip
    assert shown["started_at"] == "2025-11-28T14:26:41+00:00" and shown["ended_at"] == "2025-11-28T14:26:46+00:00"
    assert shown["result"] == {
        "exit_code": 1, "code": "not_healthy", "detail": "core: was not healthy within 3 s", "hint": "",
        "lines": ["boom"],
    }  # fmt: skip
    assert job_reply(record(), job_verdict(record(), unit("active"), BOOT, NOW)).result is None


@pytest.fixture
def jobs(tmp_path: Path) -> JobDirectory:
    return JobDirectory(tmp_path / "jobs")


def test_a_job_is_made_once(jobs: JobDirectory) -> None:
    assert jobs.create(REQUEST)
    assert not jobs.create(replace(REQUEST, kind="stop"))
    assert jobs.read(REQUEST.id) == JobRecord(REQUEST)
    assert jobs.ids() == jobs.unended() == [REQUEST.id] == os.listdir(jobs.root)
    assert [path.stat().st_mode & 0o777 for path in (jobs.root, jobs.root / REQUEST.id)] == [0o700, 0o700]


@pytest.mark.parametrize("job_id", ["", "..", ".", "a/b", "/etc", "A", "x" * 41, "no-such", "a\0"])
def test_what_is_no_job(jobs: JobDirectory, job_id: str) -> None:
    jobs.create(REQUEST)
    for ask in (jobs.read, jobs.events, jobs.log, jobs.place):
        with pytest.raises(UnknownJobError):
            ask(job_id)


def test_what_a_job_writes(jobs: JobDirectory) -> None:
    jobs.create(REQUEST)
    process = begin(jobs, REQUEST.id)
    process.line("✓ core: started")
    process.step(Step("core", "failed", "was not healthy", "not_healthy", 3.0, lines=("boom",)))
    process.ended(1, False, HelmError("no", hint="yes", lines=["a"]))
    found = jobs.read(REQUEST.id).events
    assert found.begun_at is not None and found.outcome is not None
    assert [(step.service, step.code, step.lines) for step in found.steps] == [("core", "not_healthy", ("boom",))]
    assert replace(found.outcome, at=0) == JobOutcome(0, 1, False, "failed", "no", "yes", ("a",))
    assert [event.text for _, event in jobs.log(REQUEST.id) if isinstance(event, JobLine)] == ["✓ core: started"]


def test_a_job_begins_once(jobs: JobDirectory) -> None:
    jobs.create(REQUEST)
    begin(jobs, REQUEST.id)
    with pytest.raises(HelmError, match="has begun already"):
        begin(jobs, REQUEST.id)
    assert not jobs.abandon(REQUEST.id, JobEnd(NOW, "cancelled"))


def test_an_abandoned_job_does_not_begin(jobs: JobDirectory) -> None:
    jobs.create(REQUEST)
    assert jobs.abandon(REQUEST.id, JobEnd(NOW, "cancelled", "it came too late"))
    with pytest.raises(HelmError):
        begin(jobs, REQUEST.id)
    assert job_verdict(jobs.read(REQUEST.id), GONE, BOOT, NOW).end == JobEnd(NOW, "cancelled", "it came too late")
    jobs.discard(REQUEST.id)
    assert os.listdir(jobs.root) == []
    with pytest.raises(UnknownJobError):
        begin(jobs, REQUEST.id)


def test_a_log_is_bounded(jobs: JobDirectory) -> None:
    jobs.create(REQUEST)
    process: JobProcess = begin(jobs, REQUEST.id)
    for _ in range(3 * MAX_LOG // 100_000):
        process.line("x" * 100_000)
    process.step(Step("core", "done", "started"))
    assert len(jobs.events(REQUEST.id)) < MAX_LOG
    *_, last, step = jobs.log(REQUEST.id)
    assert isinstance(last.event, JobLine) and "journal" in last.event.text
    assert isinstance(step.event, JobStep)


def test_old_jobs_are_removed(jobs: JobDirectory) -> None:
    def make(number: int, requested_at: float, ended: bool) -> str:
        job_id = f"job{number}"
        jobs.create(replace(REQUEST, id=job_id, requested_at=requested_at))
        if ended:
            jobs.record_end(job_id, JobEnd(requested_at, "succeeded"))
        return job_id

    kept = {make(number, NOW - number, True) for number in range(KEPT_JOBS)}
    kept.add(make(1000, NOW - 2 * KEPT_SECONDS, False))
    make(1001, NOW - KEPT_JOBS - 1, True)
    make(1002, NOW - KEPT_SECONDS - 1, True)
    for name in (".making", "unmade"):
        (jobs.root / name).mkdir()
        os.utime(jobs.root / name, (NOW - 7200, NOW - 7200))
    (jobs.root / ".young").mkdir()
    os.utime(jobs.root / ".young", (NOW, NOW))
    jobs.prune(NOW)
    assert set(os.listdir(jobs.root)) == kept | {".young"}


def test_a_request_that_can_not_be_read_is_left_out(jobs: JobDirectory) -> None:
    jobs.create(REQUEST)
    jobs.create(replace(REQUEST, id="other"))
    for text in ("", "[]", "{}", '{"by": {}}', "[" * 100_000):
        (jobs.root / "other/request.json").write_text(text)
        assert [found.request.id for found in jobs.records()] == [REQUEST.id]
