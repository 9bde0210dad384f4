"""The gate of a change: what is observed of a started module, and when that is enough or too bad."""

from dataclasses import dataclass
from http import HTTPStatus

_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
"""Answers of a module that works, to who may not see what was asked for."""


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """How long a version is watched, and what is allowed meanwhile. Times are seconds."""

    seconds: float = 60.0
    interval: float = 2.0
    errors_before: int = 0
    """Error lines of the version before, in as long a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request was answered. ``status`` is 0 for no answer, and ``fault`` says why there was none. ``usual`` is
    the status that the version before answered; 0 if that is not known.
    """

    what: str
    status: int
    fault: str = ""
    usual: int = 0

    @property
    def good(self) -> bool:
        """Whether the module answers as it should; what it refused or did not have before, it may still."""
        if self.fault or not self.status:
            return False
        usual = self.status == self.usual and self.status < HTTPStatus.INTERNAL_SERVER_ERROR
        return usual or self.status < HTTPStatus.BAD_REQUEST or self.status in _REFUSALS


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the module. ``at`` is seconds since the gate began, and ``errors`` the error lines since then."""

    at: float
    active: bool
    restarts: int
    healthy: bool
    health: str = ""
    errors: int = 0
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """``passed`` is false and ``failed`` empty while it has to be watched longer."""

    passed: bool = False
    failed: str = ""


def gate_verdict(policy: GatePolicy, first: Observation, now: Observation) -> GateVerdict:
    """Return what follows from the FIRST observation and the one NOW."""
    if not now.active:
        return GateVerdict(failed="it does not run any more")
    if now.restarts > first.restarts:
        return GateVerdict(failed="it ended, and systemd restarted it")
    if not now.healthy:
        return GateVerdict(failed=": ".join(filter(None, ("its health check fails", now.health))))
    for answer in now.answers:
        if not answer.good:
            return GateVerdict(failed=f"{answer.what}: {answer.fault or f'HTTP {answer.status}'}")
    if now.errors > policy.errors_before:
        return GateVerdict(failed=f"it logged {now.errors} errors, {policy.errors_before} in as long a time before")
    return GateVerdict(passed=now.at >= policy.seconds)
