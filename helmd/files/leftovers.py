"""Files that a killed process has left of a replacement (`helmd.files.durable`): found by their names, and removed."""

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from helmd.model.layout import Layout
from helmd.model.suite.names import fault_in_name

_LEFTOVER = re.compile(r"\.(.+)\.(?=[0-9]*[a-f])[0-9a-f]{8}\Z", re.DOTALL)
"""A suffix of decimal digits only is taken for a date, as in a user's own copy."""
_OWN_UNITS = ("hivematrix", "helmd")
"""What the names of Helm's own units begin with; the directory has others' as well."""
OLD_SECONDS = 3600.0
"""Age in seconds at which such a file is not being written any more."""


def remove_leftovers(directory: Path, name: str = "", older: float = 0.0, begins: tuple[str, ...] = ("",)) -> list[str]:
    """Remove from DIRECTORY what is left of replacements, of the file NAME alone if that is given, or of files whose
    names begin so; their names.

    Nobody may be writing that file, unless OLDER says how old, in seconds, what is removed has to be.
    """
    removed = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(directory):
            found = _LEFTOVER.match(entry.name)
            if found is None or (name and found[1] != name) or not found[1].startswith(begins):
                continue
            with suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                own = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
                if own and time.time() - facts.st_mtime >= older:
                    os.unlink(entry.path)
                    removed.append(entry.name)
    return removed


def tidy_account(layout: Layout) -> list[str]:
    """Remove old ones from the directories in which Helm replaces files; their paths. What can't be read is left."""
    removed: list[str] = []
    for place in _places(layout):
        begins = _OWN_UNITS if place == layout.units else ("",)
        with suppress(OSError):
            removed += [str(place / name) for name in remove_leftovers(place, older=OLD_SECONDS, begins=begins)]
    return removed


def _places(layout: Layout) -> Iterator[Path]:
    yield from (layout.config, layout.registry_directory, layout.secrets, layout.state, layout.units)
    for directory in (layout.modules, layout.state / "modules"):
        names: list[str] = []
        with suppress(OSError):
            names = sorted(os.listdir(directory))
        yield from (directory / name for name in names if not fault_in_name(name))
    yield layout.module("x").deploy_key.parent
