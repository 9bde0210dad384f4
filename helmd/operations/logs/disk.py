"""How full the disk is that the log store is on."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


def space(path: Path) -> tuple[int, int]:
    """Return bytes that this account may still use, and bytes in all, of the file system that PATH is or will be on."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    # As df(1) counts: what is reserved for root belongs to neither side.
    usable = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
    return found.f_bavail * found.f_frsize, usable


class LowDisk:
    """Whether less is free on PATH's disk than LEAST, which gives the bytes for a disk's size; 0 for no such bound."""

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
        """As it was a second ago at the earliest. A file system that can't be looked at is as it was before."""
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
