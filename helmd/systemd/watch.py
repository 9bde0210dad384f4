"""The manager's signals in an asyncio loop: which units changed, without ever asking in between."""

import asyncio
import subprocess
from collections.abc import Collection
from types import TracebackType
from typing import Self

from helmd.model.errors import BusError
from helmd.systemd.bus import Manager, Signals

EVERYTHING = ""
"""Stands for all units, after the manager has reloaded its unit files."""
SETTLE = 0.02
"""Seconds for which changes are gathered: a start alone sends half a dozen signals."""


class UnitWatch:
    """Open while used as a context manager. After a BusError it is of no more use; open another.

    ``manager`` is for calls; they block the loop, bounded by SYSTEMD_BUS_TIMEOUT.
    """

    def __init__(self) -> None:
        self.manager = Manager()
        try:
            self._signals = Signals()
        except BusError:
            self.manager.close()
            raise
        self._changed: set[str] = set()
        self._broken: BusError | None = None
        self._wake = asyncio.Event()

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._fd = self._signals.fd
        try:
            self._signals.watch_units()
            self.manager.subscribe()
        except BusError:
            self._close()
            raise
        self._loop.add_reader(self._fd, self._drain)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.remove_reader(self._fd)
        self._close()

    def _close(self) -> None:
        self._signals.close()
        self.manager.close()

    def _drain(self) -> None:
        try:
            self._signals.drain()
            # sd-bus takes the end of a connection for a message like any other; only the descriptor is gone after it.
            if self._signals.fd < 0:
                raise BusError("the connection to the systemd user manager ended")
        except BusError as broken:
            self._broken = broken
            self._loop.remove_reader(self._fd)
        self._changed |= self._signals.changed()
        if self._changed or self._broken:
            self._wake.set()

    def report(self, units: Collection[str]) -> None:
        """Make `changes` report UNITS, as if they had changed."""
        if units:
            self._changed |= set(units)
            self._wake.set()

    async def changes(self) -> set[str]:
        """Wait for units to change; their names, EVERYTHING among them when all may have. Raises BusError."""
        await self._wake.wait()
        if self._broken is None:
            await asyncio.sleep(SETTLE)
        self._wake.clear()
        if self._broken is not None:
            raise self._broken
        changed, self._changed = self._changed, set()
        return changed


async def ping(seconds: float) -> str | None:
    """Ask the manager for an answer; return None if it came within SECONDS, else what was wrong, as a sentence.

    This uses busctl(1), since a call on our own connection would block the whole process.
    """
    where = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.DBus.Peer")
    command = ("busctl", "--user", f"--timeout={seconds:g}", "call", *where, "Ping")
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError as problem:
        return f"busctl can't be run ({problem.strerror})"
    try:
        async with asyncio.timeout(seconds + 0.2):
            _, errors = await process.communicate()
    except TimeoutError:
        return f"the systemd user manager gave no answer within {seconds:g} s"
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode == 0:
        return None
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return "the systemd user manager gave no answer" + (f" ({lines[-1]})" if lines else "")
