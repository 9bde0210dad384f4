"""Moving the private PostgreSQL clusters to the newest version installed, with what runs on them stopped meanwhile."""

from collections.abc import Callable

from helmd.model.config.settings import Settings
from helmd.model.errors import StartFailedError
from helmd.model.layout import Layout
from helmd.model.suite.names import HELMD_UNIT, JOURNAL_UNIT, STORE_CLUSTER_UNIT, SUITE_CLUSTER, unit_of
from helmd.model.suite.service import Registry
from helmd.operations.configuration.apply import apply, changes, concerning
from helmd.operations.configuration.databases import embedded_cluster
from helmd.operations.setup.setup import run_unit
from helmd.postgres.binaries import major_of, newest
from helmd.postgres.cluster import account_name, store_cluster
from helmd.postgres.configuration import Cluster
from helmd.postgres.upgrade import upgrade_cluster
from helmd.systemd.bus import Manager, Signals


def clusters(registry: Registry, layout: Layout, settings: Settings) -> dict[str, Cluster]:
    """The account's private clusters by their unit."""
    found = {}
    if settings.store_embedded:
        found[STORE_CLUSTER_UNIT] = store_cluster(layout, account_name())
    if SUITE_CLUSTER in registry:
        found[unit_of(SUITE_CLUSTER)] = embedded_cluster(registry, layout, settings)
    return {unit: cluster for unit, cluster in found.items() if major_of(cluster.directory) is not None}


def outdated(cluster: Cluster) -> bool:
    """Whether a newer version than the cluster's is installed."""
    return (major_of(cluster.directory) or 0) < newest().major


def upgrade_clusters(
    registry: Registry, layout: Layout, settings: Settings, manager: Manager, notify: Callable[[str], None]
) -> int:
    """Upgrades every outdated cluster; how many. What ran before runs again afterwards, also when an upgrade fails."""
    done = 0
    for unit, cluster in clusters(registry, layout, settings).items():
        if not outdated(cluster):
            notify(f"{unit}: already at PostgreSQL {newest().major}")
            continue
        users = _users(unit, registry)
        running = [other for other in (*users, unit) if manager.facts(other).active]
        with Signals() as signals:
            manager.subscribe()
            for other in running:
                notify(f"stopping {other}")
                run_unit(manager, signals, other, stop=True)
            try:
                upgraded = upgrade_cluster(cluster, notify)
                notify(
                    f"{unit}: PostgreSQL {upgraded.old} -> {upgraded.new}; the old cluster is kept in {upgraded.kept}"
                )
                done += 1
                found = concerning(changes(registry, layout, settings), [unit])
                apply(found, registry, layout, settings, manager)
            finally:
                _start_again(running, manager, signals, notify)
    return done


def _start_again(units: list[str], manager: Manager, signals: Signals, notify: Callable[[str], None]) -> None:
    """Starts what was stopped, in reverse; one that doesn't start keeps none of the others down."""
    failed: StartFailedError | None = None
    for unit in reversed(units):
        notify(f"starting {unit}")
        try:
            run_unit(manager, signals, unit)
        except StartFailedError as error:
            notify(error.sentence)
            failed = failed or error
    if failed:
        raise failed


def _users(unit: str, registry: Registry) -> list[str]:
    """Units that keep something in the cluster, those first that depend on others."""
    if unit == STORE_CLUSTER_UNIT:
        return [JOURNAL_UNIT, HELMD_UNIT]
    return [
        unit_of(name)
        for name, service in reversed(list(registry.services.items()))
        if SUITE_CLUSTER in service.depends_on
    ]
