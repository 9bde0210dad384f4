"""The status of a service as the API reports it (docs/api.md): unit properties, health and resource usage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from helmd.model.counted import counted
from helmd.model.json_fields import described
from helmd.model.suite.service import Service
from helmd.model.units.health import DEGRADED, HEALTHY, UNHEALTHY, UNKNOWN, HealthVerdict
from helmd.model.units.unit_state import (
    Condition,
    UnitFacts,
    condition,
    explain,
    last_exit,
    next_run,
    oneshot_verdict,
    retry,
    sum_up,
)

Word = Literal["running", "stopped", "starting", "stopping", "error", "unknown"]

_WORDS: Mapping[Condition, Word] = {
    "running": "running",
    "starting": "starting",
    "stopping": "stopping",
    "stopped": "stopped",
    "flapping": "error",
    "failed": "error",
    "succeeded": "stopped",
    "scheduled": "stopped",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource usage of a service's processes: percent of one processor, and MiB. None if unknown."""

    cpu_percent: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything known about a service. ``service`` is None for a unit that is not in the registry.

    ``verdict`` is the last health check of the current process, None before the first one; ``checked_at`` is its
    time.monotonic().
    """

    name: str
    service: Service | None
    facts: UnitFacts
    mode: str | None = None
    verdict: HealthVerdict | None = None
    checked_at: float = 0.0
    failures: int = 0
    """Number of consecutive failed health checks."""
    response_ms: float | None = None
    usage: Usage = field(default_factory=Usage)
    blocked: str = ""
    """Why it is not started now, which its unit does not say: sentences without full stop at the end."""

    @property
    def external(self) -> bool:
        return self.service is not None and self.service.external

    @property
    def has_health_check(self) -> bool:
        """Whether health checks are made: for external services always, for others while they run, unless oneshot."""
        runs = self.facts.active and not self.facts.oneshot
        return self.service is not None and (self.service.external or runs)


_NOT_RUNNING = "not running"


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a service."""

    service_name: str = field(metadata=described("the service", example="core"))
    status: Word = field(metadata=described("the state in one of six words"))
    state: str = field(
        metadata=described(
            "the same more precisely, as helmctl status shows it: healthy, degraded, unhealthy, flapping, failed, ...;"
            " of a oneshot running, succeeded (it is stopped, too), scheduled (the same), failed",
            example="healthy",
        )
    )
    pid: int | None = field(metadata=described("the main process", example=812))
    port: int | None = field(metadata=described("the port, while the service runs", example=5000))
    configured_port: int | None = field(metadata=described("the port in the registry", example=5000))
    configured_url: str | None = field(metadata=described("the URL in the registry", example="http://localhost:5000"))
    started_at: datetime | None = field(metadata=described("when the main process started"))
    create_time: datetime | None = field(metadata=described("the same as started_at"))
    cpu_percent: float | None = field(metadata=described("percent of one processor", example=1.5, minimum=0))
    memory_mb: float | None = field(metadata=described("MiB", example=61.3, minimum=0))
    health: str = field(
        metadata=described(
            "the last check's result; a oneshot that runs, has succeeded or waits for its schedule is healthy",
            enum=[HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN],
        )
    )
    health_message: str = field(
        metadata=described(
            "the last check's result, or why there is none; of a oneshot its last and its next run", example="HTTP 200"
        )
    )
    unit: str | None = field(
        metadata=described("the systemd unit; null for external services", example="hivematrix-core.service")
    )
    active_state: str | None = field(metadata=described("as systemd has it", example="active"))
    sub_state: str | None = field(metadata=described("as systemd has it", example="running"))
    mode: str | None = field(metadata=described("development or production", example="production"))
    restarts: int = field(metadata=described("automatic restarts of the unit", example=0, minimum=0))
    last_exit: str | None = field(metadata=described("how the last process ended"))
    ended_at: datetime | None = field(metadata=described("when it ended"))
    next_run: datetime | None = field(metadata=described("when the schedule of a oneshot starts it next"))
    registered: bool = field(
        metadata=described("whether the registry has it; other hivematrix-* units are monitored, too", example=True)
    )


