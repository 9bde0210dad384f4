"""The control group of a sandbox, which contains all of its processes, so that they can be killed together.

Layout: `NAME/keeper` has the process that owns the mounts and starts systemd-nspawn, and the network's processes;
`NAME/box` has nspawn, which creates `supervisor` and `payload` below it. On hosts that also mount the `name=systemd`
hierarchy, the same tree is created there, or two sandboxes would share one `/payload`. `box` is limited in memory and
tasks, and has the CPU time of one group, by the controllers of the unified hierarchy or by those of cgroup v1.
"""

import os
import signal
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .place import Place, SandboxError

if TYPE_CHECKING:
    from .settings import Limits

PARTS = ("keeper", "box")
CONTROLLERS = ("cpu", "memory", "pids", "io")
LIMITED = ("cpu", "memory", "pids")
WITHOUT_CONTROLLERS = "HIVEMATRIX_SANDBOX_NO_CONTROLLERS"  # for a test of watchdog.py


@cache
def mounts() -> tuple[Path, Path | None, dict[str, Path]]:
    """Return the mount points of the unified hierarchy, of `name=systemd` if mounted, and of v1 controllers by name."""
    unified: list[Path] = []
    named: list[Path] = []
    controllers: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        words = options.split(",")
        if kind == "cgroup2":
            unified.append(Path(before.split()[4]))
        elif kind == "cgroup" and "name=systemd" in words:
            named.append(Path(before.split()[4]))
        elif kind == "cgroup":
            controllers |= {name: Path(before.split()[4]) for name in LIMITED if name in words}
    if not unified:
        raise SandboxError(
            "this machine has no cgroup v2 hierarchy mounted",
            "mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )
    if os.environ.get(WITHOUT_CONTROLLERS):
        controllers.clear()
    return unified[0], named[0] if named else None, controllers


def trees() -> list[Path]:
    """Return the mount points of the hierarchies that have no v1 controller; the unified one is first."""
    unified, named, _ = mounts()
    return [unified, *([named] if named else [])]


def v1_controllers() -> list[Path]:
    """Return the mount points of v1 controllers; two of them may be mounted at one."""
    return sorted(set(mounts()[2].values()))


def top(place: Place) -> Path:
    return mounts()[0] / place.cgroup


def create(place: Place) -> None:
    for hierarchy in trees():
        for part in PARTS:
            (hierarchy / place.cgroup / part).mkdir(parents=True, exist_ok=True)
    for hierarchy in v1_controllers():
        (hierarchy / place.cgroup / "box").mkdir(parents=True, exist_ok=True)
    # Best effort: with the controllers of the unified hierarchy, properties such as MemoryCurrent= have values inside.
    for controller in () if os.environ.get(WITHOUT_CONTROLLERS) else CONTROLLERS:
        for group in (mounts()[0], top(place)):
            with suppress(OSError):
                (group / "cgroup.subtree_control").write_text(f"+{controller}")


def limit(place: Place, limits: "Limits") -> dict[str, str]:
    """Limit `box` in memory (swap included) and tasks. Return which version's controller does, without those missing.

    What can't be limited by a controller is left to watchdog.py.
    """
    memory, tasks = str(limits.memory), str(limits.tasks)
    unified = top(place) / "box"
    by: dict[str, str] = {}
    if write(unified / "memory.max", memory):
        write(unified / "memory.swap.max", "0")
        by["memory"] = "cgroup v2"
    if write(unified / "pids.max", tasks):
        by["tasks"] = "cgroup v2"
    v1 = mounts()[2]
    if "memory" not in by and "memory" in v1:
        group = v1["memory"] / place.cgroup / "box"
        if write(group / "memory.limit_in_bytes", memory):
            write(group / "memory.memsw.limit_in_bytes", memory)
            by["memory"] = "cgroup v1"
    if "tasks" not in by and "pids" in v1 and write(v1["pids"] / place.cgroup / "box" / "pids.max", tasks):
        by["tasks"] = "cgroup v1"
    return by


def write(path: Path, text: str) -> bool:
    """Return whether the file exists and took the value. Without O_CREAT, which cgroupfs refuses with another error."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode())
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def join_files(place: Place, part: str) -> list[Path]:
    """Return the cgroup.procs files that a process writes its pid to in order to join `part`."""
    groups = [hierarchy / place.cgroup / part for hierarchy in trees()]
    return [group / "cgroup.procs" for group in (*groups, *(v1_groups(place) if part == "box" else ()))]


def v1_groups(place: Place) -> list[Path]:
    """Return the groups of v1 controllers that limit `box`. Nothing inside moves out of them."""
    return [hierarchy / place.cgroup / "box" for hierarchy in v1_controllers()]


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
    for hierarchy in (*trees(), *v1_controllers()):
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
