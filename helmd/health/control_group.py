"""Control groups of processes, by path relative to the root of the unified hierarchy (cgroups(7)). Quick to import."""

ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
"""Where the unified hierarchy may be mounted."""


def control_group_of(pid: int | str) -> str | None:
    """The control group of a process; None if it is gone, or is in none of the unified hierarchy."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


def own_control_group() -> str:
    """The control group of this process; empty when unknown."""
    return control_group_of("self") or ""
