"""A lock that one process at a time holds for an operation (flock(2))."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helmd.model.errors import LockedError


@contextmanager
def locked(lock: Path, what: str) -> Iterator[None]:
    """Holds LOCK, a file that is made; raises LockedError, which says WHAT goes on, while another process holds it."""
    # Not at the top: most commands take no lock.
    import fcntl

    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{what} by another process", hint="Wait a few seconds and run the command again."
            ) from None
        yield
