"""Resource usage of each service, measured between two samples, for ``helmctl top``."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from helmd.model.suite.names import HELM_UNITS, unit_of
from helmd.model.units.unit_state import UnitFacts, condition
from helmd.systemd.bus import Manager
from helmd.systemd.usage import CGROUPS, UsageMeter, count_tasks


@dataclass(frozen=True, slots=True)
class UsageSample:
    """One unit's usage: percent of one processor, MiB, seconds; None if unknown or not running."""

    name: str
    state: str
    pid: int | None
    cpu_percent: float | None
    memory_mb: float | None
    tasks: int | None
    restarts: int
    uptime: float | None


class Sampler:
    """Takes samples of SERVICES and, if WITH_HELM, of Helm's installed units."""

    def __init__(self, manager: Manager, services: Sequence[str], with_helm: bool) -> None:
        self._manager = manager
        self._units = {name: unit_of(name) for name in services}
        own = {unit.removesuffix(".service"): unit for unit in HELM_UNITS} if with_helm else {}
        self._units |= {name: unit for name, unit in own.items() if manager.facts(unit).exists}
        self._meter = UsageMeter()

    def sample(self) -> list[UsageSample]:
        """Return current usage; processor time is None in the first call, since it is the difference of two."""
        return [self._one(name, self._manager.facts(unit)) for name, unit in self._units.items()]

    def _one(self, name: str, facts: UnitFacts) -> UsageSample:
        now = time.time()
        state = condition(facts, now)
        if not facts.control_group:
            return UsageSample(name, state, facts.main_pid or None, None, None, None, facts.restarts, None)
        usage = self._meter.measure(facts.control_group, facts.invocation, time.monotonic())
        return UsageSample(
            name,
            state,
            facts.main_pid or None,
            usage.cpu_percent,
            usage.memory_mb,
            count_tasks(CGROUPS / facts.control_group.lstrip("/")),
            facts.restarts,
            now - facts.running_since if facts.running_since else None,
        )
