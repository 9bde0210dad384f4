"""Installing one or all modules of the catalogue. Each is built first, then it becomes part of the suite."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from helmd.files.lock import locked
from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError, ModuleError, StartFailedError, UsageError
from helmd.model.layout import Layout
from helmd.model.modules.check import check_of_installation
from helmd.model.modules.record import HistoryEntry, ModuleRecord, Version
from helmd.model.modules.source import GitSource, git_source_of, module_name
from helmd.model.suite.names import SUITE_CLUSTER, SUITE_CLUSTER_UNIT, unit_of
from helmd.model.suite.service import Registry
from helmd.modules.environment import find_interpreter
from helmd.modules.records import places_of, read_record, write_check, write_record
from helmd.operations.configuration.apply import apply, changes
from helmd.operations.configuration.databases import ensure_databases
from helmd.operations.configuration.load import load_suite
from helmd.operations.modules.build import BuildOptions, Candidate, ModuleBuild, tidy
from helmd.operations.modules.listing import available_modules
from helmd.operations.modules.migrate import run_for_module
from helmd.operations.modules.planned import catalogue_service, is_entry, place_entry, remove_entry
from helmd.operations.setup.setup import run_unit
from helmd.systemd.bus import Manager, Signals

SUITE_ORDER = ("core", "nexus", "codex", "ledger", "knowledgetree")
"""The modules of a whole suite, in the order of installation: dependencies first."""
_LOCK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class WantedModule:
    """A module to install."""

    name: str
    source: GitSource
    ref: str = ""


def wanted_module(
    layout: Layout, settings: Settings, what: str, ref: str = "", name: str = "", files: bool = False
) -> WantedModule:
    """Return the module that WHAT means: a name of the catalogue, or the URL of a repository. Raises UsageError."""
    allowed = files or settings.module_files
    if "/" in what or ":" in what:
        source = git_source_of(what, files=allowed)
        return WantedModule(module_name(source, name), source, ref)
    chosen = name or what
    places_of(layout, what)
    places_of(layout, chosen)
    service = catalogue_service(layout, settings, what)
    if service is None or not service.install.source:
        known = ", ".join(each.name for each in available_modules(layout, Registry({})))
        raise UsageError(
            f"the catalogue has no module '{what}'", hint=f"Give the URL of its repository, or one of: {known}"
        )
    return WantedModule(chosen, git_source_of(service.install.source, files=allowed), ref or service.install.ref)


def installed_already(layout: Layout, settings: Settings, wanted: WantedModule) -> str:
    """Return why a module is not to be installed, as a sentence; empty if it is.

    Raises ModuleError for a service of that name that is not a module.
    """
    record = read_record(layout.module(wanted.name))
    registry = load_suite(layout, settings)
    if record is not None and record.active:
        if record.source != wanted.source.url:
            raise ModuleError(
                f"{wanted.name} is installed already, from {record.source}",
                hint=f"Remove it first, or give this one another name: --name {wanted.name}-2",
            )
        return f"is installed (commit {record.commit[:12]}); for a newer one: helmctl modules update {wanted.name}"
    if record is not None and is_entry(layout, wanted.name):
        # It was built, but the installation was interrupted before its start.
        return ""
    if wanted.name in registry:
        directory = layout.resolve(registry[wanted.name].path)
        if registry[wanted.name].external or directory.exists():
            return f"is part of the suite already, from {directory}, and is left alone"
    return ""


def suite_modules(
    layout: Layout, settings: Settings, without: Sequence[str], files: bool = False
) -> list[WantedModule]:
    """Return the modules of a whole suite, from the catalogue and the admin's files. Raises HelmError.

    Interpreters are searched before anything is changed.
    """
    found = []
    for name in SUITE_ORDER:
        if name in without:
            continue
        wanted = wanted_module(layout, settings, name, files=files)
        service = catalogue_service(layout, settings, name)
        if service is not None and service.type == "python":
            try:
                find_interpreter(name, service.install, needs_pip=False)
            except ModuleError as error:
                hint = f"{error.hint} Leave it out: helmctl setup --suite --without {name}"
                raise ModuleError(error.sentence, hint=hint) from None
        found.append(wanted)
    return found


class Installation:
    """Installs modules of one account, one after the other."""

    def __init__(self, layout: Layout, settings: Settings, manager: Manager, options: BuildOptions) -> None:
        self.layout, self.settings, self.manager, self.options = layout, settings, manager, options

    def _builder(self, wanted: WantedModule) -> ModuleBuild:
        return ModuleBuild(self.layout, self.settings, wanted.name, wanted.source, wanted.ref, self.options)

    def preflight(self, wanted: WantedModule) -> Candidate:
        """Return what would be installed. Only the mirror of the repository is written. Raises HelmError."""
        with self._locked(wanted.name):
            return self._builder(wanted).preflight()

    def _locked(self, name: str) -> AbstractContextManager[None]:
        places = places_of(self.layout, name)
        return locked(places.lock, f"{name} is being changed", wait=_LOCK_SECONDS)

    def build(self, wanted: WantedModule) -> tuple[ModuleRecord, Version]:
        """Build a module and make it part of the suite's files; nothing is started. Raises HelmError, OSError."""
        with self._locked(wanted.name):
            builder = self._builder(wanted)
            record, version = builder.build(builder.preflight())
            place_entry(self.layout, record, version)
            return record, version

    def connect(self, names: Sequence[str]) -> Registry:
        """Apply the configuration with NAMES as part of the suite: units, databases, keys and files. Raises HelmError.

        Units of other services may change as well: Keycloak's has the URL of the gateway.
        """
        registry = load_suite(self.layout, self.settings)
        found = changes(registry, self.layout, self.settings)
        applied = apply(found, registry, self.layout, self.settings, self.manager)
        units = {unit_of(name) for name in names}
        if refused := [str(fault) for change in applied.refused if change.unit in units for fault in change.faults]:
            raise ModuleError(f"its unit can't be installed: {refused[0]}", lines=refused[1:])
        for notice in applied.notices:
            self.options.notify(f"warning: {notice}")
        return registry

    def migrate(self, name: str, registry: Registry) -> None:
        """Have a module's database be as its version needs it. Raises HelmError."""
        migrate_module(name, registry, self.layout, self.settings, self.manager, self.options)

    def commit(self, name: str, version: Version) -> ModuleRecord:
        """Record that a module serves from VERSION; versions that are not needed any more are removed."""
        places, now = self.layout.module(name), time.time()
        record = read_record(places)
        if record is None:
            raise ModuleError(f"{name} has no record")
        entry = HistoryEntry(now, "install", f"installed commit {version.commit[:12]}", version.id, by=self.options.by)
        record = record.activated(version.id, now).noted(entry)
        write_record(places, record)
        # On a full disk, the next check finds that out.
        with suppress(OSError):
            write_check(places, check_of_installation(record, now))
        return tidy(places, record)

    def latest_built(self, name: str) -> Version | None:
        """Return the newest version of a module that has not served yet."""
        record = read_record(self.layout.module(name))
        built = [each for each in record.versions if each.state == "built"] if record else []
        return built[-1] if built else None

    def roll_back(self, name: str, version: Version, error: HelmError) -> None:
        """Roll back the installation of a module that failed."""
        places = self.layout.module(name)
        remove_entry(self.layout, name)
        try:
            registry = load_suite(self.layout, self.settings)
            self.manager.stop(unit_of(name))
            found = changes(registry, self.layout, self.settings)
            orphans = [change for change in found if change.unit == unit_of(name)]
            apply(orphans, registry, self.layout, self.settings, self.manager)
        except HelmError as problem:
            self.options.notify(f"warning: {problem.sentence}")
        record = read_record(places)
        if record is not None:
            failed = replace(version, state="failed", detail=error.sentence[:1000])
            entry = HistoryEntry(
                time.time(), "install", error.sentence[:1000], version.id, by=self.options.by, ok=False
            )
            write_record(places, record.with_version(failed).noted(entry))


def migrate_module(
    name: str, registry: Registry, layout: Layout, settings: Settings, manager: Manager, options: BuildOptions
) -> None:
    """Have a module's database be as its version needs it. Raises HelmError."""
    service = registry[name]
    if service.database and SUITE_CLUSTER in registry:
        with Signals() as signals:
            manager.subscribe()
            if not manager.facts(SUITE_CLUSTER_UNIT).active:
                run_unit(manager, signals, SUITE_CLUSTER_UNIT)
        ensure_databases(registry, layout, settings, manager.facts)
    if service.install.migrate:
        options.notify(f"{name}: preparing its database")
        run_for_module(service, registry, layout, settings, service.install.migrate, options.line, options.job)


def not_healthy(name: str) -> StartFailedError:
    """Return the error about a module that was installed and did not become healthy."""
    return StartFailedError(
        f"{name} was installed, but did not become healthy, and was taken out of the suite again",
        hint=f"Its log: helmctl logs {name}; what was built is kept until the next success.",
    )
