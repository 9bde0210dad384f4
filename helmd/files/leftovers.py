"""Files that a killed process has left of a replacement (`helmd.files.durable`): found by their names, and removed."""

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from helmd.model.layout import Layout

_LEFTOVER = re.compile(r"\.(.+)\.[0-9a-f]{8}\Z", re.DOTALL)
OLD_SECONDS = 3600.0
"""Age at which nobody writes such a file any more."""


def remove_leftovers(directory: Path, name: str = "", older: float = 0.0) -> list[str]:
    """Remove from DIRECTORY what is left of replacements, of the file NAME alone if that is given; their names.

    Nobody may be writing that file, unless OLDER says how old, in seconds, what is removed has to be.
    """
    removed = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(directory):
            found = _LEFTOVER.match(entry.name)
            if found is None or (name and found[1] != name):
                continue
            with suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode) and time.time() - facts.st_mtime >= older:
                    os.unlink(entry.path)
                    removed.append(entry.name)
    return removed


def tidy_account(layout: Layout) -> list[str]:
    """Remove old ones from the directories in which Helm replaces files; their paths. Raises OSError."""
    return [str(place / name) for place in _places(layout) for name in remove_leftovers(place, older=OLD_SECONDS)]


def _places(layout: Layout) -> Iterator[Path]:
    yield from (layout.config, layout.registry_directory, layout.secrets, layout.state, layout.units)
    for directory in (layout.modules, layout.state / "modules"):
        with suppress(FileNotFoundError):
            yield from (directory / name for name in sorted(os.listdir(directory)))
    yield layout.module("x").deploy_key.parent
