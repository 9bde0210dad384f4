"""Compares the installed units with the registry, and installs the differences."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from helmd.files.durable import write_atomically
from helmd.files.lock import locked
from helmd.journal.keys import JournalKeys
from helmd.keycloak import launch
from helmd.model.config.settings import DEFAULT_URL, Settings
from helmd.model.errors import BusError, Fault, HelmError, LockedError, NotSetUpError, UnitRefusedError
from helmd.model.identity.realm import frontend_url
from helmd.model.layout import Layout
from helmd.model.suite.discovery import discovery_document
from helmd.model.suite.effective import Refused, service_of_fault
from helmd.model.suite.limits import unenforced
from helmd.model.suite.names import (
    BACKUP_TIMER,
    HELM_URL_VARIABLE,
    HELMD_UNIT,
    HTTP_SOCKET_UNIT,
    JOURNAL_UNIT,
    SOCKET_UNITS,
    STORE_CLUSTER_UNIT,
    SUITE_CLUSTER,
    SUITE_CLUSTER_UNIT,
    TARGET,
    Mode,
    service_behind,
    service_of_timer,
    timer_of,
    unit_of,
)
from helmd.model.suite.service import Limits, Registry
from helmd.model.suite.shell_syntax import shell_syntax
from helmd.operations.configuration.databases import (
    affects_databases,
    databases_of,
    ensure_databases,
    keycloak_database,
    put_uris,
    require_passwords,
)
from helmd.operations.configuration.effective import save_faultless
from helmd.operations.configuration.homes import make_homes, remove_home
from helmd.operations.configuration.host_facts import controllers_of, host_of
from helmd.operations.configuration.load import path_faults
from helmd.operations.configuration.module_files import (
    ensure_service_secrets,
    place_flaskenv,
    place_services_json,
    services_without_keys,
    variable_in_flaskenv,
)
from helmd.operations.configuration.ports import privileged_ports
from helmd.operations.configuration.sockets import replace_sockets, wait_for_jobs
from helmd.postgres.binaries import binaries_of, major_of, newest
from helmd.postgres.cluster import account_name
from helmd.systemd.bus import Manager
from helmd.systemd.installed import installed_mode, is_ours, read_unit, starts_with_others, verify_units
from helmd.systemd.render import (
    Setup,
    render,
    render_backup_timer,
    render_sockets,
    render_store_cluster,
    render_timer,
    template_environment,
)

ChangeKind = Literal["new", "changed", "same", "foreign", "orphan", "refused"]

NONE_REFUSED = Refused()

_DONE = {"new": "installed", "changed": "changed", "orphan": "removed"}


@dataclass(frozen=True, slots=True)
class Change:
    """What applying does to one unit, with its text ``before`` and ``after``.

    ``foreign``: a file of that name is not Helm's, and is not changed. ``orphan``: the registry no longer has the
    service of this unit, or the schedule of this timer; it is removed. ``refused``: it is not changed, because of
    ``faults``.
    """

    unit: str
    kind: ChangeKind
    before: str
    after: str
    faults: tuple[Fault, ...] = ()
    enabled: bool = False
    """Whether the unit was enabled when it was applied."""

    @property
    def pending(self) -> bool:
        """Whether applying it changes the unit."""
        return self.kind in ("new", "changed", "orphan")

    @property
    def done(self) -> str:
        """What was done when it was applied, for display."""
        return f"{_DONE[self.kind]} and enabled" if self.enabled else _DONE[self.kind]

    @property
    def enables(self) -> bool:
        """Whether the unit gets an ``[Install]`` section, and so has to be enabled."""
        had = self.kind == "changed" and starts_with_others(self.before)
        return self.kind in ("new", "changed") and starts_with_others(self.after) and not had

    @property
    def disables(self) -> bool:
        """Whether the unit loses its ``[Install]`` section, and so has to be disabled."""
        return self.pending and starts_with_others(self.before) and not starts_with_others(self.after)


class Applied(NamedTuple):
    """The changes that `apply` has made and refused, and notices for the admin, as sentences without full stop."""

    done: list[Change]
    refused: list[Change]
    notices: list[str]


def _derived_environment(registry: Registry, layout: Layout, settings: Settings) -> Mapping[str, Mapping[str, str]]:
    given: dict[str, Mapping[str, str]] = {
        name: launch.keycloak_environment(
            service.port, keycloak_database(layout, settings), frontend_url(service, registry)
        )
        for name, service in registry.services.items()
        if service.type == "keycloak" and service.port is not None
    }
    if settings.url != DEFAULT_URL:
        python = [service for service in registry.services.values() if service.type == "python"]
        for service in python:
            # Modules' own installers write the default.
            if variable_in_flaskenv(service, layout, HELM_URL_VARIABLE).rstrip("/") in ("", DEFAULT_URL):
                given[service.name] = {HELM_URL_VARIABLE: settings.url}
    return given


def _programs_of(cluster: Path) -> Path:
    """Return the directory with programs of CLUSTER's version; if there is no cluster yet, of the newest version."""
    return (newest() if major_of(cluster) is None else binaries_of(cluster)).directory


