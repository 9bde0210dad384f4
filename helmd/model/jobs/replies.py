"""What the API and ``helmctl jobs --json`` say of jobs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from helmd.model.api.jobs import JobReply, JobResultReply, JobStepReply, StepOutcome
from helmd.model.jobs.record import JobRecord, JobStep, JobVerdict


@dataclass(frozen=True, slots=True)
class ControlFailure:
    """Why an operation on one service failed: a code as in problem documents, a sentence, its last log lines."""

    code: str
    detail: str
    hint: str = ""
    lines: tuple[str, ...] = ()


def time_of(seconds: float) -> datetime:
    """Return a time (seconds since the epoch) as bodies have it."""
    return datetime.fromtimestamp(seconds, UTC)


def job_reply(record: JobRecord, verdict: JobVerdict) -> JobReply:
    """Return what is said of a job."""
    request, events = record.request, record.events
    last = events.steps[-1] if events.steps else None
    return JobReply(
        id=request.id,
        kind=request.kind,
        target=request.target,
        state=verdict.state,
        step=f"{last.service}: {last.sentence}" if last else "",
        steps=tuple(step_reply(step) for step in events.steps),
        requested_at=time_of(request.requested_at),
        started_at=None if events.begun_at is None else time_of(events.begun_at),
        ended_at=None if verdict.end is None else time_of(verdict.end.at),
        by=request.by.name,
        via=request.by.via,
        address=request.by.address,
        reason=request.reason,
        result=_result_reply(record, verdict),
        unit=record.unit,
    )


def step_reply(step: JobStep) -> JobStepReply:
    """Return what is said of a step."""
    return JobStepReply(
        step.service,
        cast(StepOutcome, step.kind),
        step.sentence,
        step.code,
        step.seconds,
        step.hint,
        step.lines,
        time_of(step.at),
    )


def _result_reply(record: JobRecord, verdict: JobVerdict) -> JobResultReply | None:
    if verdict.end is None:
        return None
    outcome = record.events.outcome
    exit_code = None if outcome is None else outcome.exit_code
    if verdict.state == "succeeded":
        return JobResultReply(0, "", "", "", ())
    failure = job_failure(record, verdict)
    return JobResultReply(exit_code, failure.code, failure.detail, failure.hint, failure.lines)


def job_failure(record: JobRecord, verdict: JobVerdict) -> ControlFailure:
    """Return why a job that has ended did not succeed: its own error, else the first step that failed, else its end."""
    detail = verdict.end.detail if verdict.end is not None else ""
    outcome = record.events.outcome
    if verdict.state != "failed":
        return ControlFailure(verdict.state, detail)
    if outcome is not None and outcome.code:
        return ControlFailure(outcome.code, outcome.detail, outcome.hint, outcome.lines)
    failed = next((step for step in record.events.steps if step.kind == "failed"), None)
    if outcome is not None and failed is not None:
        return ControlFailure(
            failed.code or "failed", f"{failed.service}: {failed.sentence}", failed.hint, failed.lines
        )
    return ControlFailure("failed", detail)
