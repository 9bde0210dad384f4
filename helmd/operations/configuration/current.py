"""The configuration that helmd uses: the last one without faults."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout
from helmd.model.logs.parsing.parsed import Formats
from helmd.model.suite.service import Registry, Service
from helmd.operations.configuration.effective import load_effective
from helmd.operations.configuration.last_good import read_last_good, save_last_good
from helmd.operations.configuration.load import (
    Configuration,
    configuration_of,
    load_formats,
    load_settings,
    read_sources,
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Current:
    """The configuration in use. ``faults`` are those of the present files; with any, the rest is older than these."""

    layout: Layout
    settings: Settings = field(default_factory=Settings)
    registry: Registry = field(default_factory=lambda: Registry({}))
    formats: Formats | None = None
    faults: tuple[Fault, ...] = ()

    def read(self) -> Configuration:
        """Read the files. Of the result, only the faults are used before `adopt` is called.

        A service with a fault keeps its last good definition (`load_effective`). Raises ConfigurationError for faults
        in the settings or the formats.
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
        self.faults = ()
        save_last_good(self.layout, sources)
        return found

    def adopt(self, configuration: Configuration) -> None:
        """Use CONFIGURATION, returned by `read`, from now on."""
        self.settings, self.registry, self.formats = (
            configuration.settings,
            configuration.registry,
            configuration.formats,
        )
        self.faults = configuration.faults

    def load(self) -> None:
        """Read the files and use them. Raises as `read`; then the configuration in use does not change."""
        self.adopt(self.read())

    def log_faults(self) -> None:
        """Log each of ``faults``, with its file and line."""
        for fault in self.faults:
            _log.error("%s", fault)

    def load_at_start(self) -> None:
        """Like `load`, but without raising: instead of faulty files, use those last saved without faults.

        If none were saved, use defaults in place of the faulty parts.
        """
        try:
            self.load()
            return
        except ConfigurationError as error:
            faults = error.faults
        if (sources := read_last_good(self.layout)) is not None:
            try:
                self.adopt(configuration_of(sources))
                self.faults = faults
                return
            except ConfigurationError:
                # They were saved by an older package, and the rules have changed since.
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
        """Return for how many days log entries of SERVICE, which need not be in the suite, are kept."""
        own = self.registry[service].retention if service in self.registry else None
        return self.settings.retention if own is None else own

    def health_paths_of(self, service: str) -> Collection[str]:
        """Return the paths that Helm's health checks of SERVICE request."""
        if service not in self.registry:
            return ()
        health = self.registry[service].health
        return (health.path, health.start_path) if health.check == "http" else ()

    def retentions(self) -> set[int]:
        """Return the retention classes in use, in days."""
        own = {service.retention for service in self.registry.services.values() if service.retention is not None}
        return own | {self.settings.retention}

    @property
    def scheduled(self) -> frozenset[str]:
        """The names of the services that timers start."""
        return frozenset(name for name, service in self.registry.services.items() if service.schedule)

    def watched(self) -> Registry:
        """Return the suite with Helm itself as one of its services, as it is monitored."""
        helm = Service(
            name="helm", description="Helm: runs and watches the suite", url=self.settings.url, port=self.settings.port
        )
        return Registry({**self.registry.services, helm.name: helm})