def faults_by_service(
    registry: Registry, layout: Layout, refused: Refused = NONE_REFUSED
) -> dict[str, tuple[Fault, ...]]:
    """Return why services can't be applied, by name: faults of REFUSED ones, and files that are missing."""
    found = {name: list(faults) for name, faults in refused.faults.items()}
    for fault in path_faults(registry, layout):
        if name := service_of_fault(fault):
            found.setdefault(name, []).append(fault)
    return {name: tuple(faults) for name, faults in found.items()}


def rendered(
    registry: Registry,
    layout: Layout,
    settings: Settings,
    modes: Mapping[str, Mode] | None = None,
    only: Registry | None = None,
) -> Mapping[str, str]:
    """Return the text of every unit by its name; of services, if ONLY is given, of those in it.

    Services keep the mode in which they are installed, unless it is in MODES.
    """
    setup = Setup(
        layout,
        settings,
        host_of(layout),
        account_name(),
        _derived_environment(registry, layout, settings),
        _programs_of(layout.suite_cluster) if SUITE_CLUSTER in registry else None,
        _programs_of(layout.store_cluster) if settings.store_embedded else None,
        databases_of(registry, layout, settings),
    )
    templates = template_environment(layout.share / "units")
    units = {}
    for name, service in (only or registry).services.items():
        if not service.external:
            mode: Mode = (modes or {}).get(name) or installed_mode(layout, name) or settings.mode
            units[unit_of(name)] = render(service, registry, mode, setup, templates)
            if service.schedule:
                units[timer_of(name)] = render_timer(service, templates)
    if settings.store_embedded:
        units[STORE_CLUSTER_UNIT] = render_store_cluster(setup, templates)
    return {**units, **render_backup_timer(layout, settings, templates), **render_sockets(layout, settings, templates)}


def changes(
    registry: Registry,
    layout: Layout,
    settings: Settings,
    modes: Mapping[str, Mode] | None = None,
    refused: Refused = NONE_REFUSED,
) -> list[Change]:
    """Return what applying would do to each unit.

    Services that are REFUSED, or whose directories or programs are missing, keep their units as they are.
    """
    faulty = faults_by_service(registry, layout, refused)
    usable = Registry({name: service for name, service in registry.services.items() if name not in faulty})
    wanted = rendered(registry, layout, settings, modes, usable)
    found = []
    for unit, text in wanted.items():
        before = read_unit(layout.unit_file(unit))
        kind: ChangeKind = "same" if before == text else "changed"
        if before is None:
            kind = "new"
        elif not is_ours(before):
            kind = "foreign"
        found.append(Change(unit, kind, before or "", text))
    for name, faults in faulty.items():
        before = read_unit(layout.unit_file(unit_of(name)))
        found.append(Change(unit_of(name), "refused", before or "", "", faults))
    if not refused.complete:
        return found
    wanted = {**wanted, **dict.fromkeys((unit for name in faulty for unit in (unit_of(name), timer_of(name))), "")}
    installed = [path for kind in ("timer", "service") for path in sorted(layout.units.glob(f"hivematrix-*.{kind}"))]
    own = (*SOCKET_UNITS, BACKUP_TIMER)
    for path in (*installed, layout.unit_file(HTTP_SOCKET_UNIT), layout.unit_file(BACKUP_TIMER)):
        text = read_unit(path) or ""
        if path.name not in wanted and is_ours(text) and (service_behind(path.name) or path.name in own):
            found.append(Change(path.name, "orphan", text, ""))
    return found


def changes_for(found: list[Change], units: Collection[str]) -> list[Change]:
    """Return those of the changes FOUND that concern UNITS of services and their timers.

    If any of these is pending, that of the suite's PostgreSQL is among them: its unit creates the database of a new
    service.
    """
    chosen = {each.unit for each in found if each.unit in units or unit_of(service_behind(each.unit) or "") in units}
    if any(change.pending for change in found if change.unit in chosen):
        chosen.add(SUITE_CLUSTER_UNIT)
    return [change for change in found if change.unit in chosen]


