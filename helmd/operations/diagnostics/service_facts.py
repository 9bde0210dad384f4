"""Facts of a service besides its status: drift of its unit, environment, ports, usage of limits."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from helmd.files.environment_file import parse_environment_file
from helmd.health.listeners import unit_listeners
from helmd.health.thread_pool import ThreadPool
from helmd.model.api.details import ProcessesReply, UnitReply
from helmd.model.config.registry_edit import MASK, masked, text_difference
from helmd.model.errors import ConfigurationError, HelmError
from helmd.model.layout import Layout
from helmd.model.suite.names import MODES, Mode, timer_of, unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.units.status import Observed
from helmd.operations.configuration.apply import ChangeKind, changes
from helmd.operations.configuration.effective import load_effective
from helmd.operations.monitoring.code_versions import CodeVersion, code_version
from helmd.operations.monitoring.details import processes_reply, unit_reply
from helmd.systemd.render import mode_environment

DRIFT_SECONDS = 10.0
"""Maximum age in seconds of a comparison of units with the registry, which renders all of them."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a service's environment. ``value`` is masked where it looks like a secret."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port on which a service listens."""

    address: str
    port: int
    declared: bool


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A limit of a service, and its usage, None if unknown."""

    name: str
    setting: str
    used: float | None
    limit: float | None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """A unit of a service that differs from its rendering. ``kind`` is as in `Change`."""

    unit: str
    kind: ChangeKind
    diff: str
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """``unit`` is None for an external service; ``drift_error`` says why drift is not known."""

    unit: UnitReply | None
    drift: tuple[Drift, ...]
    drift_error: str
    environment: tuple[Variable, ...]
    ports: tuple[Port, ...]
    processes: ProcessesReply
    limits: tuple[LimitUse, ...]
    version: CodeVersion | None


class ServiceFactsReader:
    """Reads files of services in threads, since a file system may hang."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._threads = ThreadPool(4)
        self._drifts: tuple[float, dict[str, tuple[Drift, ...]] | str] | None = None

    async def read(self, observed: Observed) -> ServiceFacts:
        """Return all about one service."""
        return await self._threads.run(lambda: self._read(observed))

    def _read(self, observed: Observed) -> ServiceFacts:
        service, group = observed.service, observed.facts.control_group
        processes = processes_reply(observed)
        drifts = {} if observed.external else self._all_drifts()
        listeners = unit_listeners(group) if group else []
        return ServiceFacts(
            unit=None if observed.external else unit_reply(observed),
            drift=() if isinstance(drifts, str) else drifts.get(observed.name, ()),
            drift_error=drifts if isinstance(drifts, str) else "",
            environment=()
            if service is None or service.external
            else tuple(shown_environment(service, observed.mode, self._layout)),
            ports=tuple(
                Port(address, port, service is not None and port == service.port)
                for address, port in sorted({(each.address, each.port) for each in listeners})
            ),
            processes=processes,
            limits=() if service is None else tuple(limits_of(service, observed, processes)),
            version=None if service is None else code_version(self._layout, service),
        )

    def _all_drifts(self) -> dict[str, tuple[Drift, ...]] | str:
        """Return the drifts of all services, or why they are unknown."""
        now = time.monotonic()
        if self._drifts is None or now - self._drifts[0] >= DRIFT_SECONDS:
            found: dict[str, tuple[Drift, ...]] | str
            try:
                found = dict(_drifts(self._layout))
            except (HelmError, OSError) as error:
                found = error.sentence if isinstance(error, HelmError) else str(error)
            self._drifts = now, found
        return self._drifts[1]


def _drifts(layout: Layout) -> Iterator[tuple[str, tuple[Drift, ...]]]:
    effective = load_effective(layout)
    registry: Registry = effective.registry
    found = changes(registry, layout, effective.settings, refused=effective.refused)
    for name in registry.names:
        own = (unit_of(name), timer_of(name))
        yield (
            name,
            tuple(
                Drift(
                    each.unit,
                    each.kind,
                    "" if each.kind in ("refused", "foreign") else text_difference(each.before, each.after, each.unit),
                    tuple(map(str, each.faults)),
                )
                for each in found
                if each.unit in own and each.kind != "same"
            ),
        )


def shown_environment(service: Service, mode: str | None, layout: Layout) -> Iterator[Variable]:
    """Yield what the service finds in its environment: by Helm, by services.toml, and from its file of secrets."""
    chosen: Mode = next((each for each in MODES if each == mode), MODES[0])
    own = service.environment_in(chosen)
    for name, value in sorted({**mode_environment(service, chosen), **own}.items()):
        shown = masked({name: value})[name]
        yield Variable(name, str(shown), "services.toml" if name in own else "Helm")
    path = layout.secrets_file(service.name)
    try:
        secrets = parse_environment_file(path.read_text(encoding="utf-8", errors="surrogateescape"), str(path))
    except (OSError, ConfigurationError):
        return
    for name in sorted(secrets):
        yield Variable(name, MASK, f"secrets/{path.name}")


def limits_of(service: Service, observed: Observed, processes: ProcessesReply) -> Iterator[LimitUse]:
    limits, usage = service.limits, observed.usage
    running = bool(processes.processes)
    tasks = float(sum(each.threads for each in processes.processes)) if running else None
    high, most = (None if each is None else each / _MIB for each in (limits.memory_high, limits.memory_max))
    if high is not None:
        yield LimitUse("Memory before it is throttled", "limits.memory_high", usage.memory_mb, high, "MiB")
    yield LimitUse("Memory", "limits.memory_max", usage.memory_mb, most, "MiB")
    yield LimitUse("CPU", "limits.cpu_percent", usage.cpu_percent, limits.cpu_percent, "%")
    yield LimitUse("Threads and processes", "limits.tasks", tasks, limits.tasks)
    files = max((_open_files(each.pid) or 0 for each in processes.processes), default=0)
    yield LimitUse("Open files of a process", "limits.open_files", float(files) if files else None, limits.open_files)


def _open_files(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
