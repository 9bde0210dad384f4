"""Limits a sandbox's memory and tasks on a machine without a cgroup controller for them.

A process outside of what it limits, of real-time priority, which looks ten times a second and kills what is too much:
the largest process, or the group (a unit, or what `exec` started) with the most tasks. Until then a sandbox can exceed
its limit by what it allocates in a tenth of a second. Files in a tmpfs are not counted; each has a limit of its own.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from .cgroup import write

PAUSE = 0.1  # seconds
PAGE = os.sysconf("SC_PAGE_SIZE")
SPARED = ("init.scope", "supervisor")  # without PID 1 or systemd-nspawn the sandbox ends


def watch(box: Path, memory: int, tasks: int) -> NoReturn:
    """Watch the cgroup `box` until this process is killed with the sandbox.

    `memory` is in bytes. 0 is for what a controller limits.
    """
    with suppress(OSError):  # so that it gets its turn beside thousands of other processes; needs CAP_SYS_NICE
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    while True:
        if tasks:
            bound_tasks(box, tasks)
        if memory:
            bound_memory(box, memory)
        time.sleep(PAUSE)


def bound_tasks(box: Path, limit: int) -> None:
    counts = {group: len(_numbers(group / "cgroup.threads")) for group in _groups(box)}
    if sum(counts.values()) <= limit:
        return
    write(box / "cgroup.freeze", "1")  # so that it does not fork faster than it is killed
    try:
        counts = {group: len(_numbers(group / "cgroup.threads")) for group in _groups(box)}
        largest = max((group for group in counts if group.name not in SPARED), key=lambda group: counts[group])
        _say(f"{sum(counts.values())} tasks, more than {limit}: killing {largest.name} with {counts[largest]}")
        if not write(largest / "cgroup.kill", "1"):  # Linux before 5.14
            for pid in _numbers(largest / "cgroup.procs"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    finally:
        write(box / "cgroup.freeze", "0")


def bound_memory(box: Path, limit: int) -> None:
    resident = {
        pid: _resident(pid)
        for group in _groups(box)
        for pid in _numbers(group / "cgroup.procs")
        if group.name not in SPARED
    }
    if sum(resident.values()) <= limit:
        return
    # Pages that processes share count once here; reading this takes longer.
    exact = {pid: _proportional(pid) for pid in resident}
    used = sum(exact.values())
    if used <= limit:
        return
    pid = max(exact, key=lambda each: exact[each])
    _say(f"{used >> 20} MiB in use, more than {limit >> 20}: killing process {pid} with {exact[pid] >> 20} MiB")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _groups(box: Path) -> list[Path]:
    return [Path(path) for path, _, _ in os.walk(box)]


def _numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_text().split()]
    except OSError:  # the group has been removed, or has no tasks by itself
        return []


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _say(sentence: str) -> None:
    print(f"watchdog: {sentence}", flush=True)  # to the console's log
