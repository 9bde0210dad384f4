"""Holding a module: updates leave it alone until somebody says otherwise."""

import time
from dataclasses import replace

from helmd.model.layout import Layout
from helmd.model.modules.record import HistoryEntry
from helmd.modules.records import places_of, read_record, write_record
from helmd.operations.modules.shown import not_installed

_MAX_REASON = 500


def hold_module(layout: Layout, name: str, held: bool, reason: str, by: str) -> bool:
    """Have updates leave a module alone, or not any more; False if that was so before. Raises UsageError."""
    places = places_of(layout, name)
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