def status_word(observed: Observed, now: float) -> Word:
    """Return the value of ``status``. NOW is seconds since the epoch."""
    if observed.external:
        if observed.verdict is None:
            return "unknown"
        return "running" if observed.verdict.started else "error"
    return _WORDS[condition(observed.facts, now)]


def health_of(observed: Observed, now: float) -> HealthVerdict:
    """Return the last health check's verdict while the service runs, else one by the unit's state."""
    facts, name = observed.facts, observed.name
    pre_start = observed.service.pre_start if observed.service else ()
    if verdict := oneshot_verdict(facts):
        return verdict
    state: Condition = "running" if observed.external else condition(facts, now)
    if state == "running":
        if observed.service is None:
            return HealthVerdict(UNKNOWN, "it is not in the registry, so no health check is configured")
        return observed.verdict or HealthVerdict(UNKNOWN, "not checked yet")
    if observed.blocked and state in ("flapping", "failed", "stopped"):
        return HealthVerdict(UNKNOWN if state == "stopped" else UNHEALTHY, observed.blocked)
    if state == "flapping":
        again = f"it was restarted {counted(facts.restarts, 'time')}"
        reason = again if facts.active else explain(facts, name, pre_start)
        parts = (reason, retry(facts).rstrip("."))
        return HealthVerdict(UNHEALTHY, "; ".join(part for part in parts if part))
    if state == "failed":
        return HealthVerdict(UNHEALTHY, "; ".join(filter(None, (explain(facts, name, pre_start), next_run(facts)))))
    if state == "stopped":
        return HealthVerdict(UNKNOWN, _NOT_RUNNING if facts.exists else "its unit is not installed")
    return HealthVerdict(UNKNOWN, "not known yet" if state == "unknown" else state)


def health_share(observed: Observed, now: float) -> float | None:
    """1 while a service is healthy, 0.5 while it is degraded, 0 while it does not work, None while it need not run or
    that is not known. NOW is seconds since the epoch.
    """
    return {HEALTHY: 1.0, DEGRADED: 0.5, UNHEALTHY: 0.0}.get(health_of(observed, now).state)


def service_status(observed: Observed, now: float) -> Status:
    """Return the status of a service for the API. NOW is seconds since the epoch."""
    facts, service = observed.facts, observed.service
    word = status_word(observed, now)
    health = health_of(observed, now)
    port = service.port if service else None
    unit = None if observed.external else facts.unit
    started = _time(facts.started_at) if facts.main_pid else None
    return Status(
        service_name=observed.name,
        status=word,
        state=sum_up(observed.external, facts, health, now),
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
        ended_at=_time(facts.ended_at),
        next_run=_time(facts.next_run),
        registered=service is not None,
    )


def why_not_serving(status: Status) -> str:
    """Return why a service does not serve as it should, or is kept from being started.

    Empty where its state says all.
    """
    kept = status.state == "stopped" and status.health_message != _NOT_RUNNING
    return status.health_message if kept or status.health in (DEGRADED, UNHEALTHY) else ""


def summary(statuses: Iterable[Status]) -> str:
    """Return the number of services by health or state: "8 services: 7 healthy, 1 degraded"."""
    counts: dict[str, int] = {}
    for status in statuses:
        word = _summary_word(status)
        counts[word] = counts.get(word, 0) + 1
    total = sum(counts.values())
    if not total:
        return "no services"
    order = sorted(counts, key=lambda word: (word != HEALTHY, word))
    parts = ", ".join(f"{counts[word]} {word}" for word in order)
    return f"{counted(total, 'service')}: {parts}"


def _summary_word(status: Status) -> str:
    if status.state in ("succeeded", "scheduled"):
        return status.state
    if status.status == "running":
        return status.health if status.health != UNKNOWN else "running"
    return "failed" if status.status == "error" else status.status


def _time(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
