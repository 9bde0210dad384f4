"""Files of a module in a backup besides those of its service: its record, and its version's declared settings."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from helmd.model.errors import HelmError
from helmd.model.layout import ModulePlaces
from helmd.model.modules.record import record_text
from helmd.model.suite.names import fault_in_name
from helmd.modules.records import read_record

MODULES = "modules"
"""The directory in the archive."""
_FILES = ("module.json", "declared.toml")


def module_files(places: ModulePlaces) -> Iterator[tuple[str, bytes]]:
    """Yield the files by name. Of versions, only the active one is in a backup, so the record has no other."""
    with suppress(HelmError):
        record = read_record(places)
        if record is not None:
            others = tuple(
                each if each.state == "active" else replace(each, state="removed") for each in record.versions
            )
            yield places.record.name, record_text(replace(record, versions=others)).encode()
    with suppress(OSError):
        yield places.declared.name, places.declared.read_bytes()


def is_module_file(name: str) -> bool:
    """Return whether a path below `MODULES` in an archive is that of such a file."""
    module, _, file = name.partition("/")
    return not fault_in_name(module) and file in _FILES
