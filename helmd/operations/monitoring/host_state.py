"""The state of the machine: load, pressure, memory, disks, clock, from proc(5) and statvfs(3)."""

import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from helmd.health.thread_pool import ThreadPool
from helmd.model.api.host import (
    HostCertificate,
    HostDisk,
    HostMemory,
    HostPressure,
    HostReply,
    HostUpdates,
    PressureStall,
)
from helmd.model.errors import HelmError
from helmd.operations.monitoring.updates import PendingUpdates
from helmd.systemd.clock import is_synchronized

_REBOOT, _REBOOT_PACKAGES = Path("/run/reboot-required"), Path("/run/reboot-required.pkgs")
_CONTAINER = Path("/run/systemd/container")
"""Written by systemd in a container, where no time service runs."""
_MOST_PACKAGES = 200
_GIB = 1 << 30
_LEAST_SECONDS = 3600.0
"""Minimum time in seconds over which the rate of free space is measured."""
_DAY = 86400.0
_LINE = re.compile(r"^(some|full) avg10=([0-9.]+) avg60=([0-9.]+)", re.MULTILINE)


def in_container() -> bool:
    """Return whether this is a container, whose clock is that of its host."""
    return _CONTAINER.exists()


class HostState:
    """Reads it. PLACES are directories whose file systems the suite needs, CERTIFICATES returns those of services.

    PROC is where proc(5) is.
    """

    def __init__(
        self,
        places: Sequence[Path],
        certificates: Callable[[], Sequence[HostCertificate]] = tuple,
        proc: Path = Path("/proc"),
        updates: PendingUpdates | None = None,
    ) -> None:
        self._places = places
        self._certificates = certificates
        self._proc = proc
        self._updates = updates or PendingUpdates()
        self._threads = ThreadPool(1)
        self._first_free: dict[int, tuple[float, int]] = {}

    async def report(self) -> HostReply:
        """As `read`, in a thread, with pending updates."""
        updates = await self._updates.current()
        return await self._threads.run(lambda: self.read(updates))

    def read(self, updates: HostUpdates | None = None) -> HostReply:
        """Return the state now. Blocks. Raises OSError where proc(5) can't be read."""
        seconds = {name: float(value) for name, value in re.findall(r"^(\w+) (\d+)", self._text("stat"), re.MULTILINE)}
        return HostReply(
            hostname=socket.gethostname(),
            timestamp=datetime.now(UTC),
            booted_at=datetime.fromtimestamp(seconds["btime"], UTC),
            processors=len(os.sched_getaffinity(0)),
            load=tuple(round(value, 2) for value in os.getloadavg()),
            pressure=HostPressure(self._pressure("cpu"), self._pressure("memory"), self._pressure("io")),
            memory=self._memory(),
            disks=self._disks(time.monotonic()),
            clock_synchronized=is_synchronized(),
            reboot_required=_REBOOT.exists(),
            reboot_packages=_reboot_packages(),
            updates=updates,
            certificates=self._shown(),
        )

    def _shown(self) -> tuple[HostCertificate, ...] | None:
        try:
            return tuple(self._certificates())
        except HelmError:
            return None

    def _text(self, name: str) -> str:
        return (self._proc / name).read_text()

    def _pressure(self, resource: str) -> PressureStall | None:
        try:
            found = {
                kind: (float(ten), float(sixty))
                for kind, ten, sixty in _LINE.findall(self._text(f"pressure/{resource}"))
            }
        except OSError:  # a kernel without it, or with psi=0
            return None
        if "some" not in found:
            return None
        return PressureStall(*found["some"], found["full"][1] if "full" in found else None)

    def _memory(self) -> HostMemory:
        sizes = {
            name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+): +(\d+) kB", self._text("meminfo"), re.MULTILINE)
        }
        names = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
        return HostMemory(*(round(sizes.get(name, 0.0), 1) for name in names))

    def _disks(self, now: float) -> tuple[HostDisk, ...]:
        found: dict[int, HostDisk] = {}
        for given in self._places:
            place = given
            while not place.exists():
                place = place.parent
            device = place.stat().st_dev
            if device not in found:
                found[device] = self._disk(device, place, now)
        return tuple(found.values())

    def _disk(self, device: int, place: Path, now: float) -> HostDisk:
        state = os.statvfs(place)
        total = (state.f_blocks - state.f_bfree + state.f_bavail) * state.f_frsize
        free = state.f_bavail * state.f_frsize
        begun, before = self._first_free.setdefault(device, (now, free))
        return HostDisk(
            path=str(place),
            total_gb=round(total / _GIB, 2),
            free_gb=round(free / _GIB, 2),
            usage_percent=round(100 * (1 - free / total), 2) if total else 100.0,
            inodes_free=state.f_favail if state.f_files else None,
            days_left=days_left(before, free, now - begun),
        )


def _reboot_packages() -> tuple[str, ...]:
    try:
        lines = _REBOOT_PACKAGES.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(sorted({line.strip() for line in lines if line.strip()}))[:_MOST_PACKAGES]


def days_left(before: int, free: int, seconds: float) -> float | None:
    """Return days until FREE bytes are used up that were BEFORE bytes SECONDS ago, or None if no estimate is
    possible.
    """
    if seconds < _LEAST_SECONDS or free >= before:
        return None
    return round(free / ((before - free) / seconds) / _DAY, 1)
