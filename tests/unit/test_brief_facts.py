"""When the manager is asked whether a unit's files have changed: that takes it longer than all else of a status."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helmd.systemd.brief_facts import may_have_changed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of units with one that has drop-ins, and another unit's."""
    for each in ("hivematrix-core.service.d", "other.service.d"):
        (tmp_path / "units" / each).mkdir(parents=True)
        (tmp_path / "units" / each / "a.conf").touch()
    (tmp_path / "units/hivematrix-core.service").touch()
    (tmp_path / "elsewhere.conf").touch()
    (tmp_path / "units/hivematrix-core.service.d/link.conf").symlink_to(tmp_path / "elsewhere.conf")
    return tmp_path


def changed(place: Path, since: float, monotonic: float, directories: bool = True) -> bool:
    units = place / "units"
    core = {b"FragmentPath": os.fsencode(units / "hivematrix-core.service"), b"DropInPaths": []}
    searched = [b"/no/such/directory", os.fsencode(units)] if directories else None
    return may_have_changed(searched, round(since * 1e6), round(monotonic * 1e6), [core])


def touch(path: Path) -> None:
    """Changes what is there, with the time of the old content."""
    os.utime(path, (0, 0))


CHANGES: dict[str, Callable[[Path], object]] = {
    "the unit": lambda place: touch(place / "units/hivematrix-core.service"),
    "no unit any more": lambda place: (place / "units/hivematrix-core.service").unlink(),
    "a drop-in": lambda place: touch(place / "units/hivematrix-core.service.d/a.conf"),
    "a drop-in behind a link": lambda place: touch(place / "elsewhere.conf"),
    "a drop-in less": lambda place: (place / "units/hivematrix-core.service.d/a.conf").unlink(),
    "a drop-in's target less": lambda place: (place / "elsewhere.conf").unlink(),
    "a directory of drop-ins for all services": lambda place: (place / "units/service.d").mkdir(),
    "a directory of drop-ins for the suite's": lambda place: (place / "units/hivematrix-.service.d").mkdir(),
    "another unit": lambda place: (place / "units/hivematrix-new.service").touch(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_since_the_units_were_loaded_counts(place: Path, change: str) -> None:
    time.sleep(0.05)
    since, monotonic = time.time(), time.monotonic()
    assert not changed(place, since, monotonic)
    touch(place / "units/other.service.d/a.conf")
    assert not changed(place, since, monotonic), "of a unit that is none of the suite's"
    CHANGES[change](place)
    assert changed(place, since, monotonic)


def test_what_is_not_known_counts_as_changed(place: Path) -> None:
    time.sleep(0.05)
    since, monotonic = time.time(), time.monotonic()
    assert changed(place, since, monotonic, directories=False)
    assert changed(place, 0, monotonic) and changed(place, since, 0)
    assert changed(place, since, monotonic - 60), "the clock was set by a minute since"
