"""Upgrading the private PostgreSQL clusters to the newest version installed, while their users are stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.model.suite.names import HELMD_UNIT, JOURNAL_UNIT, SOCKET_UNITS, STORE_CLUSTER_UNIT, SUITE_CLUSTER, unit_of
from helmd.model.suite.service import Registry
from helmd.operations.configuration.apply import apply, changes, changes_for
from helmd.operations.configuration.databases import embedded_cluster
from helmd.operations.setup.setup import Notify, run_unit
from helmd.postgres.binaries import Binaries, major_of, newest
from helmd.postgres.cluster import ClusterError, account_name, store_cluster
from helmd.postgres.configuration import Cluster
from helmd.postgres.upgrade import analyze, undo_upgrade, upgrade_cluster
from helmd.systemd.bus import Manager, Signals


def clusters(registry: Registry, layout: Layout, settings: Settings) -> dict[str, Cluster]:
    """Return the account's private clusters by their unit."""
    found = {}
    if settings.store_embedded:
        found[STORE_CLUSTER_UNIT] = store_cluster(layout, account_name())
    if SUITE_CLUSTER in registry:
        found[unit_of(SUITE_CLUSTER)] = embedded_cluster(registry, layout, settings)
    return {unit: cluster for unit, cluster in found.items() if major_of(cluster.directory) is not None}


def outdated(cluster: Cluster) -> bool:
    """Return whether a newer version than the cluster's is installed."""
    return (major_of(cluster.directory) or 0) < newest().major


class UnitControl(Protocol):
    """Operations on units. Each call returns when it is done and raises HelmError if it failed."""

    def active(self, unit: str) -> bool:
        """Return whether the unit is active or activating."""

    def start(self, unit: str) -> None: ...

    def stop(self, unit: str) -> None: ...

    def install(self, unit: str) -> None:
        """Render the unit of a cluster again, for the version of PostgreSQL that the cluster has now."""


@dataclass(frozen=True, slots=True)
class SystemdUnits:
    """The units of this account's manager."""

    registry: Registry
    layout: Layout
    settings: Settings
    manager: Manager
    signals: Signals

    def active(self, unit: str) -> bool:
        facts = self.manager.facts(unit)
        # A oneshot that has ended has no connections.
        return facts.active_state not in ("inactive", "failed") and facts.sub_state != "exited"

    def start(self, unit: str) -> None:
        run_unit(self.manager, self.signals, unit)

    def stop(self, unit: str) -> None:
        run_unit(self.manager, self.signals, unit, stop=True)

    def install(self, unit: str) -> None:
        found = changes_for(changes(self.registry, self.layout, self.settings), [unit])
        apply(found, self.registry, self.layout, self.settings, self.manager)


def upgrade_clusters(registry: Registry, layout: Layout, settings: Settings, manager: Manager, notify: Notify) -> int:
    """Upgrade every outdated cluster; return how many.

    Units that were running are started again, also if an upgrade fails.
    """
    done = 0
    with Signals() as signals:
        manager.subscribe()
        units = SystemdUnits(registry, layout, settings, manager, signals)
        for unit, cluster in clusters(registry, layout, settings).items():
            if not outdated(cluster):
                notify(f"{unit}: already at PostgreSQL {newest().major}")
                # An interrupted upgrade may have left the unit of the old version.
                units.install(unit)
                continue
            upgrade_with_units(unit, cluster, _users(unit, registry), units, notify)
            done += 1
    return done


def upgrade_with_units(
    unit: str,
    cluster: Cluster,
    users: Sequence[str],
    units: UnitControl,
    notify: Notify,
    target: Binaries | None = None,
) -> None:
    """Upgrade the cluster of UNIT while it and its USERS, those first that depend on others, are stopped.

    The new cluster is only kept if its unit starts with it. Raises the first error; units that were running are started
    again in any case.
    """
    running = [other for other in (*users, unit) if units.active(other)]
    stopped: list[str] = []
    failed: list[HelmError] = []
    try:
        for other in running:
            notify(f"stopping {other}")
            stopped.append(other)
            units.stop(other)
        _replace(unit, cluster, units, notify, target)
    finally:
        failed += _start_again(stopped, units, notify)
    try:
        notify(f"{unit}: gathering statistics for the planner")
        analyze(cluster)
    except ClusterError as error:
        notify(f"{unit}: {error.sentence}; queries may be slow until autovacuum has gathered them")
    if unit not in running:
        units.stop(unit)
    if failed:
        raise failed[0]


def _replace(unit: str, cluster: Cluster, units: UnitControl, notify: Notify, target: Binaries | None) -> None:
    """Replace the old cluster by the upgraded one, unless its unit fails to start with it."""
    done = upgrade_cluster(cluster, notify, target=target)
    try:
        units.install(unit)
        notify(f"starting {unit}")
        units.start(unit)
    except BaseException:
        notify(f"{unit}: does not run on PostgreSQL {done.new}; going back to {done.old}")
        if units.active(unit):
            units.stop(unit)
        undo_upgrade(cluster, done)
        units.install(unit)
        raise
    notify(f"{unit}: PostgreSQL {done.old} -> {done.new}; the old cluster is kept in {done.kept}")


def _start_again(stopped: Sequence[str], units: UnitControl, notify: Notify) -> list[HelmError]:
    """Start what was stopped, in reverse, each whether or not those before it started. Return what failed."""
    failed = []
    for unit in reversed(stopped):
        notify(f"starting {unit}")
        try:
            units.start(unit)
        except HelmError as error:
            notify(error.sentence)
            failed.append(error)
    return failed


def _users(unit: str, registry: Registry) -> list[str]:
    """Return units that use the cluster, dependents first."""
    if unit == STORE_CLUSTER_UNIT:
        # The sockets before helmd: connections to them would start it again, and the cluster with it.
        return [JOURNAL_UNIT, *SOCKET_UNITS, HELMD_UNIT]
    users = [service for service in reversed(list(registry.services.values())) if SUITE_CLUSTER in service.depends_on]
    # The timers first: what they start would start the cluster.
    timers = [service.enabled_unit for service in users if service.schedule]
    return timers + [unit_of(service.name) for service in users]
