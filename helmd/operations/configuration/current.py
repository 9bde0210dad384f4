"""The configuration that helmd works by: the last one without a fault."""

from dataclasses import dataclass, field

from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.ingest.logs import plain_reading
from helmd.model.layout import Layout
from helmd.model.logs.parsing.formats import parse_message
from helmd.model.logs.parsing.parsed import Formats, Parsed
from helmd.model.suite.service import Registry, Service
from helmd.operations.configuration.load import load_formats, load_settings, load_suite


@dataclass(slots=True)
class Current:
    """``faults`` are those of the newest files; with any, ``settings`` and ``registry`` are older than the files."""

    layout: Layout
    settings: Settings = field(default_factory=Settings)
    registry: Registry = field(default_factory=lambda: Registry({}))
    formats: Formats | None = None
    faults: tuple[Fault, ...] = ()

    def load(self) -> None:
        """Reads everything anew and takes it over whole. Raises ConfigurationError, and then keeps what it had."""
        try:
            settings = load_settings(self.layout)
            registry = load_suite(self.layout, settings)
            formats = load_formats(self.layout)
        except ConfigurationError as error:
            self.faults = error.faults
            raise
        self.settings, self.registry, self.formats, self.faults = settings, registry, formats, ()

    def load_at_start(self) -> None:
        """Like `load`, but takes over what it can: Helm must serve with faulty files too."""
        try:
            self.settings = load_settings(self.layout)
            self.registry = load_suite(self.layout, self.settings)
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

    def retentions(self) -> set[int]:
        """The retention classes that are in use."""
        own = {service.retention for service in self.registry.services.values() if service.retention is not None}
        return own | {self.settings.retention}

    def read_message(self, message: str, service: str, realtime: int) -> Parsed:
        """What a posted message says by itself; REALTIME is when it was logged, in microseconds since 1970."""
        if self.formats is None:
            return plain_reading(message, service, realtime)
        return parse_message(self.formats, message, service, realtime)

    def watched(self) -> Registry:
        """The suite with Helm itself as one of its services."""
        helm = Service(
            name="helm", description="Helm: runs and watches the suite", url=self.settings.url, port=self.settings.port
        )
        return Registry({**self.registry.services, helm.name: helm})
