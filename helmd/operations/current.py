"""The configuration that helmd works by: the last one without a fault."""

from dataclasses import dataclass, field

from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout
from helmd.model.service import Registry, Service
from helmd.model.settings import Settings
from helmd.operations.configuration import load_settings, load_suite


@dataclass(slots=True)
class Current:
    """``faults`` are those of the newest files; with any, ``settings`` and ``registry`` are older than the files."""

    layout: Layout
    settings: Settings = field(default_factory=Settings)
    registry: Registry = field(default_factory=lambda: Registry({}))
    faults: tuple[Fault, ...] = ()

    def load(self) -> None:
        """Reads everything anew and takes it over whole. Raises ConfigurationError, and then keeps what it had."""
        try:
            settings = load_settings(self.layout)
            registry = load_suite(self.layout, settings)
        except ConfigurationError as error:
            self.faults = error.faults
            raise
        self.settings, self.registry, self.faults = settings, registry, ()

    def load_at_start(self) -> None:
        """Like `load`, but takes over what it can: Helm must serve with faulty files too."""
        try:
            self.settings = load_settings(self.layout)
            self.registry = load_suite(self.layout, self.settings)
        except ConfigurationError as error:
            self.faults = error.faults

    def watched(self) -> Registry:
        """The suite with Helm itself as one of its services."""
        helm = Service(
            name="helm", description="Helm: runs and watches the suite", url=self.settings.url, port=self.settings.port
        )
        return Registry({**self.registry.services, helm.name: helm})
