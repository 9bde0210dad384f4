"""Lets a cluster start after a power cut whose ``postmaster.pid`` names a process that is now somebody else's.

PostgreSQL refuses to start when any process of the account has the pid in that file, and after a reboot another unit
often has it. Run before the server as ``python3 -I -S unlock.py DIRECTORY``; only the standard library, and little of
it: importing pathlib alone would double the time it takes.
"""

import os
import sys


def holder(directory: str) -> int | None:
    """The pid of the server that runs on this cluster; None when none does. What can't be told counts as running."""
    try:
        with open(os.path.join(directory, "postmaster.pid"), "rb") as file:
            # Negative for a server in single-user mode.
            pid = abs(int(file.readline()))
    except (FileNotFoundError, ValueError):
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        # Gone, or another account's, which PostgreSQL doesn't take for a server of ours either.
        return None
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().strip()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
    except OSError:
        return pid
    if name != b"postgres":
        return None
    elsewhere = b"-D" in arguments and _other(arguments[arguments.index(b"-D") + 1], directory)
    return None if elsewhere else pid


def _other(argument: bytes, directory: str) -> bool:
    """Whether a ``-D`` argument surely names another directory: a relative one can't be judged."""
    path = os.fsdecode(argument)
    return path.startswith("/") and os.path.realpath(path) != os.path.realpath(directory)


def main(arguments: list[str]) -> int:
    """Removes a stale lock file; 0 always, for what is wrong beyond that PostgreSQL says better itself."""
    (directory,) = arguments
    lock = os.path.join(directory, "postmaster.pid")
    if os.path.exists(lock) and holder(directory) is None:
        print("The server that last ran here is gone; its lock file is removed.")
        os.unlink(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
