"""Locks of operations that one process at a time may do."""

import threading
import time
from pathlib import Path

import pytest

from helmd.files.lock import acquire, locked, locked_directory
from helmd.model.errors import LockedError
from tests.waiting import WITHIN


def test_a_second_one_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    lock = tmp_path / "new/lock"
    with locked(lock, "units are being applied"):
        with pytest.raises(LockedError, match=r"^units are being applied by another process$") as refused:
            with locked(lock, "units are being applied"):
                pass
        assert refused.value.hint
    with locked(lock, "x"):
        pass


def test_one_that_is_removed_while_it_is_held_is_not_what_is_waited_for(tmp_path: Path) -> None:
    """As removing a module does, whose state has the lock."""
    lock = tmp_path / "desk/module.lock"
    held, released = threading.Event(), threading.Event()

    def wait() -> None:
        with locked(lock, "x", wait=WITHIN):
            held.set()
            released.wait(WITHIN)

    waiting = threading.Thread(target=wait)
    with locked(lock, "desk is being changed"):
        waiting.start()
        time.sleep(0.2)
        lock.unlink()
        lock.parent.rmdir()
    assert held.wait(WITHIN)
    with pytest.raises(LockedError), locked(lock, "desk is being changed"):
        pass
    released.set()
    waiting.join(WITHIN)


def test_how_long_it_waits(tmp_path: Path) -> None:
    """For a while, or without end where nothing is to be said."""
    taken: list[float] = []

    def take() -> None:
        with locked_directory(tmp_path):
            taken.append(time.monotonic())

    with locked_directory(tmp_path) as descriptor:
        assert Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path.resolve()
        with pytest.raises(LockedError, match=r"^it is held$"), locked_directory(tmp_path, "it is held"):
            pass
        waiting = threading.Thread(target=take)
        waiting.start()
        time.sleep(0.2)
        released = time.monotonic()
    waiting.join(WITHIN)
    assert taken and taken[0] >= released
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as first, (tmp_path / "file").open() as second:
        acquire(first.fileno(), "held")
        began = time.monotonic()
        with pytest.raises(LockedError, match=r"^held$"):
            acquire(second.fileno(), "held", wait=0.3)
        assert time.monotonic() - began >= 0.3