def apply(found: list[Change], registry: Registry, layout: Layout, settings: Settings, manager: Manager) -> Applied:
    """Install the changes FOUND by `changes`: verify them, replace each file atomically, and reload the manager once.

    An orphan is removed only if it does not run. Raises LockedError if another process applies units, or has done so
    since `changes` was called; NotSetUpError, UnitRefusedError, BusError, and other kinds of HelmError.
    """
    if not layout.config.is_dir():
        raise NotSetUpError("this account has no suite yet", hint="Run: helmctl setup")
    JournalKeys(layout.journal_keys).create()
    with locked(layout.apply_lock, "units are being applied"):
        if any((read_unit(layout.unit_file(each.unit)) or "") != each.before for each in found if each.pending):
            raise LockedError("another process has changed the units meanwhile", hint="Run the command again.")
        found = _verify(found, registry)
        done = _install(found, registry, layout, settings, manager)
    save_faultless(layout)
    sockets = [change.unit for change in done if change.unit in SOCKET_UNITS]
    if sockets:
        replace_sockets(manager, sockets)
    # helmd reads the same files; a change in them need not change any unit.
    for unit in (HELMD_UNIT, JOURNAL_UNIT):
        if manager.facts(unit).active_state == "active" and not (unit == HELMD_UNIT and sockets):
            manager.reload(unit)
    chosen = {change.unit for change in found}
    refused = [change for change in found if change.kind == "refused"]
    notices = [
        *put_uris(registry, layout, settings),
        *ensure_service_secrets(registry, layout),
        *place_flaskenv(registry, layout, lambda name: manager.facts(unit_of(name)).active),
        *_make_missing_keys(registry, layout),
        *_refused_ports(registry, chosen),
        *place_services_json(registry, layout, discovery_document(registry, settings)),
        *_unenforced_limits(registry, chosen, manager),
        *_shell_syntax(registry, chosen),
    ]
    return Applied(done, refused, notices)


def _verify(found: list[Change], registry: Registry) -> list[Change]:
    """Return FOUND, with changes refused whose unit systemd rejects. Raises UnitRefusedError for Helm's own."""
    wanted = {change.unit: change.after for change in found if change.pending and change.after}
    if not wanted:
        return found
    # Unchanged units were verified when they were written; the changed ones refer to them.
    same = {change.unit: change.after for change in found if change.kind == "same"}
    complaints = verify_units(wanted, same)
    verified = []
    for change in found:
        name = service_behind(change.unit) or ""
        if change.unit in complaints and change.pending:
            if name not in registry:
                raise UnitRefusedError(f"systemd refuses {change.unit}", lines=complaints[change.unit])
            service = registry[name]
            faults = [
                Fault(service.file, service.line, f"services.{name}", f"systemd refuses its unit: {line}")
                for line in complaints[change.unit]
            ]
            change = Change(change.unit, "refused", change.before, "", tuple(faults))
        verified.append(change)
    return verified


def _make_missing_keys(registry: Registry, layout: Layout) -> Iterator[str]:
    """Make the keys that services lack; yield why some could not be made, as sentences."""
    for name in services_without_keys(registry, layout):
        # Imported here: cryptography takes longer to load than most commands take in all.
        from helmd.operations.configuration.keys import make_keys

        try:
            make_keys(name, registry, layout)
        except (HelmError, OSError) as error:
            yield f"{name} was given no keys: {error.sentence if isinstance(error, HelmError) else error}"


def _refused_ports(registry: Registry, units: Collection[str]) -> Iterator[str]:
    """Yield sentences about ports of services with one of UNITS that this account may not use."""
    services = [service for service in registry.services.values() if not service.external]
    wanted = [(each.port, unit_of(each.name)) for each in services if each.port and unit_of(each.name) in units]
    yield from (f"{each.sentence}; to allow it, run: {each.fix}" for each in privileged_ports(wanted))


def _unenforced_limits(registry: Registry, units: Collection[str], manager: Manager) -> Iterator[str]:
    """Yield sentences about limits of services with one of UNITS that this host does not enforce."""
    limited = {
        name: service
        for name, service in registry.services.items()
        if service.limits != Limits() and unit_of(name) in units
    }
    if limited:
        yield from (each.sentence for each in unenforced(Registry(limited), controllers_of(manager)))


