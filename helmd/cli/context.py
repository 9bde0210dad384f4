"""What commands use, each part loaded when it is first used: layout, settings, suite, bus."""

import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from helmd.cli import output
from helmd.files.account_names import name_of_uid
from helmd.model.errors import BusError, ConfigurationError, NotSetUpError, UnknownServiceError, UsageError
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

_LOCATIONS = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
"""Variables that say where an account's files are."""


def use_manager_locations(environment: Mapping[str, str]) -> None:
    """Use the locations of the user manager's ENVIRONMENT instead of those of the caller's shell."""
    for name in _LOCATIONS:
        if name in environment:
            os.environ[name] = environment[name]
        elif name != "HOME":
            os.environ.pop(name, None)
    os.environ.setdefault("HOME", home_directory())


def home_directory() -> str:
    """HOME, unless it is another account's, as after runuser(1). Raises NotSetUpError where nothing says it."""
    given = os.environ.get("HOME", "")
    try:
        if given and os.stat(given).st_uid == os.getuid():
            return given
    except OSError:
        pass
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise NotSetUpError(
            f"uid {os.getuid()} has no account on this machine", hint=f"See: getent passwd {os.getuid()}"
        ) from None


def unknown_service(name: str, known: Iterable[str]) -> UnknownServiceError:
    """Return the error about NAME, with the most similar of the KNOWN services."""
    import difflib

    close = difflib.get_close_matches(name, sorted(known), n=1)
    meant = f"; did you mean '{close[0]}'?" if close else ""
    return UnknownServiceError(
        f"there is no service '{printable(name, 60)}'{meant}", hint="List the services: helmctl status"
    )


def _no_suite() -> NotSetUpError:
    return NotSetUpError(
        f"{name_of_uid(os.getuid())} has no suite here",
        hint="To set one up, run: helmctl setup\nFor the suite of another account, as root: helmctl --account NAME ...",
    )


class Context:
    """Everything is cached, since a command runs once."""

    @cached_property
    def layout(self) -> Layout:
        """Where the account's user manager has its files; while it can't be asked, where the environment has them."""
        try:
            use_manager_locations(self.manager.environment())
        except BusError:
            os.environ["HOME"] = home_directory()
        return layout(os.environ, Path(os.environ["HOME"]), os.getuid(), SHARE)

    @property
    def suite_layout(self) -> Layout:
        """As `layout`, for what makes sense only with a suite. Raises NotSetUpError if the account has none."""
        if not self.layout.config.is_dir():
            raise _no_suite()
        return self.layout

    @cached_property
    def settings(self) -> "Settings":
        """Helm's settings; those that were last without faults, if there are some now. Raises as `effective`."""
        from helmd.operations.configuration.load import load_settings

        try:
            return load_settings(self.suite_layout)
        except ConfigurationError:
            return self.effective.settings

    @cached_property
    def effective(self) -> "Effective":
        """The configuration that is in force; faults in the files are printed.

        Raises NotSetUpError, and ConfigurationError as `load_effective`.
        """
        from helmd.operations.configuration.effective import load_effective

        found = load_effective(self.suite_layout)
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
        """Return services with a loaded ``hivematrix-*`` unit that are not in the registry."""
        loaded = self.manager.units_like("hivematrix-*.service")
        names = {
            name for unit in loaded if (name := service_of(unit)) and name != "helm" and not name.startswith("job-")
        }
        present = [name for name in sorted(names) if name not in self.suite_or_installed]
        return [name for name in present if self.manager.facts(unit_of(name)).exists]

    def chosen(self, names: Sequence[str], registry: "Registry", unregistered: bool = False) -> tuple[str, ...]:
        """Return the services meant by NAMES: all for none or ``all``. Raises UnknownServiceError."""
        if not names or "all" in names:
            return (*registry.names, *(self.unregistered() if unregistered else ()))
        known = set(registry.names)
        given = [name.removeprefix("hivematrix-").removesuffix(".service") for name in names]
        plain = [each for name in given for each in self._matching(name, registry, unregistered)]
        missing = [name for name in plain if name not in known]
        if missing and unregistered:
            missing = [name for name in missing if not self._has_unit(name)]
        if faults := [fault for name in missing for fault in self._refused(name)]:
            raise ConfigurationError(faults)
        if missing:
            raise unknown_service(missing[0], known)
        return tuple(dict.fromkeys(plain))

    def chosen_one(self, name: str, registry: "Registry", unregistered: bool = False) -> str:
        """Return the one service that NAME means. Raises UsageError for ``all`` or a pattern that means several, and as
        `chosen`.
        """
        found = self.chosen((name,), registry, unregistered)
        if len(found) != 1:
            raise UsageError(f"'{printable(name, 60)}' means {len(found)} services: give one")
        return found[0]

    def _refused(self, name: str) -> "tuple[Fault, ...]":
        try:
            return self.effective.refused.faults.get(name, ())
        except ConfigurationError:
            return ()

    def _matching(self, name: str, registry: "Registry", unregistered: bool) -> Sequence[str]:
        """Return the services that NAME means: those that match, if it is a pattern (glob(7)), else itself."""
        if not any(character in name for character in "*?["):
            return (name,)
        from fnmatch import fnmatchcase

        present = (*registry.names, *(self.unregistered() if unregistered else ()))
        return [each for each in present if fnmatchcase(each, name)] or (name,)

    def with_unregistered(self, registry: "Registry", names: Sequence[str]) -> "Registry":
        """Return REGISTRY with those of NAMES that it lacks, of which only the unit is known."""
        from helmd.model.suite.service import with_unregistered

        return with_unregistered(registry, names)

    def _has_unit(self, name: str) -> bool:
        return service_of(unit_of(name)) == name and self.manager.facts(unit_of(name)).exists


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def merged(suite: "Registry", installed: "Registry") -> "Registry":
    """Return SUITE with the services that are only INSTALLED."""
    from helmd.model.suite.service import Registry

    others = {name: service for name, service in installed.services.items() if name not in suite}
    return Registry({**suite.services, **others}) if others else suite
