"""Reading and atomically replacing the records of modules on disk (``module.json``)."""

import os
import stat
from pathlib import Path

from helmd.files.durable import fsync_directory, write_atomically
from helmd.model.errors import UsageError
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.modules.check import MAX_CHECK, UpdateCheck, check_of, check_text
from helmd.model.modules.record import MAX_RECORD, ModuleRecord, RecordError, record_of, record_text
from helmd.model.suite.names import fault_in_name

KEPT_CHECKS = 8
"""Maximum number of stored checks of refs that a module does not follow."""


def places_of(layout: Layout, name: str) -> ModulePlaces:
    """Return the places of the module NAME, which comes from outside. Raises UsageError for what can't be a name."""
    if fault := fault_in_name(name):
        raise UsageError(f"'{name[:60]}' can't be a module: {fault}")
    return layout.module(name)


def read_record(places: ModulePlaces) -> ModuleRecord | None:
    """Return the record of a module, or None if there is none. Raises RecordError for one that can't be used."""
    content = _content(places.record, MAX_RECORD)
    return None if content is None else record_of(content, places.root.name)


def _content(path: Path, most: int) -> str | None:
    """Return the text of a file, or None without one.

    Raises RecordError for a file that is not regular, or larger than MOST.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise RecordError(f"{path} can't be read: {problem.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecordError(f"{path} is not a regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise RecordError(f"{path} is larger than {most >> 20} MiB")
    return content.decode("utf-8", "replace")


def write_record(places: ModulePlaces, record: ModuleRecord) -> None:
    """Replace a module's record, durably. Raises OSError."""
    made = not places.root.exists()
    places.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(places.record, record_text(record), 0o600)
    if made:
        fsync_directory(places.root.parent)


def read_check(places: ModulePlaces, ref: str = "") -> UpdateCheck | None:
    """Return the result of the last check for an update of a module, or None where that is not known any
    more.

    That is of what it follows, or of REF, which it does not.
    """
    try:
        content = _content(places.check_for(ref) if ref else places.check, MAX_CHECK)
        return None if content is None else check_of(content, places.root.name)
    except (RecordError, ValueError):
        # The next check replaces it.
        return None


def write_check(places: ModulePlaces, check: UpdateCheck, ref: str = "") -> None:
    """Store the result of a check; of refs that are not followed, the newest `KEPT_CHECKS`. Raises OSError."""
    path = places.check_for(ref) if ref else places.check
    if ref:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, check_text(check), 0o600)
    if ref:
        for old in sorted(path.parent.iterdir(), key=lambda each: each.lstat().st_mtime_ns)[:-KEPT_CHECKS]:
            old.unlink()


def installed_names(layout: Layout) -> list[str]:
    """Return the names of modules that have a record, readable or not."""
    try:
        names = sorted(os.listdir(layout.modules))
    except FileNotFoundError:
        return []
    return [name for name in names if not fault_in_name(name) and layout.module(name).record.exists()]
