"""What Helm says about a service: systemd's facts, its health and its figures as one status (SPEC, "HTTP API")."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypedDict

from helmd.model.suite.service import Service
from helmd.model.units.health import HEALTHY, UNHEALTHY, UNKNOWN, HealthVerdict
from helmd.model.units.unit_state import Condition, UnitFacts, condition, explain, last_exit, retry

Word = Literal["running", "stopped", "starting", "stopping", "error", "unknown"]

_WORDS: Mapping[Condition, Word] = {
    "running": "running",
    "starting": "starting",
    "stopping": "stopping",
    "stopped": "stopped",
    "flapping": "error",
    "failed": "error",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a service's processes take; None where it is not known. Percent of one processor, and MiB."""

    cpu_percent: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known about a service. ``service`` is None for a unit that is in no registry.

    ``verdict`` is of the process that runs now, None until it was asked; ``asked_at`` is on time.monotonic()'s clock.
    """

    name: str
    service: Service | None
    facts: UnitFacts
    mode: str | None = None
    verdict: HealthVerdict | None = None
    asked_at: float = 0.0
    failures: int = 0
    """Failed checks in a row."""
    response_ms: float | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def external(self) -> bool:
        return self.service is not None and self.service.external

    @property
    def asked(self) -> bool:
        """Whether it is asked for its health: external services always, others while they run."""
        return self.service is not None and (self.service.external or self.facts.active)


class Status(TypedDict):
    """The status of a service as the API gives it. Times are ISO 8601."""

    service_name: str
    status: Word
    pid: int | None
    port: int | None
    configured_port: int | None
    configured_url: str | None
    started_at: str | None
    create_time: str | None
    cpu_percent: float | None
    memory_mb: float | None
    health: str
    health_message: str
    unit: str | None
    active_state: str | None
    sub_state: str | None
    mode: str | None
    restarts: int
    last_exit: str | None
    registered: bool
    """Whether the registry has it; other units of the suite's name are collected and shown all the same."""


def status_word(observed: Observed, now: float) -> Word:
    """One of the contract's words. NOW is seconds since the epoch."""
    if observed.external:
        if observed.verdict is None:
            return "unknown"
        return "running" if observed.verdict.started else "error"
    return _WORDS[condition(observed.facts, now)]


def health_of(observed: Observed, now: float) -> HealthVerdict:
    """Its health: the last check while it runs, else what systemd says about why it does not."""
    facts, name = observed.facts, observed.name
    state: Condition = "running" if observed.external else condition(facts, now)
    if state == "running":
        if observed.service is None:
            return HealthVerdict(UNKNOWN, "it is in no registry, so nothing says how to ask for its health")
        return observed.verdict or HealthVerdict(UNKNOWN, "not asked yet")
    if state == "flapping":
        said = f"it was restarted {facts.restarts} times" if facts.active else explain(facts, name)
        words = (said, retry(facts).rstrip("."))
        return HealthVerdict(UNHEALTHY, "; ".join(word for word in words if word))
    if state == "failed":
        return HealthVerdict(UNHEALTHY, explain(facts, name))
    if state == "stopped":
        return HealthVerdict(UNKNOWN, "not running" if facts.exists else "its unit is not installed")
    return HealthVerdict(UNKNOWN, "not known yet" if state == "unknown" else state)


def service_status(observed: Observed, now: float) -> Status:
    """The whole status. NOW is seconds since the epoch."""
    facts, service = observed.facts, observed.service
    word = status_word(observed, now)
    health = health_of(observed, now)
    port = service.port if service else None
    unit = None if observed.external else facts.unit
    started = _time(facts.started_at) if facts.main_pid else None
    return Status(
        service_name=observed.name,
        status=word,
        pid=facts.main_pid or None,
        port=port if facts.active or observed.external else None,
        configured_port=port,
        configured_url=service.url or None if service else None,
        started_at=started,
        create_time=started,
        cpu_percent=observed.usage.cpu_percent,
        memory_mb=observed.usage.memory_mb,
        health=health.state,
        health_message=health.sentence,
        unit=unit,
        active_state=facts.active_state if unit else None,
        sub_state=facts.sub_state if unit else None,
        mode=observed.mode,
        restarts=facts.restarts,
        last_exit=last_exit(facts) or None,
        registered=service is not None,
    )


def summary(statuses: Iterable[Status]) -> str:
    """How the suite is, in a few words: "8 services: 7 healthy, 1 degraded"."""
    counts: dict[str, int] = {}
    for status in statuses:
        word = _summed(status)
        counts[word] = counts.get(word, 0) + 1
    total = sum(counts.values())
    if not total:
        return "no services"
    order = sorted(counts, key=lambda word: (word != HEALTHY, word))
    parts = ", ".join(f"{counts[word]} {word}" for word in order)
    return f"{total} service{'s' if total != 1 else ''}: {parts}"


def _summed(status: Status) -> str:
    if status["status"] == "running":
        return status["health"] if status["health"] != UNKNOWN else "running"
    return "failed" if status["status"] == "error" else status["status"]


def _time(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
