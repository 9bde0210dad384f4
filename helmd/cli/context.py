"""What commands use, each part loaded when it is first used: layout, settings, suite, bus."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from helmd.cli import output
from helmd.model.errors import ConfigurationError, UnknownServiceError
from helmd.model.layout import Layout, layout
from helmd.model.printable import printable
from helmd.model.suite.names import service_of, unit_of

if TYPE_CHECKING:
    from helmd.model.config.settings import Settings
    from helmd.model.errors import Fault
    from helmd.model.suite.service import Registry
    from helmd.operations.configuration.effective import Effective
    from helmd.systemd.bus import Manager

_SHOWN = 10
"""Services that a warning names at most."""

SHARE = Path(__file__).resolve().parents[2]
"""The package's files: /usr/share/hivematrix-helm, or the checkout when helmctl runs from there."""


class Context:
    """Everything is cached, since a command runs once."""

    @cached_property
    def layout(self) -> Layout:
        home = Path(os.environ.get("HOME") or os.path.expanduser("~"))
        return layout(os.environ, home, os.getuid(), SHARE)

    @cached_property
    def settings(self) -> "Settings":
        from helmd.operations.configuration.load import load_settings

        try:
            return load_settings(self.layout)
        except ConfigurationError:
            return self.effective.settings

    @cached_property
    def effective(self) -> "Effective":
        """The configuration that is in force; faults in the files are printed. Raises ConfigurationError as
        `load_effective`.
        """
        from helmd.operations.configuration.effective import load_effective

        found = load_effective(self.layout)
        for fault in found.faults:
            output.print_message(f"warning: {fault}")
        held = [name for name in found.refused.faults if name in found.registry]
        unusable = [name for name in found.refused.faults if name not in found.registry]
        for names, what in ((held, "keep the configuration that they had"), (unusable, "can't be used")):
            if names:
                output.print_message(f"warning: until that is corrected, these {what}: {_some(names)}")
        return found

    @property
    def suite(self) -> "Registry":
        """The services whose configuration is known, those with a fault as they were last without."""
        return self.effective.registry

    @cached_property
    def suite_or_installed(self) -> "Registry":
        """The suite; with faults also what else is installed, so that it can still be seen and stopped."""
        from helmd.operations.configuration.installed_suite import installed_suite

        try:
            if not self.effective.faults:
                return self.suite
            return merged(self.suite, installed_suite(self.layout))
        except ConfigurationError as error:
            for fault in error.faults:
                output.print_message(f"warning: {fault}")
            output.print_message("warning: Helm's settings have faults; using the installed units instead")
            return installed_suite(self.layout)

    @cached_property
    def manager(self) -> "Manager":
        from helmd.systemd.bus import Manager

        os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "10")
        return Manager()

    def unregistered(self) -> list[str]:
        """Services with a loaded ``hivematrix-*`` unit that are not in the registry."""
        loaded = self.manager.units_like("hivematrix-*.service")
        names = {
            name for unit in loaded if (name := service_of(unit)) and name != "helm" and not name.startswith("job-")
        }
        present = [name for name in sorted(names) if name not in self.suite_or_installed]
        return [name for name in present if self.manager.facts(unit_of(name)).exists]

    def chosen(self, names: Sequence[str], registry: "Registry", unregistered: bool = False) -> tuple[str, ...]:
        """The services meant by NAMES: all for none or ``all``. Raises UnknownServiceError."""
        if not names or "all" in names:
            return (*registry.names, *(self.unregistered() if unregistered else ()))
        known = set(registry.names)
        plain = [name.removeprefix("hivematrix-").removesuffix(".service") for name in names]
        missing = [name for name in plain if name not in known]
        if missing and unregistered:
            missing = [name for name in missing if not self._has_unit(name)]
        if faults := [fault for name in missing for fault in self._refused(name)]:
            raise ConfigurationError(faults)
        if missing:
            raise UnknownServiceError(
                f"there is no service '{printable(missing[0], 60)}'", hint="List the services: helmctl status"
            )
        return tuple(dict.fromkeys(plain))

    def _refused(self, name: str) -> "tuple[Fault, ...]":
        try:
            return self.effective.refused.faults.get(name, ())
        except ConfigurationError:
            return ()

    def with_unregistered(self, registry: "Registry", names: Sequence[str]) -> "Registry":
        """REGISTRY with those of NAMES that it lacks, of which only the unit is known."""
        from helmd.model.suite.service import Health, Registry, Service

        lacking = [name for name in names if name not in registry]
        alone = {name: Service(name=name, type="command", health=Health(check="process")) for name in lacking}
        return Registry({**registry.services, **alone}) if alone else registry

    def _has_unit(self, name: str) -> bool:
        return service_of(unit_of(name)) == name and self.manager.facts(unit_of(name)).exists


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def merged(suite: "Registry", installed: "Registry") -> "Registry":
    """SUITE with the services that are only INSTALLED."""
    from helmd.model.suite.service import Registry

    others = {name: service for name, service in installed.services.items() if name not in suite}
    return Registry({**suite.services, **others}) if others else suite
