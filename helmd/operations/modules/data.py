"""The data of a module, its database and its shared files, copied before a change and restored after a failed one.

The name of a copy follows from the time of the change, so that a recovery finds it without a record.
"""

import os
import time
from dataclasses import dataclass

from helmd.files.trees import size_below
from helmd.model.errors import ModuleError
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.modules.intent import Facts, Intent
from helmd.model.modules.transaction import Kept
from helmd.model.suite.names import SUITE_CLUSTER, SUITE_CLUSTER_UNIT
from helmd.modules.snapshot import copy_tree, exchange_tree, remove_copy, remove_tree, tree_stamp
from helmd.operations.configuration.databases import administration, database_in_secrets, databases_of
from helmd.operations.configuration.effective import Effective
from helmd.operations.setup.setup import run_unit
from helmd.postgres.copies import (
    clone_database,
    close_database,
    copies_of,
    copy_name,
    database_exists,
    database_size,
    drop_database,
    open_database,
    put_in_place,
    rows_changed,
)
from helmd.systemd.bus import Manager, Signals

MARGIN = 1.2
"""Factor by which free space must exceed the estimated size of copies and a version."""
RESERVE = 32 << 20
"""Bytes reserved for a rollback, which only writes small files."""


def stamp_of(intent: Intent) -> str:
    """Return the suffix of the names of a change's copies."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(intent.began_at))


def database_of(suite: Effective, layout: Layout, name: str) -> str:
    """Return the present name of a module's database; empty if it has none.

    For a module that is not part of the suite (any more), that is the one that was kept.
    """
    service = suite.registry.services.get(name)
    if suite.settings.suite_embedded and SUITE_CLUSTER not in suite.registry:
        return ""
    if service is None:
        return database_in_secrets(layout, name)
    if not service.database or service.external:
        return ""
    return databases_of(suite.registry, layout, suite.settings).get(name, "")


@dataclass(frozen=True, slots=True)
class ModuleData:
    """The data of one module. ``database`` is empty for a module without one."""

    places: ModulePlaces
    layout: Layout
    suite: Effective
    manager: Manager
    database: str

    @property
    def administration(self) -> str:
        """Return the conninfo string of its server, which is started if it is the suite's own. Raises HelmError."""
        settings, registry = self.suite.settings, self.suite.registry
        if settings.suite_embedded and not self.manager.facts(SUITE_CLUSTER_UNIT).active:
            with Signals() as signals:
                self.manager.subscribe()
                run_unit(self.manager, signals, SUITE_CLUSTER_UNIT)
        return administration(registry, self.layout, settings)

    @property
    def known(self) -> bool:
        """Whether its server can be queried without starting it."""
        return not self.suite.settings.suite_embedded or self.manager.facts(SUITE_CLUSTER_UNIT).active

    def _copy(self, intent: Intent, purpose: str = "before") -> str:
        return copy_name(self.database, purpose, stamp_of(intent))

    def check_space(self, version: int, with_database: bool = True) -> dict[str, int]:
        """Return the needed and the free bytes of the file system with the least space left.

        VERSION is the size of a version. WITH_DATABASE starts the database's server, to query its size. Raises
        ModuleError if space is insufficient.
        """
        need: dict[int, int] = {}
        place = {}
        parts = [(self.places.root, version + size_below(self.places.shared) + RESERVE)]
        if with_database and self.database and self.suite.settings.suite_embedded:
            parts.append((self.layout.suite_cluster, database_size(self.administration, self.database)))
        for directory, size in parts:
            device = os.stat(directory).st_dev
            need[device], place[device] = need.get(device, 0) + int(size * MARGIN), directory
        worst = {"need": 0, "free": 0}
        for device, size in need.items():
            space = os.statvfs(place[device])
            free = space.f_bavail * space.f_frsize
            if free < size:
                raise ModuleError(
                    f"{place[device]} has {free >> 20:,} MB free, and the update needs {size >> 20:,} MB (the version"
                    " and copies of its data, and a fifth more)",
                    hint="Free some space, and run the command again.",
                )
            if not worst["need"] or free - size < worst["free"] - worst["need"]:
                worst = {"need": size, "free": free}
        return worst

    def reserve(self) -> None:
        """Reserve space for a rollback. Raises OSError."""
        descriptor = os.open(self.places.reserve, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE)
        finally:
            os.close(descriptor)

    def close(self) -> Facts:
        """Disallow connections to the database."""
        if self.database:
            close_database(self.administration, self.database)
        return {"database": self.database}

    def copy(self, intent: Intent) -> Facts:
        """Copy the closed database."""
        if not self.database:
            return {}
        return {
            "copy": self._copy(intent),
            "size": clone_database(self.administration, self.database, self._copy(intent)),
        }

    def snapshot(self, intent: Intent) -> Facts:
        """Copy the shared files of the stopped module."""
        made = copy_tree(self.places.shared, self.places.snapshot(stamp_of(intent)))
        return {"files": made.files, "size": made.size, "left_out": len(made.left_out)}

    def open(self) -> Facts:
        if self.database:
            open_database(self.administration, self.database)
        return {}

    def marks(self) -> Facts:
        """Return marks to detect later writes: the number of changed rows, and a digest of the shared files."""
        rows = rows_changed(self.administration, self.database) if self.database else None
        return {"rows": rows, "files": tree_stamp(self.places.shared)}

    def restore_version(self, intent: Intent, stamp: str) -> None:
        """Restore the copies that were made at STAMP, which are kept. The present data has been copied before."""
        snapshot = self.places.snapshot(stamp)
        if not snapshot.is_dir():
            raise ModuleError(f"the copy of its shared files is missing: {snapshot}")
        if self.database:
            kept, fresh = copy_name(self.database, "before", stamp), self._copy(intent, "back")
            aside = self._copy(intent, "aside")
            if not database_exists(self.administration, kept):
                raise ModuleError(f"the copy of its database is missing: {kept}")
            close_database(self.administration, self.database)
            clone_database(self.administration, kept, fresh)
            put_in_place(self.administration, self.database, fresh, aside)
            open_database(self.administration, self.database)
            drop_database(self.administration, aside)
        fresh_files = self.places.snapshot(f"{stamp_of(intent)}-back")
        aside_files = self.places.snapshot(f"{stamp_of(intent)}-aside")
        copy_tree(snapshot, fresh_files)
        exchange_tree(self.places.shared, fresh_files, aside_files)
        remove_tree(aside_files)

    def restore_database(self, intent: Intent) -> Facts:
        """Replace the database by its copy, and keep it aside; return whether it was written to."""
        if not self.database:
            return {}
        aside = self._copy(intent, "failed")
        put_in_place(self.administration, self.database, self._copy(intent), aside)
        now, before = rows_changed(self.administration, aside), intent.fact("unit", "rows")
        known = now is not None and isinstance(before, int)
        return {"aside": aside, "rows": max(0, int(now or 0) - int(str(before))) if known else None}

    def restore_shared(self, intent: Intent) -> Facts:
        """Replace the shared files by their copy, and keep them aside; return whether they were written to."""
        aside = self.places.failed_state(stamp_of(intent))
        exchange_tree(self.places.shared, self.places.snapshot(stamp_of(intent)), aside)
        before = intent.fact("unit", "files")
        return {"aside": str(aside), "changed": bool(before) and tree_stamp(aside) != before}

    def clear_failed(self, intent: Intent) -> Facts:
        """Remove the copies of a change that was rolled back, except data that was written while its version ran."""
        kept = kept_of(intent)
        if self.database:
            names = ["before", "back", "aside"] + ([] if kept.database else ["failed"])
            for purpose in names:
                drop_database(self.administration, self._copy(intent, purpose))
        stamp = stamp_of(intent)
        for directory in (stamp, f"{stamp}-back", f"{stamp}-aside"):
            remove_copy(self.places.snapshot(directory))
        if not kept.shared:
            remove_tree(self.places.failed_state(stamp))
        return {"database": kept.database, "shared": kept.shared}

    def clear_older(self, stamp: str) -> None:
        """Remove the copies of earlier successful changes, except those of STAMP."""
        if self.database:
            for name in copies_of(self.administration, self.database):
                if name != copy_name(self.database, "before", stamp) and "_failed_" not in name:
                    drop_database(self.administration, name)
        snapshots = self.places.snapshot(stamp).parent
        for directory in sorted(snapshots.iterdir()) if snapshots.is_dir() else ():
            if directory.name != stamp:
                remove_tree(directory)

    def remove(self, keep: bool) -> list[str]:
        """Remove the copies, and unless KEEP is set the data itself; return the databases removed."""
        removed = []
        if self.database:
            names = copies_of(self.administration, self.database)
            for name in names if keep else [*names, self.database]:
                drop_database(self.administration, name)
                removed.append(name)
        return removed


def kept_of(intent: Intent) -> Kept:
    """Return where data written to a removed version is kept."""
    database, shared = intent.undone.get("database", {}), intent.undone.get("shared", {})
    if "start" not in intent.entered:
        # Only its migration has run, whose output is in the log.
        return Kept()
    rows = database.get("rows")
    found = Kept(
        str(database.get("aside") or ""),
        str(shared.get("aside") or ""),
        rows if isinstance(rows, int) else None,
        bool(shared.get("changed")),
    )
    wanted_database = found.database if found.database and (found.rows is None or found.rows) else ""
    return Kept(wanted_database, found.shared if found.files_changed else "", found.rows, found.files_changed)


def seconds_down(intent: Intent) -> float | None:
    """Return the downtime in seconds; None if unknown."""
    stopped = intent.fact("stop", "at")
    started = intent.undone.get("start", {}).get("at") if intent.reason else intent.fact("start", "at")
    if isinstance(stopped, int | float) and isinstance(started, int | float):
        return max(0.0, float(started) - float(stopped))
    return None
