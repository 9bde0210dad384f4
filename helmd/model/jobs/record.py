"""A job: what was requested, what its process wrote, and its state, which follows from both and from systemd.

A job is an operation that may take longer than a request: helmctl in a transient unit of its own. systemd's own jobs
(org.freedesktop.systemd1(5)) are something else: queued changes of one unit's state.
"""

import re
import time
from dataclasses import dataclass
from typing import Literal, get_args

from helmd.model.errors import BusError
from helmd.model.identity.origin import Origin
from helmd.model.suite.names import RESERVED_PREFIX, unit_of
from helmd.model.units.unit_state import CLD_EXITED, UnitFacts, last_exit

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)
JOB_ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "interrupted"})

JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
START_SECONDS = 30.0
"""A job that has no unit so long after its request was never started: helmd ended in between."""


@dataclass(frozen=True, slots=True)
class Requester:
    """Who requested a job, and from where, as in `helmd.model.identity.origin.Origin`."""

    name: str
    via: str
    address: str = ""
    unit: str = ""
    session: str = ""

    @property
    def origin(self) -> Origin:
        return Origin(self.via, self.address, self.unit, self.session)

    @property
    def described(self) -> str:
        """The requester as text: ``alice (token, from 192.0.2.7)``."""
        return f"{self.name} ({self.via}, from {self.address})" if self.address else f"{self.name} ({self.via})"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What is to be done: helmctl's arguments ``words``. Times are seconds since the epoch.

    ``boot`` is the boot in which it was requested: its unit does not outlive that.
    """

    id: str
    kind: str
    targets: tuple[str, ...]
    words: tuple[str, ...]
    by: Requester
    reason: str
    requested_at: float
    boot: str

    @property
    def target(self) -> str:
        return ", ".join(self.targets)


@dataclass(frozen=True, slots=True)
class JobStep:
    """What happened to one service, as in `helmd.operations.lifecycle.steps`. ``at`` is seconds since the epoch."""

    at: float
    service: str
    kind: str
    sentence: str
    code: str = ""
    seconds: float = 0.0
    hint: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobLine:
    """A line that a job printed."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How the job's process ended, in its own words: helmctl's exit code, and its error if it had one."""

    at: float
    exit_code: int
    cancelled: bool = False
    code: str = ""
    detail: str = ""
    hint: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The end of a job, once it is known. ``detail`` says why it did not succeed, as a sentence without full stop."""

    at: float
    state: JobState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class JobEvents:
    """What the job's process wrote down so far. ``abandoned`` is the end of one that was not allowed to begin."""

    begun_at: float | None = None
    steps: tuple[JobStep, ...] = ()
    outcome: JobOutcome | None = None
    abandoned: JobEnd | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as its directory has it. ``end`` is what was recorded of systemd's result."""

    request: JobRequest
    events: JobEvents = JobEvents()
    end: JobEnd | None = None
    cancelled_by: Requester | None = None

    @property
    def unit(self) -> str:
        return job_unit(self.request.id)


@dataclass(frozen=True, slots=True)
class JobVerdict:
    """The state of a job, and its end if it has ended."""

    state: JobState
    end: JobEnd | None = None


def job_unit(job_id: str) -> str:
    """Return the name of the unit that runs a job."""
    return unit_of(f"{RESERVED_PREFIX}{job_id}")


def job_id_at(seconds: float, random: str) -> str:
    """Return an id for a job that is requested at a time; RANDOM is hexadecimal."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}-{random}"


def job_id_for(requester: str, key: str) -> str:
    """Return the id of the job that REQUESTER asks for with an Idempotency-Key, however often."""
    # Imported here: of a job's process, it would take some milliseconds.
    import hashlib

    both = f"{len(requester)} {requester} {key}"
    return f"key-{hashlib.sha256(both.encode()).hexdigest()[:24]}"


def job_verdict(record: JobRecord, facts: UnitFacts | None, boot: str, now: float) -> JobVerdict:
    """Return the state of a job. The facts of its unit are None if systemd can't be asked; BOOT is this boot."""
    if end := record.end or record.events.abandoned:
        return JobVerdict(end.state, end)
    if record.request.boot != boot:
        facts = UnitFacts(record.unit)
    if facts is not None and facts.exists and not _has_ended(facts):
        return JobVerdict("queued" if record.events.begun_at is None else "running")
    if facts is not None and facts.exists:
        return _ended(_end_by_systemd(record, facts))
    return _without_unit(record, facts is not None, boot, now)


