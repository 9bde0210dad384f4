"""Locks that one process at a time holds for an operation (flock(2))."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helmd.model.errors import LockedError

_PAUSE = 0.05


@contextmanager
def locked(lock: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold LOCK, a file that is created. Threads of one process exclude each other as processes do.

    Raises LockedError, which says WHAT goes on, if another holder has it for more than WAIT seconds.
    """
    hint = "Wait a few seconds and run the command again."
    deadline = time.monotonic() + wait
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with lock.open("w") as file:
            left = max(0.0, deadline - time.monotonic())
            acquire(file.fileno(), f"{what} by another process", wait=left, hint=hint)
            # Who held it may have removed the file: others would make and hold a new one.
            if _is_at(file.fileno(), lock):
                yield
                return


def _is_at(descriptor: int, file: Path) -> bool:
    """Return whether an open file is the one that FILE names now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


@contextmanager
def locked_directory(directory: Path, held: str = "") -> Iterator[int]:
    """Hold a DIRECTORY, and give its descriptor. HELD is as for `acquire`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        acquire(descriptor, held)
        yield descriptor
    finally:
        os.close(descriptor)


def acquire(descriptor: int, held: str = "", *, wait: float = 0.0, hint: str = "") -> None:
    """Take the lock on an open file until it is closed.

    If another process holds it for more than WAIT seconds, raises LockedError with the sentence HELD; without one, it
    waits without end.
    """
    # Imported here: most commands take no lock.
    import fcntl

    if not held:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockedError(held, hint=hint) from None
        time.sleep(_PAUSE)
