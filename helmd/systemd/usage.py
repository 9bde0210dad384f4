"""What a unit's processes take: read from its control group (cgroups(7), the kernel's cgroup-v2 document)."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from helmd.model.units.status import Usage

CGROUPS = Path("/sys/fs/cgroup")
_MIB = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class UsageReading(NamedTuple):
    """Processor time in seconds since the group was made, and memory in bytes; None where not known."""

    cpu_seconds: float | None
    memory: int | None


def read_group(group: str | Path) -> UsageReading:
    """Return what a control group has used so far."""
    return UsageReading(_cpu_seconds(group), _memory(group))


def _text(path: str) -> str:
    # Not by pathlib, which takes longer than the kernel: some hundred such files are read every 15 s.
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:  # the group is gone, or the host does not count this
        return ""


def _cpu_seconds(group: str | Path) -> float | None:
    name, _, figure = _text(f"{group}/cpu.stat").partition("\n")[0].partition(" ")
    return int(figure) / 1e6 if name == "usage_usec" else None


def _memory(group: str | Path) -> int | None:
    """Return what the kernel charges to the group, else what its processes hold, pages that they share by share."""
    figure = _text(f"{group}/memory.current").strip()
    if figure:
        return int(figure)
    pids = list(_pids(group))
    # Shares take the kernel ten times as long.
    sizes = map(_proportional if len(pids) > 1 else _resident, pids)
    return sum(sizes) if pids else None


def _pids(group: str | Path) -> Iterable[int]:
    for directory, _, _ in os.walk(group):
        yield from map(int, _text(f"{directory}/cgroup.procs").split())


def count_tasks(group: str | Path) -> int | None:
    """Return processes and threads in a control group, those of groups below it included, or None when it is gone."""
    if figure := _text(f"{group}/pids.current").strip():
        return int(figure)
    counts = [
        len(_text(f"{directory}/cgroup.threads").split())
        for directory, _, files in os.walk(group)
        if "cgroup.threads" in files
    ]
    return sum(counts) if counts else None


def _proportional(pid: int) -> int:
    """Bytes: the proportional set size (proc(5)), or the resident set of a process that does not let it be read."""
    for line in _text(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return _resident(pid)


def _resident(pid: int) -> int:
    """Return bytes; proc(5).

    Read directly, because psutil looks up a process' start time first, at five times the cost.
    """
    fields = _text(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE if len(fields) > 1 else 0


class UsageMeter:
    """Turns readings into figures: processor time between two of them is a percentage."""

    def __init__(self, root: Path = CGROUPS) -> None:
        self._root = root
        self._last: dict[str, tuple[str, float, float]] = {}

    def measure(self, control_group: str, invocation: str, now: float) -> Usage:
        """Return the figures of a unit's CONTROL_GROUP at NOW (time.monotonic()); INVOCATION identifies the run."""
        reading = read_group(f"{self._root}/{control_group.lstrip('/')}")
        before = self._last.get(control_group)
        percent = None
        if reading.cpu_seconds is None:
            self._last.pop(control_group, None)
        else:
            self._last[control_group] = (invocation, reading.cpu_seconds, now)
            if before is not None and before[0] == invocation and now > before[2]:
                used = max(0.0, reading.cpu_seconds - before[1])
                percent = round(100 * used / (now - before[2]), 2)
        memory = None if reading.memory is None else round(reading.memory / _MIB, 2)
        return Usage(percent, memory)

    def forget(self, kept: Iterable[str]) -> None:
        """Keep readings of the control groups KEPT only."""
        keep = set(kept)
        self._last = {group: reading for group, reading in self._last.items() if group in keep}
