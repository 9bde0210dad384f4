"""Removing a module from the suite; can be repeated after an interruption."""

from collections.abc import Callable
from dataclasses import dataclass

from helmd.files.leftovers import remove_leftovers
from helmd.model.errors import ModuleError
from helmd.model.suite.names import unit_of
from helmd.modules.snapshot import remove_tree
from helmd.operations.configuration.apply import apply, changes
from helmd.operations.configuration.databases import administration
from helmd.operations.configuration.effective import load_effective
from helmd.operations.modules.data import ModuleData, database_of
from helmd.operations.modules.planned import check_entry, remove_entry
from helmd.operations.modules.shown import not_installed
from helmd.operations.modules.update import ModuleUpdates
from helmd.operations.setup.setup import run_unit
from helmd.postgres.copies import drop_role
from helmd.postgres.passfile import remove_password
from helmd.systemd.bus import Signals


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What a removal would delete. ``database`` is empty for a module without one, or if its data is kept."""

    name: str
    directory: str
    database: str
    keeps: tuple[str, ...]


def removal_plan(updates: ModuleUpdates, keep_data: bool) -> RemovalPlan:
    """Return what removing a module would do.

    Raises UsageError for another service, ModuleError for one that others need.
    """
    name, layout = updates.name, updates.layout
    places = updates.places
    if not places.root.is_dir():
        raise not_installed(name)
    check_entry(layout, name)
    suite = load_effective(layout)
    if needed := [other for other, each in suite.registry.services.items() if name in each.depends_on]:
        raise ModuleError(
            f"{name} is needed by {', '.join(needed)}",
            hint=f"Remove that first, or take {name} out of its depends_on in {layout.registry_file}.",
        )
    database = database_of(suite, layout, name)
    keeps = (str(places.shared), *((f"the database {database}",) if database else ())) if keep_data else ()
    return RemovalPlan(name, str(places.root), "" if keep_data else database, keeps)


def remove_module(updates: ModuleUpdates, keep_data: bool, step: Callable[[str], None]) -> None:
    """Take a module out of the suite, with its versions, and unless KEEP_DATA with its data. Raises HelmError, OSError.

    STEP is called with what is done, as a sentence.
    """
    name, layout, manager, places = updates.name, updates.layout, updates.manager, updates.places
    removal_plan(updates, keep_data)
    with updates.locked():
        updates.recover()
        suite = load_effective(layout)
        database = database_of(suite, layout, name)
        data = ModuleData(places, layout, suite, manager, database)
        # The address of its server depends on the present suite.
        admin = administration(suite.registry, layout, suite.settings) if database else ""
        unit = unit_of(name)
        if manager.facts(unit).exists:
            step("stopping it")
            with Signals() as signals:
                manager.subscribe()
                run_unit(manager, signals, unit, stop=True)
            manager.reset_failed(unit)
        if database:
            step("removing copies of its database" if keep_data else f"removing the database {database}")
            data.remove(keep_data)
        step("taking it out of the suite")
        remove_entry(layout, name)
        after = load_effective(layout)
        found = changes(after.registry, layout, after.settings, refused=after.refused)
        apply([each for each in found if each.unit == unit], after.registry, layout, after.settings, manager)
        step("removing its files")
        # First, since without its directory it is not a module any more, and an interrupted removal could not be
        # repeated.
        for key in (places.deploy_key, places.deploy_key_before):
            key.unlink(missing_ok=True)
            remove_leftovers(key.parent, key.name)
        if keep_data:
            for directory in (places.versions, places.mirror, places.cache, places.root / "snapshots"):
                remove_tree(directory)
            for file in (places.record, places.declared, places.root / "gitconfig", places.known_hosts):
                file.unlink(missing_ok=True)
        else:
            if database:
                drop_role(admin, name)
                if suite.settings.suite_embedded:
                    remove_password(layout.suite_passfile, name)
            layout.secrets_file(name).unlink(missing_ok=True)
            remove_leftovers(layout.secrets, layout.secrets_file(name).name)
            remove_tree(places.root)
        remove_leftovers(places.root)
        remove_tree(places.state)
