"""Comparing the installed units with the registry, and installing the differences."""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from helmd.files.durable import write_atomically
from helmd.journal.keys import JournalKeys
from helmd.keycloak import launch
from helmd.model.config.settings import Settings
from helmd.model.errors import BusError, ConfigurationError, LockedError, NotSetUpError
from helmd.model.layout import Layout
from helmd.model.suite.discovery import discovery_document
from helmd.model.suite.limits import unenforced
from helmd.model.suite.names import (
    HELMD_UNIT,
    HTTP_SOCKET_UNIT,
    JOURNAL_UNIT,
    SOCKET_UNITS,
    STORE_CLUSTER_UNIT,
    SUITE_CLUSTER,
    SUITE_CLUSTER_UNIT,
    Mode,
    service_of,
    unit_of,
)
from helmd.model.suite.service import Limits, Registry
from helmd.model.units.hardening import ISOLATED
from helmd.operations.configuration.databases import ensure_databases, keycloak_database, settle_logins
from helmd.operations.configuration.load import path_faults
from helmd.operations.configuration.sockets import replace_sockets
from helmd.postgres.binaries import binaries_of, major_of, newest
from helmd.postgres.cluster import account_name
from helmd.systemd.bus import Manager
from helmd.systemd.host import Host, delegated_controllers, probe_host
from helmd.systemd.installed import applying, installed_mode, is_ours, read_unit, verify_units
from helmd.systemd.render import Setup, render, render_sockets, render_store_cluster, template_environment

ChangeKind = Literal["new", "changed", "same", "foreign", "orphan"]

DONE = {"new": "installed and enabled", "changed": "changed", "orphan": "removed"}
"""What was done for a kind of change, as it is printed."""


@dataclass(frozen=True, slots=True)
class Change:
    """What applying would do to one unit. ``foreign``: a file of that name is not Helm's and is not changed;
    ``orphan``: a unit of ours whose service is in no registry any more."""

    unit: str
    kind: ChangeKind
    before: str
    after: str

    @property
    def pending(self) -> bool:
        return self.kind in ("new", "changed", "orphan")


class Applied(NamedTuple):
    """What `apply` did, and what the admin should know although it succeeded, as sentences without a full stop."""

    done: list[Change]
    notices: list[str]


