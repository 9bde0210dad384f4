"""The configuration that helmd uses: the last one without a fault."""

from collections.abc import Collection
from dataclasses import dataclass, field

from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout
from helmd.model.logs.parsing.parsed import Formats
from helmd.model.suite.service import Registry, Service
from helmd.operations.configuration.effective import load_effective
from helmd.operations.configuration.last_good import keep, kept
from helmd.operations.configuration.load import (
    Configuration,
    configuration_of,
    load_formats,
    load_settings,
    read_sources,
)


@dataclass(slots=True)
class Current:
    """``faults`` are those of the newest files; with any, the rest is older than the files."""

    layout: Layout
    settings: Settings = field(default_factory=Settings)
    registry: Registry = field(default_factory=lambda: Registry({}))
    formats: Formats | None = None
    faults: tuple[Fault, ...] = ()

    def read(self) -> Configuration:
        """What the files say now; nothing is taken over, but their faults.

        A service with a fault keeps its definition (`load_effective`). Raises ConfigurationError for faults in the
        settings or the formats.
        """
        try:
            sources = read_sources(self.layout)
            found = configuration_of(sources)
        except ConfigurationError as error:
            self.faults = error.faults
            settings, formats = load_settings(self.layout), load_formats(self.layout)
            effective = load_effective(self.layout)
            self.faults = effective.faults
            return Configuration(settings, effective.registry, formats, effective.faults)
        keep(self.layout, sources)
        return found

    def adopt(self, configuration: Configuration) -> None:
        """Uses CONFIGURATION from now on, which `read` gave."""
        self.settings, self.registry, self.formats = (
            configuration.settings,
            configuration.registry,
            configuration.formats,
        )
        self.faults = configuration.faults

    def load(self) -> None:
        """Read all files, and use them if none has a fault. Otherwise raises ConfigurationError and changes nothing."""
        self.adopt(self.read())

    def load_at_start(self) -> None:
        """Like `load`, but never fails: with faulty files it uses the newest that had no fault.

        If none were kept, it takes over what it can.
        """
        try:
            self.load()
            return
        except ConfigurationError as error:
            faults = error.faults
        if (sources := kept(self.layout)) is not None:
            try:
                self.adopt(configuration_of(sources))
                self.faults = faults
                return
            except ConfigurationError:
                # An older package kept them, and the rules have changed since.
                pass
        self._load_parts()

    def _load_parts(self) -> None:
        try:
            self.settings = load_settings(self.layout)
            effective = load_effective(self.layout)
            self.registry, self.faults = effective.registry, effective.faults
        except ConfigurationError as error:
            self.faults = error.faults
        try:
            self.formats = load_formats(self.layout)
        except ConfigurationError as error:
            self.faults += error.faults

    def retention_of(self, service: str) -> int:
        """For how many days a service's log entries are kept; it need not be one of the suite."""
        own = self.registry[service].retention if service in self.registry else None
        return self.settings.retention if own is None else own

    def health_paths_of(self, service: str) -> Collection[str]:
        """The paths that Helm requests of a service to learn its health."""
        if service not in self.registry:
            return ()
        health = self.registry[service].health
        return (health.path, health.start_path) if health.check == "http" else ()

    def retentions(self) -> set[int]:
        """The retention classes that are in use."""
        own = {service.retention for service in self.registry.services.values() if service.retention is not None}
        return own | {self.settings.retention}

    @property
    def scheduled(self) -> frozenset[str]:
        """The services that are started by timers."""
        return frozenset(name for name, service in self.registry.services.items() if service.schedule)

    def watched(self) -> Registry:
        """The suite with Helm itself as one of its services."""
        helm = Service(
            name="helm", description="Helm: runs and watches the suite", url=self.settings.url, port=self.settings.port
        )
        return Registry({**self.registry.services, helm.name: helm})
