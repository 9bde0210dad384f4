"""Bodies about jobs, and about the starts and stops that become jobs."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from helmd.model.jobs.record import JobState
from helmd.model.json_fields import described
from helmd.model.suite.names import Mode

Action = Literal["start", "stop", "restart", "reload"]
ACTIONS: tuple[Action, ...] = get_args(Action)
StepOutcome = Literal["in_progress", "done", "already", "failed", "skipped", "killed", "queued"]

MAX_REASON, MAX_SERVICES = 500, 100
"""Characters of a reason; services of one action."""

_MODE = described("switch to this mode first; null leaves it")
REASON = described("why, for the log: one line", maxLength=MAX_REASON, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")
_CONFIRM = described("stop services too that the caller's own session may need")
_PID = described("its main process; null after a stop and for a service without one", example=4711)
_PORT = described("its port; null after a stop and for a service without one", example=5010)
_JOB = described("the id of the job that did it", example="20261128-143501-5f3a9c")
_CODE = described("as in problem documents; empty if it did not fail", example="")
_HINT = described("what to do next; may be empty", example="")
_LINES = described("its last log lines, where it failed", example=[])


@dataclass(frozen=True, slots=True)
class ControlBody:
    """How to start, stop or restart a service."""

    mode: Mode | None = field(default=None, metadata=_MODE)
    wait: bool = field(default=True, metadata=described("answer when it has ended; false: at once"))
    reason: str = field(default="", metadata=REASON)
    confirm: bool = field(default=False, metadata=_CONFIRM)


@dataclass(frozen=True, slots=True)
class ActionsBody:
    """What to do with several services."""

    action: Action = field(metadata=described("what to do"))
    services: tuple[str, ...] = field(
        metadata=described(
            "the services, or all",
            example=["core", "nexus"],
            minItems=1,
            maxItems=MAX_SERVICES,
            items={"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,49}$"},
        )
    )
    mode: Mode | None = field(default=None, metadata=_MODE)
    reason: str = field(default="", metadata=REASON)
    dry_run: bool = field(default=False, metadata=described("only say what would be done"))
    confirm: bool = field(default=False, metadata=_CONFIRM)


@dataclass(frozen=True, slots=True)
class JobStepReply:
    """What happened to one service."""

    service: str = field(metadata=described("the service", example="codex"))
    kind: StepOutcome = field(metadata=described("what happened"))
    sentence: str = field(metadata=described("the same for people", example="started"))
    code: str = field(metadata=_CODE)
    seconds: float = field(metadata=described("how long it took", example=0.4))
    hint: str = field(metadata=_HINT)
    lines: tuple[str, ...] = field(metadata=_LINES)
    timestamp: datetime = field(metadata=described("when"))


@dataclass(frozen=True, slots=True)
class JobResultReply:
    """How a job ended."""

    exit_code: int | None = field(metadata=described("helmctl's; null if it wrote none", example=0))
    code: str = field(metadata=_CODE)
    detail: str = field(metadata=described("why it did not succeed, as a sentence", example=""))
    hint: str = field(metadata=_HINT)
    lines: tuple[str, ...] = field(metadata=_LINES)


@dataclass(frozen=True, slots=True)
class JobReply:
    """An operation that outlives the request for it."""

    id: str = field(metadata=_JOB)
    kind: str = field(metadata=described("what it does", example="start"))
    target: str = field(metadata=described("with which services", example="codex"))
    state: JobState = field(metadata=described("interrupted: the machine was restarted meanwhile"))
    step: str = field(metadata=described("what it does now, or did last", example="codex: started"))
    steps: tuple[JobStepReply, ...] = field(metadata=described("what happened so far"))
    requested_at: datetime = field(metadata=described("when it was requested"))
    started_at: datetime | None = field(metadata=described("when its process began"))
    ended_at: datetime | None = field(metadata=described("when it ended"))
    by: str = field(metadata=described("who requested it", example="hive"))
    via: str = field(metadata=described("how they were authenticated", example="socket"))
    address: str = field(metadata=described("from which address; empty if unknown", example=""))
    reason: str = field(metadata=described("why", example=""))
    result: JobResultReply | None = field(metadata=described("null until it has ended"))
    unit: str = field(metadata=described("the unit that runs it"))


@dataclass(frozen=True, slots=True)
class JobListReply:
    """The jobs that are kept."""

    jobs: tuple[JobReply, ...] = field(metadata=described("the newest first"))


@dataclass(frozen=True, slots=True)
class JobLineReply:
    """A line of a job's log."""

    timestamp: datetime = field(metadata=described("when it was printed"))
    text: str = field(metadata=described("the line"))


@dataclass(frozen=True, slots=True)
class JobAcceptedReply:
    """The job that a request became."""

    success: bool = field(metadata=described("always true", example=True))
    message: str = field(metadata=described("the same for people"))
    job: JobReply = field(metadata=described("the job, as it is now"))


@dataclass(frozen=True, slots=True)
class ControlReply:
    """A start or stop that succeeded."""

    success: bool = field(metadata=described("always true", example=True))
    message: str = field(metadata=described("the same for people", example="Service started successfully"))
    pid: int | None = field(metadata=_PID)
    port: int | None = field(metadata=_PORT)
    job: str = field(metadata=_JOB)


@dataclass(frozen=True, slots=True)
class RestartPartReply:
    """One half of a restart."""

    success: bool = field(metadata=described("always true", example=True))
    message: str = field(metadata=described("the same for people", example="Service stopped successfully"))
    pid: int | None = field(default=None, metadata=_PID)
    port: int | None = field(default=None, metadata=_PORT)


@dataclass(frozen=True, slots=True)
class RestartDetails:
    """Both halves of a restart, for older clients."""

    stop: RestartPartReply = field(metadata=described("the stop"))
    start: RestartPartReply = field(metadata=described("the start"))


@dataclass(frozen=True, slots=True)
class RestartReply:
    """A restart that succeeded."""

    success: bool = field(metadata=described("always true", example=True))
    message: str = field(metadata=described("the same for people"))
    pid: int | None = field(metadata=_PID)
    port: int | None = field(metadata=_PORT)
    details: RestartDetails = field(metadata=described("both halves, for older clients"))
    job: str = field(metadata=_JOB)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What would be done with one service."""

    service: str = field(metadata=described("the service", example="core"))
    action: str = field(metadata=described("what, for people", example="start, then wait for port 5000"))


@dataclass(frozen=True, slots=True)
class PlanReply:
    """What an action would do; nothing was done."""

    plan: tuple[PlannedStep, ...] = field(metadata=described("in order"))
    effect: str = field(
        default="", metadata=described("whom it touches, as a sentence; may be empty", example="codex depends on core.")
    )
