"""What an operation on services asks of its surroundings, as data.

An operation (`control`) is a generator that decides and does nothing else: it yields an effect and receives its result.
A driver (`driver`) performs the effects. So every decision can be tested with plain values, and only the driver blocks.
Times are seconds since the operation began, on the driver's clock.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from helmd.model.suite.service import Service
from helmd.model.units.health import HealthVerdict, Probe
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.lifecycle.steps import Step

Result = TypeVar("Result")
Returned = TypeVar("Returned")

Verb = Literal["start", "stop", "restart", "reload"]
JobMode = Literal["replace", "ignore-dependencies"]


class Job(NamedTuple):
    """A job that systemd has queued: its object path, and when it was queued."""

    path: str
    queued_at: float


class JobResult(NamedTuple):
    """A job that has ended: its object path and systemd's result (done, failed, canceled, timeout ...)."""

    path: str
    result: str


class JobWait(NamedTuple):
    """Jobs that have ended, also those queued by others; may be empty before the deadline."""

    ended: Sequence[JobResult]
    now: float


class Effect(Generic[Result]):
    """A request to the driver; Result is the type of the answer.

    Effects are not frozen, since that takes twice as long to define, and each ``helmctl start`` defines them all.
    """

    __slots__ = ()


@dataclass(slots=True)
class ReadUnit(Effect[UnitFacts]):
    """The properties of a unit."""

    unit: str


@dataclass(slots=True)
class CheckHealth(Effect[HealthVerdict]):
    """One health check, bounded by the probe's own timeout."""

    probe: Probe


@dataclass(slots=True)
class FindListener(Effect[str]):
    """Which process keeps a service from listening on a port of its URL's host, in words; empty when none does."""

    host: str
    port: int


@dataclass(slots=True)
class FindChange(Effect[str]):
    """A file that the start of a service reads and that was changed after ``since``; empty when none was."""

    service: Service
    facts: UnitFacts
    since: float


@dataclass(slots=True)
class ReadLastLines(Effect[Sequence[str]]):
    """The last messages that a unit printed, oldest first, none older than ``since`` (seconds since 1970).

    None that is known to be of another invocation, if one is given.
    """

    unit: str
    count: int
    since: float
    invocation: str = ""


@dataclass(slots=True)
class ResetFailed(Effect[None]):
    """Clears the failed state and the start count of a unit, as ``systemctl reset-failed`` does."""

    unit: str


@dataclass(slots=True)
class QueueJob(Effect[Job]):
    """Queues a job for a unit without waiting for it; ``mode`` as in ``systemctl --job-mode``."""

    verb: Verb
    unit: str
    mode: JobMode = "replace"


@dataclass(slots=True)
class WaitForJobs(Effect[JobWait]):
    """Waits until jobs have ended, at the longest until ``until``."""

    until: float


@dataclass(slots=True)
class Pause(Effect[None]):
    """Sleeps for a number of seconds."""

    seconds: float


@dataclass(slots=True)
class ReportStep(Effect[None]):
    """Reports a step to the caller of the operation immediately."""

    step: Step


Effects = Generator[Effect[Any], Any, Returned]


def result_of(effect: Effect[Result]) -> Effects[Result]:
    """Yield the result of EFFECT, with its type: ``facts = yield from result_of(ReadUnit(unit))``."""
    result: Result = yield effect
    return result
