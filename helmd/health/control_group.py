"""Control groups of processes, by path relative to the root of the unified hierarchy (cgroups(7)). Quick to import."""

import os

ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
"""Where the unified hierarchy may be mounted."""


def control_group_of(pid: int | str) -> str | None:
    """Return the control group of a process, or None if it is gone, or is in none of the unified hierarchy."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


def own_control_group() -> str:
    """Return the control group of this process; empty when unknown."""
    return control_group_of("self") or ""


def every_control_group() -> "list[tuple[str, int]]":
    """Return every control group of the unified hierarchy, with the number by which the kernel knows it: its inode."""
    for root in ROOTS:
        # Only the unified hierarchy has this file, in every group of it.
        if os.path.exists(f"{root}/cgroup.controllers"):
            found = []
            for directory, _, _ in os.walk(root):
                try:
                    found.append((directory[len(root) :] or "/", os.stat(directory).st_ino))
                except FileNotFoundError:
                    continue
            return found
    return []
