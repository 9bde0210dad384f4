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
            pid = int(file.readline())
    except FileNotFoundError:
        return None
    except ValueError:
        return None
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().strip()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
    except (ProcessLookupError, FileNotFoundError):
        # A hidden /proc entry looks the same as none; a process that takes signals is there.
        return pid if _alive(pid) else None
    except PermissionError:
        return None
    if name != b"postgres":
        return None
    elsewhere = b"-D" in arguments and _other(arguments[arguments.index(b"-D") + 1], directory)
    return None if elsewhere else pid


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


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
