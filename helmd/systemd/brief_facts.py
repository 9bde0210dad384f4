"""The facts of many services for a table of them, with as little work for the manager as possible."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from helmd.model.units.unit_state import UnitFacts
from helmd.systemd.bus import (
    DESTINATION,
    MANAGER,
    MANAGER_INTERFACE,
    SERVICE_INTERFACE,
    UNIT_INTERFACE,
    Manager,
    facts_of,
)
from helmd.systemd.property_reader import Property, read_properties

_PATTERN = "hivematrix-*.service"
_RUNNING = {b"LoadState": b"loaded", b"ActiveState": b"active", b"SubState": b"running"}
_WHILE_RUNNING = (
    (UNIT_INTERFACE, b"FragmentPath"),
    (UNIT_INTERFACE, b"DropInPaths"),
    (UNIT_INTERFACE, b"ActiveEnterTimestamp"),
    (UNIT_INTERFACE, b"StateChangeTimestamp"),
    (SERVICE_INTERFACE, b"MainPID"),
    (SERVICE_INTERFACE, b"NRestarts"),
    (SERVICE_INTERFACE, b"ExecMainStartTimestamp"),
    (SERVICE_INTERFACE, b"ControlGroup"),
)
"""What there is to say about a service that runs and was not restarted, besides whether its files have changed."""
_NEED_RELOAD = b"NeedDaemonReload"
_LOADED = tuple(
    Property(MANAGER, MANAGER_INTERFACE, name)
    for name in (b"UnitPath", b"UnitsLoadTimestamp", b"UnitsLoadTimestampMonotonic")
)
_CLOCK_SLACK = 0.02
"""Seconds by which the time of a change may be behind the clock: the kernel's tick."""
_CLOCK_STEP = 1.0
"""Seconds by which the clock must have been set since for times of changes not to count."""


def facts_in_brief(manager: Manager, units: Sequence[str]) -> dict[str, UnitFacts]:
    """Return the facts of UNITS of the suite.

    Of a service that runs, only what `_WHILE_RUNNING` has is read, since all of its 450 properties take the manager
    3 ms. They are not read at one time, so this is not for deciding what to do with a unit.
    """
    running = manager.running_services(_PATTERN)
    chosen = [unit for unit in units if unit in running]
    wanted = [Property(running[unit], *each) for unit in chosen for each in _WHILE_RUNNING]
    path, loaded, monotonic, *values = read_properties(os.environ, DESTINATION, [*_LOADED, *wanted])
    given = iter(values)
    found = {unit: {name: next(given) for _, name in _WHILE_RUNNING} for unit in chosen}
    # One that has ended meanwhile, or was restarted by systemd, has more to say.
    brief = {
        unit: each
        for unit, each in found.items()
        if None not in each.values() and each[b"MainPID"] and not each[b"NRestarts"]
    }
    if brief and may_have_changed(path, loaded, monotonic, brief.values()):
        _read_need_of_reload(brief, running)
    return {
        unit: facts_of(unit, {**_RUNNING, **brief[unit]}, {})
        if unit in brief and None not in brief[unit].values()
        else manager.facts(unit)
        for unit in units
    }


def _read_need_of_reload(brief: Mapping[str, dict[bytes, Any]], running: Mapping[str, bytes]) -> None:
    """Add whether the files of each unit have changed since it was loaded: 1.6 ms of the manager a unit."""
    wanted = [Property(running[unit], UNIT_INTERFACE, _NEED_RELOAD) for unit in brief]
    for each, need in zip(brief.values(), read_properties(os.environ, DESTINATION, wanted), strict=True):
        each[_NEED_RELOAD] = need


def may_have_changed(
    directories: list[bytes] | None, loaded: int | None, monotonic: int | None, units: Iterable[Mapping[bytes, Any]]
) -> bool:
    """Return whether a unit file, a drop-in, or a directory for them has changed since the manager LOADED its units.

    LOADED and MONOTONIC are that time by both clocks, in microseconds. The kernel's time of a change can't be set.
    """
    if not (directories and loaded and monotonic):
        return True
    since = loaded / 1e6
    if abs(time.time() - time.monotonic() - (loaded - monotonic) / 1e6) > _CLOCK_STEP:
        return True
    files = (path for each in units for path in (each[b"FragmentPath"], *each[b"DropInPaths"]))
    try:
        return any(os.stat(path).st_ctime >= since - _CLOCK_SLACK for path in (*files, *_drop_ins(directories)))
    except OSError:
        # Such as a unit file that is gone.
        return True


def _drop_ins(directories: Iterable[bytes]) -> Iterator[bytes]:
    """Yield those of DIRECTORIES that exist, and what they have of drop-ins for services of the suite."""
    for directory in directories:
        try:
            inside = os.listdir(directory)
        except FileNotFoundError:
            continue
        yield directory
        for name in inside:
            if name == b"service.d" or (name.startswith(b"hivematrix-") and name.endswith(b".d")):
                drop_ins = directory + b"/" + name
                yield drop_ins
                yield from (drop_ins + b"/" + each for each in os.listdir(drop_ins))