def _install(
    found: list[Change], registry: Registry, layout: Layout, settings: Settings, manager: Manager
) -> list[Change]:
    """Install the pending changes of FOUND; return those that were made. The apply lock must be held."""
    document = discovery_document(registry, settings)
    if read_unit(layout.discovery_file) != document:
        write_atomically(layout.discovery_file, document)
    make_homes(registry, layout)
    todo = [change for change in found if change.pending]
    if not todo:
        require_passwords(registry, layout, settings, manager.facts)
        return []
    if affects_databases([change.unit for change in todo], registry):
        # Before the units are installed: after a failure here the next apply finds the same changes and retries.
        ensure_databases(registry, layout, settings, manager.facts)
    else:
        require_passwords(registry, layout, settings, manager.facts)
    done = []
    # What the admin has disabled stays disabled when the service is started by its timer now, or by its unit again.
    disabled = {
        service_behind(change.unit)
        for change in todo
        if change.disables and manager.facts(change.unit).file_state == "disabled"
    }
    for change in todo:
        path = layout.unit_file(change.unit)
        if (service_of_timer(change.unit) or change.unit == BACKUP_TIMER) and change.kind == "orphan":
            _remove_timer(change.unit, layout, manager)
        elif change.unit in SOCKET_UNITS and change.kind == "orphan":
            manager.disable([change.unit])
            path.unlink(missing_ok=True)
        elif change.kind == "orphan":
            facts = manager.facts(change.unit)
            if facts.sub_state == "exited":
                _deactivate(change.unit, manager)
            elif facts.active_state not in ("inactive", "failed"):
                continue
            manager.disable([change.unit])
            manager.reset_failed(change.unit)
            path.unlink(missing_ok=True)
            remove_home(change.unit, layout)
        else:
            if change.disables:
                manager.disable([change.unit])
            write_atomically(path, change.after)
        done.append(change)
    # A new service starts with the suite, at boot as well, until it is disabled.
    fresh = [change for change in done if change.enables and change.unit != STORE_CLUSTER_UNIT]
    enabled = [change.unit for change in fresh if service_behind(change.unit) not in disabled]
    if enabled:
        try:
            manager.enable(enabled)
        except BusError:
            # Otherwise the next apply would find them unchanged, and never enable them.
            for change in fresh:
                if change.before:
                    write_atomically(layout.unit_file(change.unit), change.before)
                else:
                    layout.unit_file(change.unit).unlink(missing_ok=True)
            raise
    if done:
        manager.daemon_reload()
    for change in done:
        if change.disables and manager.facts(change.unit).sub_state == "exited":
            # It ran without a schedule before. Its timer would start nothing while it is active.
            _deactivate(change.unit, manager)
    if any(change.unit == BACKUP_TIMER and change.after for change in done):
        # Whether the suite runs or not: this timer is not part of it.
        manager.restart(BACKUP_TIMER)
    timers = [unit for unit in enabled if service_of_timer(unit)]
    if timers and _suite_is_running(registry, manager):
        for unit in timers:
            manager.start(unit)
        wait_for_jobs(manager, timers)
    return [replace(change, enabled=change.unit in enabled) for change in done]


def _deactivate(unit: str, manager: Manager) -> None:
    """Stop a oneshot that is active (exited), without the units that require it."""
    manager.stop(unit, "ignore-dependencies")
    wait_for_jobs(manager, [unit])


def _remove_timer(unit: str, layout: Layout, manager: Manager) -> None:
    """Remove a timer, and its stamp file, by which a later one would catch up on missed runs (Persistent=)."""
    manager.stop(unit)
    wait_for_jobs(manager, [unit])
    manager.disable([unit])
    layout.unit_file(unit).unlink(missing_ok=True)
    layout.timer_stamp(unit).unlink(missing_ok=True)


def _suite_is_running(registry: Registry, manager: Manager) -> bool:
    """Return whether the suite runs: any of its long-running services, or its target if it has none."""
    stay = [unit_of(name) for name, service in registry.services.items() if not (service.external or service.oneshot)]
    return any(manager.facts(unit).active for unit in stay or [TARGET])


def _shell_syntax(registry: Registry, units: Collection[str]) -> Iterator[str]:
    """Yield sentences about settings of services with one of UNITS that only a shell would interpret."""
    for service in registry.services.values():
        if unit_of(service.name) in units:
            yield from shell_syntax(service)
