"""Decisions of the monitor: which results stay valid, when to check a service's health, when to restart it, when its
restarts do not count any more.
"""

from dataclasses import replace
from zlib import crc32

from helmd.model.units.health import HealthVerdict
from helmd.model.units.status import Observed, Usage
from helmd.model.units.unit_state import UnitFacts

SLOWEST_CHECKS = 60.0
"""Seconds between the checks of a service that keeps failing, if its interval is not longer."""
PROVEN_SECONDS = 60.0
"""Seconds for which a service must have been active, and be healthy, for its earlier restarts not to count any more."""


def seen(before: Observed, facts: UnitFacts, mode: str | None) -> Observed:
    """Return BEFORE with newer unit properties. Health and usage are kept only while it is the same process."""
    old = before.facts
    same = facts.runs and (facts.invocation, facts.main_pid) == (old.invocation, old.main_pid)
    if same or before.external:
        return replace(before, facts=facts, mode=mode)
    return Observed(before.name, before.service, facts, mode)


def next_check(observed: Observed) -> float | None:
    """Return when the next health check is due (time.monotonic()); 0 for at once, None for never.

    Checks of services that were started together are spread over the interval: each service's are due at whole seconds
    of its own, an interval apart, the second one half an interval to one and a half after the first. The pause after
    each failed check is twice the last one, since many services log each at length, such as Keycloak while its database
    is down; not before a service is restarted after this number of failures.
    """
    if observed.service is None or not observed.has_health_check:
        return None
    if observed.verdict is None:
        return 0.0
    interval, failures = observed.service.health.interval, observed.failures
    if failures < 2 or observed.service.on_unhealthy == "restart":
        earliest = observed.checked_at + interval / 2
        return earliest + (crc32(observed.name.encode()) % max(1, int(interval)) - earliest) % interval
    return observed.checked_at + max(interval, min(interval * 2.0 ** min(failures - 1, 30), SLOWEST_CHECKS))


def checked_again(observed: Observed, needed: str) -> Observed:
    """Return OBSERVED so that a failing service is checked at once, if it depends on NEEDED, which works again."""
    service = observed.service
    if service is None or not observed.failures or needed not in service.depends_on:
        return observed
    return replace(observed, checked_at=0.0, failures=observed.failures if service.on_unhealthy == "restart" else 1)


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


def proven(observed: Observed, now: float) -> bool:
    """Return whether to clear the start count of a service that is near its limit: it works, however often it has
    failed.

    systemd counts all starts, and the interval is long enough for starts that time out; so it would give up on one that
    ends now and then after it was healthy. What the admin sets as ``restart.within`` is left to systemd. NOW is seconds
    since the epoch.
    """
    service, facts = observed.service, observed.facts
    if service is None or service.external or service.restart.within is not None or facts.job or not facts.active:
        return False
    well = observed.verdict is not None and observed.verdict.started
    return well and facts.restarts >= max(1, service.restart.burst - 1) and now - facts.active_since >= PROVEN_SECONDS


def restarted(observed: Observed) -> Observed:
    """Return OBSERVED with the failure count reset, after a restart was requested."""
    return replace(observed, failures=0)
