"""Free space of the file system of the log store."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


def space(path: Path) -> tuple[int, int]:
    """Return the bytes available to this account, and the size, of the file system that PATH is or will be on."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    # As in df(1), space reserved for root counts in neither.
    usable = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
    return found.f_bavail * found.f_frsize, usable


class LowDisk:
    """Whether less is available at PATH than LEAST returns for the file system's size, in bytes; 0 means no limit."""

    def __init__(
        self, path: Path, least: Callable[[int], int], look: Callable[[Path], tuple[int, int]] = space
    ) -> None:
        self._path = path
        self._least = least
        self._look = look
        self._looked: float | None = None
        self._low = False
        self._failed = False

    def __call__(self) -> bool:
        """Return the state, at most a second old. If it can't be determined, the last known state is returned."""
        now = time.monotonic()
        if self._looked is None or now - self._looked > _LOOK_SECONDS:
            self._looked = now
            try:
                free, total = self._look(self._path)
            except OSError as problem:
                if not self._failed:
                    _log.warning("how full the disk of %s is can't be read: %s", self._path, problem.strerror)
                self._failed = True
            else:
                self._low, self._failed = free < self._least(total), False
        return self._low
