"""Holding a module: it is not updated until the hold is removed."""

import time
from dataclasses import replace

from helmd.files.lock import locked
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.modules.record import HistoryEntry
from helmd.modules.records import places_of, read_record, write_record
from helmd.operations.modules.shown import not_installed

_MAX_REASON = 500
_WAIT_SECONDS = 5.0


def hold_module(layout: Layout, name: str, held: bool, reason: str, by: str) -> bool:
    """Hold a module, or end the hold; return False if nothing changed.

    Raises UsageError, and LockedError while the module is being changed, which would overwrite the record.
    """
    places = places_of(layout, name)
    if read_record(places) is None:
        # Locking would create directories for it.
        raise not_installed(name)
    with locked(places.lock, f"{name} is being changed", wait=_WAIT_SECONDS):
        return _hold(places, name, held, reason, by)


def _hold(places: ModulePlaces, name: str, held: bool, reason: str, by: str) -> bool:
    record = read_record(places)
    if record is None:
        raise not_installed(name)
    reason = reason[:_MAX_REASON] if held else ""
    if record.held == held and record.held_reason == reason:
        return False
    sentence = (f"held: {reason}" if reason else "held") if held else "not held any more"
    entry = HistoryEntry(time.time(), "hold" if held else "unhold", sentence, record.active, by=by)
    write_record(places, replace(record, held=held, held_reason=reason).noted(entry))
    return True
