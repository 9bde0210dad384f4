"""Reading files that only this account may have written."""

import os
import stat
from pathlib import Path

LARGEST_PRIVATE = 16 << 20
"""Bytes that are read at most."""


def private_text(path: Path) -> str:
    """Return the content of a private file.

    Raises OSError, and ValueError for one that is not, or that others can write.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise ValueError("it is not a regular file of this account")
        if facts.st_mode & 0o022:
            raise ValueError("other accounts can write it")
        return file.read(LARGEST_PRIVATE).decode("utf-8", "replace")
