"""Pending updates of this machine's packages, from the package lists of apt-get(8).

Nothing is fetched: whether the lists are fresh is up to the machine (apt-daily.timer), and is reported with them.
"""

import asyncio
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from helmd.health.thread_pool import ThreadPool
from helmd.model.api.host import HostUpdate, HostUpdates

APT_WAIT_SECONDS = 3.0
"""Maximum time in seconds that a request waits for apt; a later one gets the result."""
_APT_SECONDS = 60.0
_COMMAND = ("apt-get", "--simulate", "--with-new-pkgs", "-o", "Debug::NoLocking=1", "upgrade")
_MOST_SHOWN = 200
_UPDATE = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ([^\[)]*)", re.MULTILINE)
"""``Inst NAME [INSTALLED] (AVAILABLE ORIGIN:VERSION/SUITE, ... [ARCHITECTURE])``."""
_Stamp = tuple[int, ...]


class PendingUpdates:
    """Asks apt again whenever its lists or the installed packages have changed. ROOT is the root directory."""

    def __init__(self, root: Path = Path("/"), command: tuple[str, ...] = _COMMAND) -> None:
        self._lists = root / "var/lib/apt/lists"
        self._success = root / "var/lib/apt/periodic/update-success-stamp"
        self._status = root / "var/lib/dpkg/status"
        self._command = command
        self._threads = ThreadPool(1)
        self._known: HostUpdates | None = None
        self._stamp: _Stamp | None = None

    async def current(self) -> HostUpdates | None:
        """Return the pending updates, or None if unknown, or not known yet."""
        try:
            async with asyncio.timeout(APT_WAIT_SECONDS):
                await self._threads.run(self._refresh)
        except TimeoutError:
            # The thread continues, and there is only one.
            pass
        return self._known

    def read(self) -> HostUpdates | None:
        """Return the pending updates, waiting for apt. Blocks."""
        self._refresh()
        return self._known

    def _refresh(self) -> None:
        stamp = tuple(_modified(path) for path in (self._lists, self._success, self._status))
        if stamp == self._stamp:
            return
        found = self._ask()
        self._known, self._stamp = found, stamp

    def _ask(self) -> HostUpdates | None:
        if not any(self._lists.glob("*_Packages*")):
            # Without package lists, an empty result has no meaning.
            return None
        try:
            done = subprocess.run(
                ["nice", "-n", "19", *self._command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_APT_SECONDS,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        fetched = max(_modified(self._success), _modified(self._lists)) / 1e9
        return updates_in(done.stdout.decode("utf-8", "replace"), datetime.fromtimestamp(fetched, UTC))


def updates_in(text: str, listed_at: datetime) -> HostUpdates:
    """Return what apt-get --simulate would install."""
    found = [
        HostUpdate(name, installed or None, available, "security" in origins.lower())
        for name, installed, available, origins in _UPDATE.findall(text)
    ]
    found.sort(key=lambda update: (not update.security, update.package))
    security = sum(update.security for update in found)
    return HostUpdates(len(found), security, listed_at, tuple(found[:_MOST_SHOWN]))


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
