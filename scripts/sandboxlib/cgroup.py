"""The control group of a sandbox, which contains all of its processes, so that they can be killed together.

Layout: `NAME/keeper` has the process that owns the mounts and starts systemd-nspawn, and the network's processes;
`NAME/box` has nspawn, which creates `supervisor` and `payload` below it. On hosts that also mount the `name=systemd`
hierarchy, the same tree is created there, or two sandboxes would share one `/payload`.
"""

import os
import signal
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from .place import Place, SandboxError

PARTS = ("keeper", "box")
CONTROLLERS = ("cpu", "memory", "pids", "io")


@cache
def hierarchies() -> tuple[Path, ...]:
    """Return the mount points of the unified hierarchy and, on hybrid hosts, of `name=systemd`."""
    unified: list[Path] = []
    named: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            unified.append(Path(before.split()[4]))
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            named.append(Path(before.split()[4]))
    if not unified:
        raise SandboxError(
            "this machine has no cgroup v2 hierarchy mounted",
            "mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )
    return (unified[0], *named[:1])


def top(place: Place) -> Path:
    return hierarchies()[0] / place.cgroup


def create(place: Place) -> None:
    for hierarchy in hierarchies():
        for part in PARTS:
            (hierarchy / place.cgroup / part).mkdir(parents=True, exist_ok=True)
    # Best effort: if the host delegates controllers, properties such as MemoryCurrent= have values inside.
    for controller in CONTROLLERS:
        with suppress(OSError):
            (top(place) / "cgroup.subtree_control").write_text(f"+{controller}")


def join_files(place: Place, part: str) -> list[Path]:
    """Return the cgroup.procs files that a process writes its pid to in order to join `part`."""
    return [hierarchy / place.cgroup / part / "cgroup.procs" for hierarchy in hierarchies()]


def populated(place: Place) -> bool:
    try:
        return "populated 1" in (top(place) / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def processes(directory: Path) -> list[int]:
    """Return the pids in `directory` and below."""
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        with suppress(OSError):
            found += [int(pid) for pid in (Path(path) / "cgroup.procs").read_text().split()]
    return found


def leader(place: Place) -> int | None:
    """Return the host's pid of the sandbox's PID 1, or None if it is not running."""
    box = top(place) / "box" / "payload"
    for directory in (box / "init.scope", box):
        try:
            pids = (directory / "cgroup.procs").read_text().split()
        except OSError:
            continue
        for pid in pids:
            with suppress(OSError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text()
                numbers = status.split("NSpid:", 1)[1].split("\n", 1)[0].split()
                # Before it executes systemd, its root directory may still be the host's.
                if len(numbers) > 1 and numbers[-1] == "1" and status.startswith("Name:\tsystemd\n"):
                    return int(pid)
    return None


def kill(place: Place, timeout: float = 30) -> None:
    """Kill all processes of the sandbox and wait until they have ended."""
    deadline = time.monotonic() + timeout
    while populated(place):
        try:
            (top(place) / "cgroup.kill").write_text("1")
        except FileNotFoundError:  # Linux before 5.14
            for pid in processes(top(place)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise SandboxError(
                f"processes of {place.name!r} do not die: {processes(top(place))}",
                "they hang in the kernel; see 'dmesg', then run scripts/sandbox down again",
            )
        time.sleep(0.005)


def remove(place: Place) -> None:
    """Remove the (empty) groups in every hierarchy."""
    for hierarchy in hierarchies():
        for path, _, _ in os.walk(hierarchy / place.cgroup, topdown=False):
            _rmdir(Path(path))


def _rmdir(path: Path) -> None:
    # A process leaves its cgroup shortly after it has ended; until then rmdir fails with EBUSY.
    for attempt in range(200):
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if attempt == 199:
                raise
            time.sleep(0.005)
