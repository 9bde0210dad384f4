"""Decisions of the monitor: which results stay valid, when to check a service's health, when to restart it."""

from dataclasses import replace

from helmd.model.units.health import HealthVerdict
from helmd.model.units.status import Observed, Usage
from helmd.model.units.unit_state import UnitFacts


def seen(before: Observed, facts: UnitFacts, mode: str | None) -> Observed:
    """Return BEFORE with newer unit properties. Health and usage are kept only while it is the same process."""
    old = before.facts
    same = facts.runs and (facts.invocation, facts.main_pid) == (old.invocation, old.main_pid)
    if same or before.external:
        return replace(before, facts=facts, mode=mode)
    return Observed(before.name, before.service, facts, mode)


def next_check(observed: Observed) -> float | None:
    """Return when the next health check is due (time.monotonic()); 0 for at once, None for never."""
    if observed.service is None or not observed.has_health_check:
        return None
    return observed.checked_at + observed.service.health.interval if observed.verdict else 0.0


def judged(observed: Observed, verdict: HealthVerdict, response_ms: float | None, at: float) -> Observed:
    """Return OBSERVED with the result of a health check made at AT (time.monotonic())."""
    failures = 0 if verdict.started else observed.failures + 1
    return replace(observed, verdict=verdict, response_ms=response_ms, checked_at=at, failures=failures)


def measured(observed: Observed, usage: Usage) -> Observed:
    return replace(observed, usage=usage)


def restart_reason(observed: Observed) -> str | None:
    """Return why the service must be restarted now, as a sentence, or None.

    Only for ``on_unhealthy = "restart"``, and not while systemd runs a job of the unit.
    """
    service = observed.service
    if service is None or service.external or service.on_unhealthy != "restart":
        return None
    if not observed.facts.active or observed.facts.job or observed.failures < service.unhealthy_after:
        return None
    said = observed.verdict.sentence if observed.verdict else "no answer"
    times = f"{observed.failures} times in a row" if observed.failures > 1 else "once"
    return f"its health check failed {times}: {said}"


def restarted(observed: Observed) -> Observed:
    """Return OBSERVED with the failure count reset, after a restart was requested."""
    return replace(observed, failures=0)
