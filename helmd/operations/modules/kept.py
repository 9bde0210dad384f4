"""Data of a module that users had written before a change was rolled back, which is kept."""

import calendar
import time
from dataclasses import dataclass

from helmd.files.trees import size_below
from helmd.modules.snapshot import remove_tree
from helmd.operations.modules.data import ModuleData
from helmd.postgres.copies import copies_of, copy_time, database_size, drop_database

FAILED_DATA_SECONDS = 30 * 86400.0
"""Seconds for which it is kept; a later successful change removes it."""
_FAILED = "failed"
"""The purpose in the names of such databases."""


@dataclass(frozen=True, slots=True)
class KeptData:
    """A database or a directory. ``size`` is bytes, ``at`` when the change began, in seconds since the epoch."""

    what: str
    where: str
    size: int
    at: float


def kept_data(data: ModuleData) -> list[KeptData]:
    """Return the kept data of one module, oldest first. Raises HelmError, OSError."""
    found = []
    if data.database:
        admin = data.administration
        for name in copies_of(admin, data.database):
            if (at := copy_time(name, _FAILED)) is not None:
                found.append(KeptData("database", name, database_size(admin, name), at))
    failed = data.places.failed_state("x").parent
    for directory in sorted(failed.iterdir()) if failed.is_dir() else ():
        # Files with other names were created or renamed by the user.
        if (at := _time_of(directory.name)) is not None:
            found.append(KeptData("files", str(directory), size_below(directory), at))
    return sorted(found, key=lambda each: (each.at, each.where))


def _time_of(stamp: str) -> float | None:
    try:
        return float(calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ")))
    except ValueError:
        return None


def remove_kept(data: ModuleData, older: float) -> list[KeptData]:
    """Remove data that was kept for at least OLDER seconds; return it. The module must be locked.

    Raises HelmError, OSError.
    """
    removed = []
    for each in kept_data(data):
        if each.at > time.time() - older:
            continue
        if each.what == "database":
            drop_database(data.administration, each.where)
        else:
            remove_tree(data.places.failed_state("x").with_name(each.where.rpartition("/")[2]))
        removed.append(each)
    return removed
