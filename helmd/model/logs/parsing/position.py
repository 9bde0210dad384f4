"""The position up to which a boot's entries of the journal were read, and gaps found while reading.

The journal is read one boot at a time. Within one boot the monotonic clock never steps and gives a total order,
independent of the wall clock, of rotation and of sequence numbers; between boots there is no such order.
"""

from enum import StrEnum
from typing import NamedTuple


class Position(NamedTuple):
    """The last entry read of one boot. It is stored in the transaction that stores the entries up to it."""

    boot_id: str
    cursor: str
    """``__CURSOR`` in systemd.journal-fields(7); "" after a gap was reported because that entry was lost."""
    realtime: int
    """Microseconds since 1970, by the wall clock."""
    monotonic: int
    """Microseconds since the boot."""
    ties: int
    """Number of entries read with this ``monotonic``: journald gives all lines of one read(2) the same time."""
    finished: bool = False
    """The boot has ended and was read completely."""


class Missing(StrEnum):
    """Why entries are not in the store."""

    LOST = "lost"
    """The last entry read is no longer in the journal: vacuumed, or lost in a power cut."""
    UNREADABLE = "unreadable"
    """A journal file is damaged."""


class Gap(NamedTuple):
    """A time range in which entries may be missing. Times are microseconds since 1970."""

    since: int
    until: int
    why: Missing
    at_most: int | None = None
    """Maximum number of missing entries, including those of other accounts; None if unknown."""


class Cursor(NamedTuple):
    """The parts of a journal cursor that identify an entry (sd_journal_get_cursor(3), JOURNAL_FILE_FORMAT)."""

    seqnum_id: str
    seqnum: int
    xor_hash: str


def parse_cursor(text: str) -> Cursor | None:
    """Return the parts of a cursor, or None for an empty or unknown form (the form is systemd's own and may change)."""
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    try:
        return Cursor(parts["s"], int(parts["i"], 16), parts["x"])
    except (KeyError, ValueError):
        return None


def is_numbered_after(cursor: str, before: str) -> bool:
    """Return whether the entry at CURSOR is later than the one at BEFORE by their sequence numbers.

    They are comparable only if both are of one source (seqnum_id).
    """
    here, last = parse_cursor(cursor), parse_cursor(before)
    return here is not None and last is not None and here.seqnum_id == last.seqnum_id and here.seqnum > last.seqnum


def is_numbered_up_to(cursor: str, before: str) -> bool:
    """Return whether the entry at CURSOR is that at BEFORE or an earlier one by their sequence numbers."""
    here, last = parse_cursor(cursor), parse_cursor(before)
    return here is not None and last is not None and here.seqnum_id == last.seqnum_id and here.seqnum <= last.seqnum
