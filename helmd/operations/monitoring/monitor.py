"""Monitoring the suite: unit states by D-Bus signals, health by probes, resource usage from control groups.

All units are read once, then only those that systemd reports as changed. The results are kept in memory, so that
requests are answered without I/O, and are written to the store.
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
from helmd.journal.keys import JournalKeys
from helmd.model.counted import counted
from helmd.model.errors import BusError, UnknownServiceError
from helmd.model.suite.names import (
    HELM_SERVICE,
    HELM_UNITS,
    HELMD_UNIT,
    JOURNAL_UNIT,
    RESERVED_PREFIX,
    STORE_CLUSTER_UNIT,
    service_behind,
    service_of_timer,
    unit_of,
)
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import HEALTHY, UNKNOWN
from helmd.model.units.health_policy import (
    checked_again,
    judged,
    measured,
    next_check,
    proven,
    restart_reason,
    restarted,
    seen,
)
from helmd.model.units.status import Observed, Status, health_share, service_status
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.monitoring.recording import Recorder
from helmd.store.metrics.metrics import MetricSample
from helmd.store.metrics.service_status import StatusRow
from helmd.systemd.installed import mode_in_file
from helmd.systemd.usage import UsageMeter
from helmd.systemd.watch import EVERYTHING, UnitWatch

_OTHER_UNITS = (JOURNAL_UNIT, STORE_CLUSTER_UNIT)
_PATTERNS = ("hivematrix-*.service", "helmd*.service")
_FIRST_PAUSE, _MAX_PAUSE = 0.2, 2.0
_MAX_WAIT = 5.0
"""Maximum seconds between two calls of ``beat`` by the health check loop."""

_log = logging.getLogger(__name__)


class Monitor:
    """The current state of the suite.

    ``ask`` makes one health check. ``line_rates`` returns the log lines per second of each service since its last
    call, or None. ``keys`` sign the records of restarts in the journal. ``on_change`` is called after every change and
    measurement, ``beat`` at every iteration of the health check loop, for the watchdog, ``on_job`` when the unit of a
    job may have changed. ``blocked`` says why a service is not started now, if something but its unit does.
    """

    def __init__(
        self,
        ask: Callable[[Service], Awaitable[ProbeResult]],
        line_rates: Callable[[], Awaitable[Mapping[str, float] | None]],
        recorder: Recorder,
        meter: UsageMeter,
        keys: JournalKeys,
        *,
        on_change: Callable[[], None],
        beat: Callable[[], None],
        on_job: Callable[[], None] = lambda: None,
        blocked: Callable[[str], str] = lambda name: "",
    ) -> None:
        self._ask = ask
        self._line_rates = line_rates
        self._recorder = recorder
        self._meter = meter
        self._keys = keys
        self._on_change = on_change
        self._beat = beat
        self._on_job = on_job
        self._blocked = blocked
        self._registry = Registry({})
        self._interval = 15.0
        self._observed: dict[str, Observed] = {}
        self._companions: dict[str, UnitFacts] = {}
        self._watch: UnitWatch | None = None
        self._due = asyncio.Event()
        self._wakes_at = 0.0
        """When the health check loop looks at all services next (time.monotonic()), unless ``_due`` is set."""
        self._asking: set[str] = set()
        self.trouble = ""
        """Why unit states are currently unknown, as a sentence; empty if they are known."""

    def adopt(self, registry: Registry, interval: float) -> None:
        """Monitor REGISTRY from now on, and measure usage every INTERVAL seconds."""
        self._interval = interval
        if registry == self._registry:
            return
        self._registry, unread = registry, []
        for name, service in registry.services.items():
            unit = "" if service.external else _unit(name)
            before = self._observed.get(name)
            if before is None or before.external != service.external:
                before = Observed(name, service, UnitFacts(unit, active_state=UNKNOWN))
                unread += [unit] if unit else []
            self._observed[name] = replace(before, service=service)
        for name in [name for name in self._observed if name not in registry]:
            observed = self._observed.pop(name)
            if not observed.external and observed.facts.exists:
                self._observed[name] = Observed(name, None, observed.facts, observed.mode)
        if self._watch is not None:
            # Of all others, systemd has reported every change.
            self._watch.report(unread)
            self._recorder.keep_only(self._observed)
            self._record(name for name, observed in self._observed.items() if observed.facts.unit not in unread)
            self._on_change()
        self._due.set()

    def status(self, name: str) -> Status:
        """Return the status of one service. Raises UnknownServiceError."""
        if name not in self._observed:
            raise UnknownServiceError(f"there is no service '{name}'", hint="See: helmctl status")
        return service_status(self._observed[name], time.time())

    def statuses(self) -> dict[str, Status]:
        """Return the status of all services: those of the registry in its order, then other units of the suite."""
        now = time.time()
        names = [*self._registry.names, *sorted(name for name in self._observed if name not in self._registry)]
        return {name: service_status(self._observed[name], now) for name in names if name in self._observed}

    def observed(self, name: str) -> Observed | None:
        return self._observed.get(name)

    def companion(self, unit: str) -> UnitFacts | None:
        """Return the properties of one of Helm's other units, or None before they were read."""
        return self._companions.get(unit)

    async def run(self) -> None:
        """Monitor until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._check(group))
            group.create_task(self._measure())

    async def _follow(self) -> NoReturn:
        """Keep unit properties up to date; after a bus error, reconnect and read all units again."""
        pause = _FIRST_PAUSE
        while True:
            try:
                with UnitWatch() as watch:
                    self._watch = watch
                    await self._read_all(watch)
                    self._on_job()
                    _log.info("%d units are watched", len(self._observed))
                    self.trouble, pause = "", _FIRST_PAUSE
                    self._on_change()
                    while True:
                        changed = await watch.changes()
                        if EVERYTHING in changed or any(map(_is_job, changed)):
                            self._on_job()
                        await (self._read_all(watch) if EVERYTHING in changed else self._read(watch, changed))
            except BusError as error:
                if error.sentence != self.trouble:
                    _log.warning("%s; units are not watched until it is back", error.sentence)
                self.trouble = error.sentence
                self._on_change()
            finally:
                self._watch = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_PAUSE)

    async def _read_all(self, watch: UnitWatch) -> None:
        loaded = watch.manager.units_like(*_PATTERNS)
        installed = watch.manager.unit_files_like(*_PATTERNS)
        configured = [_unit(name) for name, service in self._registry.services.items() if not service.external]
        units = {*loaded, *installed, *configured, *HELM_UNITS}
        await self._read(watch, units)
        for name in [name for name in self._observed if name not in self._registry and _unit(name) not in units]:
            del self._observed[name]
        self._recorder.keep_only(self._observed)
        self._record(self._observed)
        self._meter.forget(observed.facts.control_group for observed in self._observed.values())

    async def _read(self, watch: UnitWatch, units: Iterable[str]) -> None:
        changed = []
        for unit in units:
            if unit in _OTHER_UNITS:
                self._companions[unit] = watch.manager.facts(unit)
            elif (name := _name(unit)) is not None:
                before = self._observed.get(name)
                self._update(name, watch.manager.facts(_unit(name) if service_of_timer(unit) else unit))
                changed.append(name)
                now = self._observed.get(name)
                if now is not None and now.facts.active and not (before is not None and before.facts.active):
                    self._check_dependents(name)
            else:
                continue
            await asyncio.sleep(0)  # facts() blocks for a millisecond
        if changed:
            self._recorder.keep_only(self._observed)
            self._record(name for name in changed if name in self._observed)
            self._due.set()
            self._on_change()

    def _check_dependents(self, name: str) -> None:
        """Check failing services immediately that depend on the service NAME, which works again."""
        for other, observed in self._observed.items():
            if (again := checked_again(observed, name)) is not observed:
                self._observed[other] = again
                self._due.set()

    def _update(self, name: str, facts: UnitFacts) -> None:
        before = self._observed.get(name)
        if before is not None and before.external:
            return
        if before is None:
            before = Observed(name, self._registry.services.get(name), facts)
        if name not in self._registry and not facts.exists:
            self._observed.pop(name, None)
            return
        mode = mode_in_file(Path(facts.fragment)) if facts.fragment else None
        self._observed[name] = self._with_block(seen(before, facts, mode))

    def _with_block(self, observed: Observed) -> Observed:
        stays = observed.external or observed.facts.active
        return replace(observed, blocked="" if stays else self._blocked(observed.name))

    async def _check(self, group: asyncio.TaskGroup) -> NoReturn:
        """Start health checks that are due; a service that became active is checked at once."""
        while True:
            self._beat()
            self._due.clear()
            now = time.monotonic()
            wait = _MAX_WAIT
            for name, observed in self._observed.items():
                due = next_check(observed)
                if due is None or name in self._asking:
                    continue
                if due <= now:
                    self._asking.add(name)
                    group.create_task(self._check_one(observed))
                else:
                    wait = min(wait, due - now)
            self._wakes_at = now + wait
            try:
                async with asyncio.timeout(wait):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def _check_one(self, checked: Observed) -> None:
        assert checked.service is not None
        try:
            result = await self._ask(checked.service)
        finally:
            self._asking.discard(checked.name)
        now = self._observed.get(checked.name)
        # The process may have ended or been replaced during the check.
        if now is None or not now.has_health_check or now.facts.invocation != checked.facts.invocation:
            self._due.set()
            return
        after = judged(now, result.verdict, result.response_ms, time.monotonic())
        self._observed[checked.name] = after
        if (next_check(after) or 0.0) < self._wakes_at:
            self._due.set()
        if now.failures and result.verdict.started:
            self._check_dependents(checked.name)
        if reason := restart_reason(after):
            self._restart(after, reason)
        elif proven(after, time.time()):
            self._clear_starts(after)
        if now.verdict is None or now.verdict.state != result.verdict.state:
            if now.verdict is not None or result.verdict.state != HEALTHY:
                level = logging.INFO if result.verdict.state == HEALTHY else logging.WARNING
                _log.log(level, "%s is %s: %s", checked.name, *result.verdict)
            self._record([checked.name])
            self._on_change()

    def _restart(self, observed: Observed, reason: str) -> None:
        self._observed[observed.name] = restarted(observed)
        try:
            if self._watch is None:
                raise BusError(self.trouble)
            self._watch.manager.restart(observed.facts.unit)
        except BusError as error:
            record(self._keys, "restart", observed.name, "failed", reason, actor="helmd", detail=error.sentence)
            _log.error("%s can't be restarted: %s", observed.name, error.sentence)
            return
        record(self._keys, "restart", observed.name, "begun", reason, actor="helmd")

    def _clear_starts(self, observed: Observed) -> None:
        """Reset the start counter of a service in systemd, which also resets the number of restarts."""
        unit = observed.facts.unit
        try:
            if self._watch is None:
                return  # The next check is soon enough.
            self._watch.manager.reset_failed(unit)
            self._update(observed.name, self._watch.manager.facts(unit))
        except BusError as error:
            _log.warning("the start count of %s can't be cleared: %s", observed.name, error.sentence)
            return
        times = counted(observed.facts.restarts, "restart")
        _log.info("%s is healthy: its %s do not count towards its start limit any more", observed.name, times)

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
            if not facts.active:
                # Its end does not change the unit.
                observed = self._observed[name] = self._with_block(observed)
            if facts.runs and facts.control_group:
                usage = self._meter.measure(facts.control_group, facts.invocation, time.monotonic())
                observed = self._observed[name] = measured(observed, usage)
            elif not observed.external and name not in (rates or {}):
                if (share := health_share(observed, now.timestamp())) is not None:
                    samples.append(MetricSample(name, now, "health", share))
                continue
            values = {
                "cpu_percent": observed.usage.cpu_percent,
                "memory_mb": observed.usage.memory_mb,
                "restarts": None if observed.external else float(facts.restarts),
                "response_ms": observed.response_ms,
                "health": health_share(observed, now.timestamp()),
                "log_rate": rates.get(name, 0.0) if rates is not None and not observed.external else None,
            }
            samples += [MetricSample(name, now, key, value) for key, value in values.items() if value is not None]
            await asyncio.sleep(0)
        self._recorder.samples(samples)
        self._record(self._observed)
        self._on_change()

    def _record(self, names: Iterable[str]) -> None:
        now = datetime.now(UTC)
        self._recorder.statuses([_row(service_status(self._observed[name], now.timestamp()), now) for name in names])


def _unit(name: str) -> str:
    return HELMD_UNIT if name == HELM_SERVICE else unit_of(name)


def _name(unit: str) -> str | None:
    """Return the service that UNIT or its timer runs, or None for jobs, Helm's other units, and units of others."""
    name = service_behind(unit)
    if name is None or name.startswith(RESERVED_PREFIX) or (name == HELM_SERVICE and unit != HELMD_UNIT):
        return None
    return name


def _is_job(unit: str) -> bool:
    name = service_behind(unit)
    return name is not None and name.startswith(RESERVED_PREFIX)


def _row(status: Status, now: datetime) -> StatusRow:
    return StatusRow(
        service_name=status.service_name,
        status=status.status,
        last_checked=now,
        pid=status.pid,
        port=status.port,
        started_at=status.started_at,
        health_status=None if status.health == UNKNOWN else status.health,
        health_message=status.health_message,
        cpu_percent=status.cpu_percent,
        memory_mb=status.memory_mb,
    )