def host_of(layout: Layout) -> Host:
    """What this host supports; checked once and saved in the account's state directory."""
    path = layout.state / "host.json"
    try:
        known = json.loads(path.read_text())
        return Host(int(known["systemd"]), bool(known["user_namespaces"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return remember_host(layout)


def remember_host(layout: Layout) -> Host:
    """Check what this host supports, and save it."""
    host = probe_host()
    layout.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps({"systemd": host.systemd, "user_namespaces": host.user_namespaces}) + "\n"
    write_atomically(layout.state / "host.json", text)
    return host


def controllers_of(manager: Manager) -> frozenset[str]:
    """The cgroup controllers with which MANAGER can enforce limits."""
    group, _, _ = manager.facts("init.scope").control_group.rpartition("/")
    return delegated_controllers(group)


def _given_environment(registry: Registry, settings: Settings) -> Mapping[str, Mapping[str, str]]:
    return {
        name: launch.keycloak_environment(service.port, keycloak_database(settings))
        for name, service in registry.services.items()
        if service.type == "keycloak" and service.port is not None
    }


def _programs_of(cluster: Path) -> Path:
    """The programs of the version that made CLUSTER, or of the newest, which set-up will make it with."""
    return (newest() if major_of(cluster) is None else binaries_of(cluster)).directory


def rendered(
    registry: Registry, layout: Layout, settings: Settings, modes: Mapping[str, Mode] | None = None
) -> Mapping[str, str]:
    """Every unit's text by name. MODES overrides the mode in which a service is installed."""
    setup = Setup(
        layout,
        settings,
        host_of(layout),
        account_name(),
        _given_environment(registry, settings),
        _programs_of(layout.suite_cluster) if SUITE_CLUSTER in registry else None,
        _programs_of(layout.store_cluster) if settings.store_embedded else None,
    )
    templates = template_environment(layout.share / "units")
    units = {}
    for name, service in registry.services.items():
        if not service.external:
            mode: Mode = (modes or {}).get(name) or installed_mode(layout, name) or settings.mode
            units[unit_of(name)] = render(service, registry, mode, setup, templates)
    if settings.store_embedded:
        units[STORE_CLUSTER_UNIT] = render_store_cluster(setup, templates)
    return {**units, **render_sockets(layout, settings, templates)}


def changes(
    registry: Registry, layout: Layout, settings: Settings, modes: Mapping[str, Mode] | None = None
) -> list[Change]:
    """What applying would do, unit by unit. Raises ConfigurationError when directories of services are missing."""
    if faults := path_faults(registry, layout):
        raise ConfigurationError(faults)
    wanted = rendered(registry, layout, settings, modes)
    found = []
    for unit, text in wanted.items():
        before = read_unit(layout.unit_file(unit))
        kind: ChangeKind = "same" if before == text else "changed"
        if before is None:
            kind = "new"
        elif not is_ours(before):
            kind = "foreign"
        found.append(Change(unit, kind, before or "", text))
    for path in (*sorted(layout.units.glob("hivematrix-*.service")), layout.unit_file(HTTP_SOCKET_UNIT)):
        text = read_unit(path) or ""
        if path.name not in wanted and is_ours(text) and (service_of(path.name) or path.name in SOCKET_UNITS):
            found.append(Change(path.name, "orphan", text, ""))
    return found


def concerning(found: list[Change], units: Collection[str]) -> list[Change]:
    """Those of FOUND about UNITS; with them the suite's PostgreSQL, whose unit makes the database of a new service."""
    chosen = {change.unit for change in found if change.unit in units}
    if any(change.pending for change in found if change.unit in chosen):
        chosen.add(SUITE_CLUSTER_UNIT)
    return [change for change in found if change.unit in chosen]


def apply(found: list[Change], registry: Registry, layout: Layout, settings: Settings, manager: Manager) -> Applied:
    """Installs what `changes` found: verified first, each file atomically, one reload.

    A unit whose service is gone is removed only when it doesn't run. Raises LockedError when another process applies
    units, or has done so since `changes` was called.
    """
    if not layout.config.is_dir():
        raise NotSetUpError("this account has no suite yet", hint="Run: helmctl setup")
    JournalKeys(layout.journal_keys).create()
    with applying(layout.apply_lock):
        done = _install(found, registry, layout, settings, manager)
    sockets = [change.unit for change in done if change.unit in SOCKET_UNITS]
    if sockets:
        replace_sockets(manager, sockets)
    # helmd reads the same files; a change in them need not change any unit.
    for unit in (HELMD_UNIT, JOURNAL_UNIT):
        if manager.facts(unit).active_state == "active" and not (unit == HELMD_UNIT and sockets):
            manager.reload(unit)
    chosen = {change.unit for change in found}
    return Applied(done, [*_unenforced_limits(registry, chosen, manager)])


def _unenforced_limits(registry: Registry, units: Collection[str], manager: Manager) -> Iterator[str]:
    """Limits of services with one of UNITS that this host does not enforce."""
    limited = {
        name: service
        for name, service in registry.services.items()
        if service.limits != Limits() and unit_of(name) in units
    }
    if limited:
        yield from (each.sentence for each in unenforced(Registry(limited), controllers_of(manager)))


def make_homes(registry: Registry, layout: Layout) -> None:
    """Makes the home directories that units bind; without its own, a service cannot start."""
    for name, service in registry.services.items():
        if service.hardening in ISOLATED and not service.external and name != SUITE_CLUSTER:
            layout.home_of(name).mkdir(parents=True, exist_ok=True, mode=0o700)


def remove_home(unit: str, layout: Layout) -> None:
    """Removes the home directory of a service that is gone, with what its programs have put into it."""
    name = service_of(unit)
    if name and layout.home_of(name).is_dir():
        shutil.rmtree(layout.home_of(name))


def _install(
    found: list[Change], registry: Registry, layout: Layout, settings: Settings, manager: Manager
) -> list[Change]:
    document = discovery_document(registry, settings)
    if read_unit(layout.discovery_file) != document:
        write_atomically(layout.discovery_file, document)
    make_homes(registry, layout)
    todo = [change for change in found if change.pending]
    if not todo:
        settle_logins(registry, layout, settings, manager.facts)
        return []
    if any((read_unit(layout.unit_file(change.unit)) or "") != change.before for change in todo):
        raise LockedError("another process has changed the units meanwhile", hint="Run the command again.")
    if any(change.after for change in todo):
        verify_units({change.unit: change.after for change in found if change.after})
    # Before the units: after a failure here the next apply finds the same changes and tries again.
    ensure_databases(registry, layout, settings, manager.facts)
    done = []
    for change in todo:
        path = layout.unit_file(change.unit)
        if change.unit in SOCKET_UNITS and change.kind == "orphan":
            manager.disable([change.unit])
            path.unlink(missing_ok=True)
        elif change.kind == "orphan":
            if manager.facts(change.unit).active_state not in ("inactive", "failed"):
                continue
            manager.disable([change.unit])
            manager.reset_failed(change.unit)
            path.unlink(missing_ok=True)
            remove_home(change.unit, layout)
        else:
            write_atomically(path, change.after)
        done.append(change)
    # A new service starts with the suite, at boot as well, until it is disabled.
    if fresh := [change.unit for change in done if change.kind == "new" and change.unit != STORE_CLUSTER_UNIT]:
        try:
            manager.enable(fresh)
        except BusError:
            # Otherwise the next apply would find them installed, and never enable them.
            for unit in fresh:
                layout.unit_file(unit).unlink(missing_ok=True)
            raise
    if done:
        manager.daemon_reload()
    return done
