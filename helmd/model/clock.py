"""Steps of the wall clock, told from the monotonic one that every journal entry has as well."""

from collections.abc import Sequence

from helmd.model.row import HELM, Entry, LogRow, moment

STEP = 2_000_000
"""Microseconds by which the two must part to count; keeping the clock in time (adjtimex) never steps so far."""


def clock_steps(offset: int | None, entries: Sequence[Entry], hostname: str) -> list[LogRow]:
    """A row for each step of the clock among ENTRIES of one boot; OFFSET is the one between the clocks before them."""
    if not entries:
        return []
    if offset is not None and abs(_offset(entries[-1]) - offset) < STEP and abs(_offset(entries[0]) - offset) < STEP:
        return []
    steps = []
    for entry in entries:
        now = _offset(entry)
        if offset is not None and abs(now - offset) >= STEP:
            steps.append(_step_row(now - offset, entry, hostname))
        offset = now
    return steps


def _offset(entry: Entry) -> int:
    return entry.realtime - entry.monotonic


def _step_row(step: int, entry: Entry, hostname: str) -> LogRow:
    since, until = moment(entry.realtime - step), moment(entry.realtime)
    seconds = abs(step) / 1_000_000
    if step > 0:
        said = f"went forward by {seconds:,.1f} s: it was set, or the machine slept; no line has a time between"
    else:
        said = f"was set back by {seconds:,.1f} s: lines from before may have later times than those from after,"
    return LogRow(
        timestamp=until,
        service_name="helm",
        level="WARNING",
        message=f"The clock {said} {since.isoformat()} and {until.isoformat()}.",
        context={"gap": "clock", "since": since.isoformat(), "until": until.isoformat(), "seconds": step / 1_000_000},
        hostname=hostname,
        source=HELM,
        boot_id=entry.boot_id,
    )
