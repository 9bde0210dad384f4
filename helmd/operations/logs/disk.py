"""Free space of the file system of the log store."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

_CHECK_SECONDS = 1.0
"""Maximum age in seconds of a measurement."""

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
    """Measures whether less space is available at PATH than LEAST returns for the file system's size.

    Both are in bytes; 0 means no limit. MEASURE returns them.
    """

    def __init__(
        self, path: Path, least: Callable[[int], int], measure: Callable[[Path], tuple[int, int]] = space
    ) -> None:
        self._path = path
        self._least = least
        self._measure = measure
        self._measured_at: float | None = None
        self._low = False
        self._failed = False

    def __call__(self) -> bool:
        """Return whether space is low, as of at most _CHECK_SECONDS ago. If it can't be read, return the last state."""
        now = time.monotonic()
        if self._measured_at is None or now - self._measured_at > _CHECK_SECONDS:
            self._measured_at = now
            try:
                free, total = self._measure(self._path)
            except OSError as problem:
                if not self._failed:
                    _log.warning("the free space at %s can't be read: %s", self._path, problem.strerror)
                self._failed = True
            else:
                self._low, self._failed = free < self._least(total), False
        return self._low
