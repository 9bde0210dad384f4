"""Watches the suite: unit states from systemd's signals, health by asking, figures from control groups.

systemd is read once in full and then only where it says that something changed. Everything known is kept in memory, so
it can be told without asking anybody, and goes into the store beside that.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from helmd.health.thread_pool import ProbeResult
from helmd.journal.actions import record
from helmd.model.errors import BusError, UnknownServiceError
from helmd.model.suite.names import (
    HELM_SERVICE,
    HELM_UNITS,
    HELMD_UNIT,
    JOURNAL_UNIT,
    RESERVED_PREFIX,
    STORE_CLUSTER_UNIT,
    service_of,
    unit_of,
)
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import HEALTHY, UNKNOWN
from helmd.model.units.health_policy import judged, measured, next_check, restart_reason, restarted, seen
from helmd.model.units.status import Observed, Status, service_status
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.monitoring.recording import Recorder
from helmd.store.metrics.metrics import MetricSample
from helmd.store.metrics.service_status import StatusRow
from helmd.systemd.installed import mode_of, read_unit
from helmd.systemd.usage import UsageMeter
from helmd.systemd.watch import EVERYTHING, UnitWatch

_COMPANIONS = (JOURNAL_UNIT, STORE_CLUSTER_UNIT)
_PATTERNS = ("hivematrix-*.service", "helmd*.service")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
_LONGEST_REST = 5.0
"""Seconds after which the loop that asks for health shows a sign of life even when there is nothing to ask."""

_log = logging.getLogger(__name__)


class Monitor:
    """The suite as it is. ``ask`` makes one health check; ``line_rates`` says how many lines a second each service
    has written since it was last called, or None; ``told`` is called whenever something changed or was measured, and
    ``beat`` on all progress.
    """

    def __init__(
        self,
        ask: Callable[[Service], Awaitable[ProbeResult]],
        line_rates: Callable[[], Awaitable[Mapping[str, float] | None]],
        recorder: Recorder,
        meter: UsageMeter,
        *,
        on_change: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        self._ask = ask
        self._line_rates = line_rates
        self._recorder = recorder
        self._meter = meter
        self._on_change = on_change
        self._beat = beat
        self._registry = Registry({})
        self._interval = 15.0
        self._observed: dict[str, Observed] = {}
        self._companions: dict[str, UnitFacts] = {}
        self._watch: UnitWatch | None = None
        self._due = asyncio.Event()
        self._asking: set[str] = set()
        self.trouble = ""
        """Why the states of units can't be known right now, as a sentence; empty when they can."""

    def adopt(self, registry: Registry, interval: float) -> None:
        """The suite to watch from now on, and how often (seconds) it is measured."""
        self._registry, self._interval = registry, interval
        for name, service in registry.services.items():
            unit = "" if service.external else _unit(name)
            before = self._observed.get(name)
            if before is None or before.external != service.external:
                before = Observed(name, service, UnitFacts(unit, active_state=UNKNOWN))
            self._observed[name] = replace(before, service=service)
        for name in [name for name in self._observed if name not in registry]:
            observed = self._observed.pop(name)
            if not observed.external and observed.facts.exists:
                self._observed[name] = Observed(name, None, observed.facts, observed.mode)
        if self._watch is not None:
            self._watch.read_all()
        self._due.set()

    def status(self, name: str) -> Status:
        """One service. Raises UnknownServiceError."""
        if name not in self._observed:
            raise UnknownServiceError(f"there is no service '{name}'", hint="See: helmctl status")
        return service_status(self._observed[name], time.time())

    def statuses(self) -> dict[str, Status]:
        """All services, those of the registry in its order, then other units of the suite."""
        now = time.time()
        names = [*self._registry.names, *sorted(name for name in self._observed if name not in self._registry)]
        return {name: service_status(self._observed[name], now) for name in names if name in self._observed}

    def observed(self, name: str) -> Observed | None:
        return self._observed.get(name)

    def companion(self, unit: str) -> UnitFacts | None:
        """The facts of another of Helm's own units, None before they were read."""
        return self._companions.get(unit)

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._check(group))
            group.create_task(self._measure())

    async def _follow(self) -> NoReturn:
        """Keeps the facts of units true; a bus that broke is opened again and everything read anew."""
        pause = _FIRST_PAUSE
        while True:
            try:
                with UnitWatch() as watch:
                    self._watch = watch
                    await self._read_all(watch)
                    _log.info("%d units are watched", len(self._observed))
                    self.trouble, pause = "", _FIRST_PAUSE
                    self._on_change()
                    while True:
                        changed = await watch.changes()
                        await (self._read_all(watch) if EVERYTHING in changed else self._read(watch, changed))
            except BusError as error:
                if error.sentence != self.trouble:
                    _log.warning("%s; units are not watched until it is back", error.sentence)
                self.trouble = error.sentence
                self._on_change()
            finally:
                self._watch = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _read_all(self, watch: UnitWatch) -> None:
        loaded = watch.manager.units_like(*_PATTERNS)
        installed = watch.manager.unit_files_like(*_PATTERNS)
        ours = [_unit(name) for name, service in self._registry.services.items() if not service.external]
        units = {*loaded, *installed, *ours, *HELM_UNITS}
        await self._read(watch, units)
        for name in [name for name in self._observed if name not in self._registry and _unit(name) not in units]:
            del self._observed[name]
        self._recorder.keep_only(self._observed)
        self._put(self._observed)
        self._meter.forget(observed.facts.control_group for observed in self._observed.values())

    async def _read(self, watch: UnitWatch, units: Iterable[str]) -> None:
        changed = []
        for unit in units:
            if unit in _COMPANIONS:
                self._companions[unit] = watch.manager.facts(unit)
            elif (name := _name(unit)) is not None:
                self._see(name, watch.manager.facts(unit))
                changed.append(name)
            else:
                continue
            await asyncio.sleep(0)  # each call blocks for a millisecond; let others in between
        if changed:
            self._put(name for name in changed if name in self._observed)
            self._due.set()
            self._on_change()

    def _see(self, name: str, facts: UnitFacts) -> None:
        before = self._observed.get(name)
        if before is not None and before.external:
            return
        if before is None:
            before = Observed(name, self._registry.services.get(name), facts)
        if name not in self._registry and not facts.exists:
            self._observed.pop(name, None)
            return
        mode = mode_of(read_unit(Path(facts.fragment))) if facts.fragment else None
        self._observed[name] = seen(before, facts, mode)

    async def _check(self, group: asyncio.TaskGroup) -> NoReturn:
        """Asks services for their health when it is due: a service that has just become active at once."""
        while True:
            self._beat()
            self._due.clear()
            now = time.monotonic()
            rest = _LONGEST_REST
            for name, observed in self._observed.items():
                due = next_check(observed)
                if due is None or name in self._asking:
                    continue
                if due <= now:
                    self._asking.add(name)
                    group.create_task(self._check_one(observed))
                else:
                    rest = min(rest, due - now)
            try:
                async with asyncio.timeout(rest):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def _check_one(self, asked: Observed) -> None:
        assert asked.service is not None
        try:
            answer = await self._ask(asked.service)
        finally:
            self._asking.discard(asked.name)
        now = self._observed.get(asked.name)
        self._due.set()
        # It may have ended, or become another process, while the answer was under way.
        if now is None or not now.asked or now.facts.invocation != asked.facts.invocation:
            return
        after = judged(now, answer.verdict, answer.response_ms, time.monotonic())
        self._observed[asked.name] = after
        if reason := restart_reason(after):
            self._restart(after, reason)
        if now.verdict is None or now.verdict.state != answer.verdict.state:
            if now.verdict is not None or answer.verdict.state != HEALTHY:
                level = logging.INFO if answer.verdict.state == HEALTHY else logging.WARNING
                _log.log(level, "%s is %s: %s", asked.name, *answer.verdict)
            self._put([asked.name])
            self._on_change()

    def _restart(self, observed: Observed, reason: str) -> None:
        self._observed[observed.name] = restarted(observed)
        try:
            if self._watch is None:
                raise BusError(self.trouble)
            self._watch.manager.restart(observed.facts.unit)
        except BusError as error:
            record("restart", observed.name, "failed", reason, actor="helmd", detail=error.sentence)
            _log.error("%s can't be restarted: %s", observed.name, error.sentence)
            return
        record("restart", observed.name, "begun", reason, actor="helmd")

    async def _measure(self) -> NoReturn:
        due = time.monotonic()
        while True:
            await self._measure_once()
            due = max(due + self._interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _measure_once(self) -> None:
        rates = await self._line_rates()
        now = datetime.now(UTC)
        samples: list[MetricSample] = []
        for name in list(self._observed):
            if (observed := self._observed.get(name)) is None:
                continue
            facts = observed.facts
            if facts.active and facts.control_group:
                usage = self._meter.measure(facts.control_group, facts.invocation, time.monotonic())
                observed = self._observed[name] = measured(observed, usage)
            elif not observed.external and name not in (rates or {}):
                continue
            figures = {
                "cpu_percent": observed.usage.cpu_percent,
                "memory_mb": observed.usage.memory_mb,
                "restarts": None if observed.external else float(facts.restarts),
                "response_ms": observed.response_ms,
                "log_rate": rates.get(name, 0.0) if rates is not None and not observed.external else None,
            }
            samples += [MetricSample(name, now, key, value) for key, value in figures.items() if value is not None]
            await asyncio.sleep(0)
        self._recorder.samples(samples)
        self._put(self._observed)
        self._on_change()

    def _put(self, names: Iterable[str]) -> None:
        now = datetime.now(UTC)
        self._recorder.statuses([_row(service_status(self._observed[name], now.timestamp()), now) for name in names])


def _unit(name: str) -> str:
    return HELMD_UNIT if name == HELM_SERVICE else unit_of(name)


def _name(unit: str) -> str | None:
    """The service that is shown for UNIT; jobs are not shown as services."""
    name = service_of(unit)
    return None if name is None or name.startswith(RESERVED_PREFIX) else name


def _row(status: Status, now: datetime) -> StatusRow:
    started = status["started_at"]
    return StatusRow(
        service_name=status["service_name"],
        status=status["status"],
        last_checked=now,
        pid=status["pid"],
        port=status["port"],
        started_at=datetime.fromisoformat(started) if started else None,
        health_status=None if status["health"] == UNKNOWN else status["health"],
        health_message=status["health_message"],
        cpu_percent=status["cpu_percent"],
        memory_mb=status["memory_mb"],
    )