def _ended(end: JobEnd) -> JobVerdict:
    return JobVerdict(end.state, end)


def _has_ended(facts: UnitFacts) -> bool:
    """Return whether a unit that exists has run; before systemd starts it, it is inactive as well."""
    if facts.active_state == "inactive":
        return facts.exit_code != 0
    return facts.active_state == "failed" or (facts.active and facts.sub_state == "exited")


def _end_by_systemd(record: JobRecord, facts: UnitFacts) -> JobEnd:
    """Return the end of a job whose unit has ended: systemd's result, and the reason that the process gave for it."""
    outcome = record.events.outcome
    at = facts.ended_at or facts.changed_at or (outcome.at if outcome else record.request.requested_at)
    if facts.result == "success" and (facts.exit_code, facts.exit_status) == (CLD_EXITED, 0):
        return JobEnd(at, "succeeded")
    if record.cancelled_by is None and facts.result == "timeout":
        return JobEnd(at, "failed", "it took longer than a job may, and was stopped")
    if record.cancelled_by is not None or (outcome is not None and outcome.cancelled):
        return JobEnd(at, "cancelled", _cancelled_detail(record))
    if outcome is not None and outcome.detail:
        return JobEnd(at, "failed", outcome.detail)
    if facts.result == "oom-kill":
        return JobEnd(at, "failed", "it was killed by the OOM killer")
    return JobEnd(at, "failed", f"its process {last_exit(facts) or f'did not start ({facts.result})'}")


def _without_unit(record: JobRecord, looked: bool, boot: str, now: float) -> JobVerdict:
    """Return the state of a job of which systemd knows nothing (LOOKED), or can't be asked."""
    request, events = record.request, record.events
    if (outcome := events.outcome) is not None and not (request.boot != boot and _ended_by_shutdown(record, outcome)):
        return _ended(_end_by_process(record, outcome))
    if not looked:
        return JobVerdict("queued" if events.begun_at is None else "running")
    if record.cancelled_by is not None:
        return _ended(JobEnd(now, "cancelled", _cancelled_detail(record)))
    if request.boot != boot:
        return _ended(JobEnd(now, "interrupted", "the machine was restarted before it ended"))
    if events.begun_at is not None:
        return _ended(JobEnd(now, "interrupted", "its unit was removed before it wrote a result"))
    if now - request.requested_at > START_SECONDS:
        return _ended(JobEnd(now, "interrupted", "it was never started"))
    return JobVerdict("queued")


def _ended_by_shutdown(record: JobRecord, outcome: JobOutcome) -> bool:
    """Return whether the process of a job that did not outlive its boot ended as a shutdown ends it: by SIGTERM that
    nobody asked for, or because the manager did not answer any more.
    """
    return outcome.code == BusError.code or (outcome.cancelled and record.cancelled_by is None)


def _end_by_process(record: JobRecord, outcome: JobOutcome) -> JobEnd:
    if outcome.exit_code == 0:
        return JobEnd(outcome.at, "succeeded")
    if outcome.cancelled:
        return JobEnd(outcome.at, "cancelled", _cancelled_detail(record))
    return JobEnd(outcome.at, "failed", outcome.detail or f"its process exited with code {outcome.exit_code}")


def _cancelled_detail(record: JobRecord) -> str:
    who = f"by {record.cancelled_by.described}" if record.cancelled_by else "by SIGTERM"
    return f"cancelled {who}; what systemd had begun for it goes on"
