"""The current state of services from systemd and from health checks, without helmd."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Semaphore, Thread

from helmd.health.probe import run_probe
from helmd.health.target import probe_of
from helmd.model.layout import Layout
from helmd.model.suite.names import SUITE_CLUSTER, unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import UNHEALTHY, UNKNOWN, HealthVerdict
from helmd.model.units.unit_state import UnitFacts, oneshot_verdict, sum_up
from helmd.modules.start_block import why_blocked
from helmd.systemd.brief_facts import facts_in_brief
from helmd.systemd.bus import Manager

UNREGISTERED = "not in the registry"
_ANOTHER_AFTER = 0.01
"""Seconds without a finished health check after which one more thread is started."""


@dataclass(frozen=True, slots=True)
class View:
    """The state of one service. ``word`` summarizes it: running, degraded, unhealthy, flapping, failed, stopped ..."""

    service: Service
    facts: UnitFacts
    verdict: HealthVerdict
    word: str
    unregistered: bool = False
    blocked: str = ""
    """Why it is not started, if that is not known to its unit: sentences without full stop at the end."""

    @property
    def good(self) -> bool:
        """Whether it works, possibly degraded."""
        return self.verdict.started and self.word not in ("flapping", "failed", "stopped")


def observe_services(
    registry: Registry,
    names: Sequence[str],
    manager: Manager,
    layout: Layout,
    now: float | None = None,
    brief: bool = False,
) -> list[View]:
    """Return the state of the services NAMES. Health checks of active services run in parallel.

    With BRIEF, the facts of a service are those of `facts_in_brief`.
    """
    known = [registry[name] if name in registry else Service(name=name, type="command") for name in names]
    units = [unit_of(s.name) for s in known if not s.external]
    found = facts_in_brief(manager, units) if brief else {unit: manager.facts(unit) for unit in units}
    facts = {s.name: found.get(unit_of(s.name)) or UnitFacts(unit_of(s.name)) for s in known}
    asked = [
        s for s in known if s.name in registry and (s.external or (facts[s.name].active and not facts[s.name].oneshot))
    ]
    verdicts = run_checks({s.name: partial(check, s, layout) for s in asked})
    at = time.time() if now is None else now
    views = []
    for service in known:
        unregistered = service.name not in registry
        verdict = verdicts.get(service.name, HealthVerdict(UNKNOWN, UNREGISTERED if unregistered else "not running"))
        verdict = oneshot_verdict(facts[service.name]) or verdict
        word = sum_up(service.external, facts[service.name], verdict, at)
        blocked = "" if facts[service.name].active or service.external else why_blocked(layout, service.name)
        views.append(View(service, facts[service.name], verdict, word, unregistered, blocked))
    return views


def check(service: Service, layout: Layout) -> HealthVerdict:
    """Make one health check of a running SERVICE, bounded by its own time limit. Blocks."""
    if service.name == SUITE_CLUSTER:
        # Imported here, since a suite without a database does not need it.
        from helmd.operations.monitoring.database import check_suite_cluster

        return check_suite_cluster(service, layout)
    return run_probe(probe_of(service))


def run_checks(checks: Mapping[str, Callable[[], HealthVerdict]]) -> dict[str, HealthVerdict]:
    """Return the verdicts of CHECKS, made in parallel as far as they take long: most take less than a thread does."""
    found: dict[str, HealthVerdict] = {}
    pending = list(checks.items())
    ended = Semaphore(0)

    def ask() -> None:
        while pending:
            try:
                name, ask_one = pending.pop()
            except IndexError:
                return
            try:
                found[name] = ask_one()
            finally:
                ended.release()

    if checks:
        Thread(target=ask, daemon=True).start()
    for _ in checks:
        while not ended.acquire(timeout=_ANOTHER_AFTER):
            if pending:
                Thread(target=ask, daemon=True).start()
    return {name: found.get(name, HealthVerdict(UNHEALTHY, "could not be asked")) for name in checks}
