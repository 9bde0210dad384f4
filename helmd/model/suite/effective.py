"""The suite as far as its files have no fault: a service with one keeps the configuration that was last without."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from helmd.model.config.toml_tables import ConfigSource, parse_toml
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.suite.dependencies import find_cycle
from helmd.model.suite.names import SERVICE_NAME
from helmd.model.suite.registry import check_together, collect, read_registry, shown_cycle
from helmd.model.suite.service import Registry, Service


@dataclass(frozen=True, slots=True)
class Refused:
    """Services whose configuration is not used, by name, with the reasons.

    ``complete`` is unset when a file could not be read of which nothing is known from before: then there can be more.
    """

    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    complete: bool = True

    def __contains__(self, name: object) -> bool:
        return name in self.faults


@dataclass(frozen=True, slots=True)
class EffectiveSuite:
    """``faults`` are those of the files as they are now; ``registry`` has services that are refused as they were."""

    registry: Registry
    faults: tuple[Fault, ...] = ()
    refused: Refused = field(default_factory=Refused)


def service_of_fault(fault: Fault) -> str | None:
    """Return the service that a fault is about, if it is about one and its name is valid."""
    words = fault.where.split(".")
    return words[1] if words[0] == "services" and len(words) > 1 and SERVICE_NAME.match(words[1]) else None


def read_effective(
    sources: Sequence[ConfigSource],
    unread: Sequence[Fault],
    last: Sequence[ConfigSource],
    taken_ports: Mapping[int, str],
) -> EffectiveSuite:
    """Return the suite that SOURCES describe, where they have faults by LAST, the newest sources that had none.

    UNREAD are the faults of files that are not among SOURCES, since they could not be read.
    """
    try:
        registry = read_registry(sources, taken_ports)
        if not unread:
            return EffectiveSuite(registry)
        faults: tuple[Fault, ...] = tuple(unread)
    except ConfigurationError as error:
        faults = (*unread, *error.faults)
    merged = _Merged(sources, faults, last, taken_ports)
    return EffectiveSuite(Registry(merged.services), faults, Refused(merged.refused(), merged.complete))


class _Merged:
    """Services of faultless definitions, and of the last good ones."""

    def __init__(
        self,
        sources: Sequence[ConfigSource],
        faults: Sequence[Fault],
        last: Sequence[ConfigSource],
        taken_ports: Mapping[int, str],
    ) -> None:
        self._refused: dict[str, list[Fault]] = {}
        self._good = _registry(last, taken_ports)
        broken: dict[str, list[Fault]] = {}
        for fault in faults:
            if not fault.where.startswith("services."):
                broken.setdefault(fault.file, []).append(fault)
        before = {source.file: source for source in last}
        self.complete = all(file in before for file in broken)
        usable = with_missing([before.get(s.file, s) if s.file in broken else s for s in sources], broken, last)
        self.services, self._entries, found = collect(usable)
        for source in (*sources, *usable):
            for named in _names_in(source) if source.file in broken else ():
                if named in self.services or named in self._good:
                    self._refuse(named, broken[source.file])
        for fault in found:
            if about := service_of_fault(fault):
                self._refuse(about, [fault])
        wrong = {service_of_fault(fault) for fault in found}
        for refused in tuple(self._refused):
            self._hold(refused, wrong)
        self._check_together(taken_ports)

    def refused(self) -> dict[str, tuple[Fault, ...]]:
        return {name: tuple(dict.fromkeys(faults)) for name, faults in self._refused.items()}

    def _refuse(self, name: str, faults: Iterable[Fault]) -> None:
        self._refused.setdefault(name, []).extend(faults)

    def _hold(self, name: str, wrong: Iterable[str | None]) -> None:
        """Put the last good definition of a service in place of the one in the files."""
        if name in self._good:
            self.services[name] = self._good[name]
        elif name in wrong:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Take a service out, and those that need it."""
        self.services.pop(name, None)
        needing: dict[str, list[str]] = {}
        for service in self.services.values():
            for each in service.depends_on:
                needing.setdefault(each, []).append(service.name)
        pending = [name]
        while pending:
            needed = pending.pop()
            for other in needing.get(needed, ()):
                if other not in self.services:
                    continue
                place = self.services[other]
                sentence = f"'{needed}' can't be used, since its configuration has a fault"
                self._refuse(other, [Fault(place.file, place.line, f"services.{other}.depends_on", sentence)])
                if other in self._good and needed not in self._good[other].depends_on:
                    self.services[other] = self._good[other]
                else:
                    del self.services[other]
                    pending.append(other)

    def _check_together(self, taken_ports: Mapping[int, str]) -> None:
        """Until services fit together: one that does not is held, or taken out if it is held already."""
        while cycle := find_cycle({name: service.depends_on for name, service in self.services.items()}):
            changed = [each for each in dict.fromkeys(cycle) if not self._old(each)] or [cycle[0]]
            for name in changed:
                if name in self.services:
                    self._replace_faulty(name, self._fault_at(name, "is a cycle: " + shown_cycle(cycle)))
        while True:
            # Of two that contradict each other, the one with the older definition was there first.
            old = {each: service for each, service in self.services.items() if self._old(each)}
            faults = check_together({**old, **self.services}, self._entries, taken_ports)
            if not faults:
                return
            for fault in faults:
                if (about := service_of_fault(fault)) in self.services and about:
                    self._replace_faulty(about, fault)

    def _old(self, name: str) -> bool:
        """Return whether the service is defined as when there was no fault."""
        return name in self._good and _defined_alike(self.services[name], self._good[name])

    def _fault_at(self, name: str, sentence: str) -> Fault:
        place = self._entries.get(name, {}).get("depends_on")
        service = self.services[name]
        file, line = (place.file, place.line) if place else (service.file, service.line)
        return Fault(file, line, f"services.{name}.depends_on", sentence)

    def _replace_faulty(self, name: str, fault: Fault) -> None:
        """Record FAULT; replace the service by its last valid definition, or remove it."""
        self._refuse(name, [fault])
        if name in self._good and not self._old(name):
            self.services[name] = self._good[name]
        else:
            self._drop(name)


def _defined_alike(one: Service, other: Service) -> bool:
    """Return whether two definitions differ at most in where they are."""
    return replace(one, file="", line=0) == replace(other, file="", line=0)


def _registry(sources: Sequence[ConfigSource], taken_ports: Mapping[int, str]) -> Registry:
    try:
        return read_registry(sources, taken_ports)
    except ConfigurationError:
        # An older package kept them, and the rules or Helm's own ports have changed since.
        return Registry({})


def _names_in(source: ConfigSource) -> Iterable[str]:
    tables, _ = parse_toml(source, [])
    services = tables.get("services", {})
    return services if isinstance(services, dict) else ()


def with_missing(
    sources: list[ConfigSource], broken: Iterable[str], last: Sequence[ConfigSource]
) -> list[ConfigSource]:
    """Return SOURCES with those of LAST that are broken now and not among them, each behind what it overrides."""
    files = [source.file for source in last]
    for index, source in enumerate(last):
        present = [each.file for each in sources]
        if source.file in broken and source.file not in present:
            place = max((present.index(file) + 1 for file in files[:index] if file in present), default=0)
            sources = [*sources[:place], source, *sources[place:]]
    return sources
