"""Removes a stale ``postmaster.pid`` after a power failure, whose pid was reused by another process.

PostgreSQL refuses to start if any process of the account has the pid in that file, and after a reboot another unit
often has it. A hardened unit sees its own processes only, so the kernel is asked whether a process is attached to the
server's small System V segment, by which PostgreSQL itself detects a running server, and which line 7 of the file names
(miscinit.c).

Run before the server as ``python3 -I -S unlock.py DIRECTORY``; only the standard library, and little of it: importing
pathlib alone would double the time it takes.
"""

import os
import sys

SEGMENTS = "/proc/sysvipc/shm"
_PID_LINE, _SEGMENT_LINE = 0, 6


def holder(directory: str) -> int | None:
    """Return the pid of the server on this cluster, or None if none runs. An unknown state counts as running."""
    try:
        with open(os.path.join(directory, "postmaster.pid"), "rb") as file:
            lines = file.read().splitlines()
        # Negative for a server in single-user mode.
        pid = abs(int(lines[_PID_LINE]))
    except (FileNotFoundError, ValueError, IndexError):
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        # Gone, or of another account, which PostgreSQL ignores as well.
        return None
    try:
        with open(SEGMENTS, "rb") as file:
            segments = file.read().splitlines()
        names = segments[0].split()
        key, number, attached = names.index(b"key"), names.index(b"shmid"), names.index(b"nattch")
        # Key and number: another cluster's segment may have the same number after a reboot.
        wanted = tuple(int(word) for word in lines[_SEGMENT_LINE].split())
        found = [words for line in segments[1:] if (int((words := line.split())[key]), int(words[number])) == wanted]
    except (OSError, ValueError, IndexError):
        return pid  # a server that is still starting, or a kernel without that information
    return pid if any(int(words[attached]) for words in found) else None


def main(arguments: list[str]) -> int:
    """Remove a stale lock file; return 0, since PostgreSQL reports other problems itself."""
    (directory,) = arguments
    lock = os.path.join(directory, "postmaster.pid")
    if os.path.exists(lock) and holder(directory) is None:
        print("The server that last ran here is gone; its lock file is removed.")
        os.unlink(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
