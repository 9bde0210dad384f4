"""Detecting steps of the wall clock by the monotonic time that every journal entry also has."""

from collections.abc import Sequence

from helmd.model.logs.entry import HELM, LogRow, datetime_of
from helmd.model.logs.parsing.entry_times import STEP
from helmd.model.logs.parsing.journal_fields import JournalEntry


def clock_steps(offset: int | None, entries: Sequence[JournalEntry], hostname: str) -> list[LogRow]:
    """Return a row for each step of the wall clock among ENTRIES of one boot.

    OFFSET is the difference of the clocks before them in microseconds, None if unknown.
    """
    offsets = [realtime - monotonic for _, _, _, monotonic, realtime in entries]
    if not offsets:
        return []
    if offset is not None and max(offsets) - offset < STEP and offset - min(offsets) < STEP:
        return []
    steps = []
    for entry, now in zip(entries, offsets, strict=True):
        if offset is not None and abs(now - offset) >= STEP:
            steps.append(_step_row(now - offset, entry, hostname))
        offset = now
    return steps


def _step_row(step: int, entry: JournalEntry, hostname: str) -> LogRow:
    since, until = sorted((datetime_of(entry.realtime - step), datetime_of(entry.realtime)))
    seconds = abs(step) / 1_000_000
    if step > 0:
        change = f"went forward by {seconds:,.1f} s: it was set, or the machine slept; no line has a time between"
    else:
        change = f"was set back by {seconds:,.1f} s: lines of before and of after it have times between"
    return LogRow(
        timestamp=datetime_of(entry.realtime),
        service_name="helm",
        level="WARNING",
        message=f"The clock {change} {since.isoformat()} and {until.isoformat()}.",
        context={"gap": "clock", "since": since.isoformat(), "until": until.isoformat(), "seconds": step / 1_000_000},
        hostname=hostname,
        source=HELM,
        boot_id=entry.boot_id,
    )
