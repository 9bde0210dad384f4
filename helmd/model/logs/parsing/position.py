"""How far a boot's part of the journal has been read, and what was found missing on the way.

The journal is read one boot at a time. Within one boot the monotonic clock never steps and gives a total order that no
wrong wall clock, no new journal file and no reused sequence number can upset; between boots there is no such order.
"""

from enum import StrEnum
from typing import NamedTuple


class Position(NamedTuple):
    """The last entry read of one boot. It is stored in the transaction that stores the entries before it.

    A tuple, since one is made for every entry read.
    """

    boot_id: str
    cursor: str
    """systemd.journal-fields(7) ``__CURSOR``; empty once it was said that the journal has lost that entry."""
    realtime: int
    """Microseconds since 1970, as the machine's clock had it."""
    monotonic: int
    """Microseconds since the machine's start."""
    ties: int
    """How many entries with exactly this ``monotonic`` are behind us: journald gives all lines of one read one time."""
    finished: bool = False
    """The boot has ended and was read completely."""


class Missing(StrEnum):
    """Why entries are not in the store."""

    LOST = "lost"
    """The entry where reading stopped is no longer in the journal: rotated away, or lost in a power cut."""
    UNREADABLE = "unreadable"
    """A journal file is damaged."""


class Gap(NamedTuple):
    """A stretch of time of which entries may be missing. Times are microseconds since 1970."""

    since: int
    until: int
    why: Missing
    at_most: int | None = None
    """No more than this many entries are missing, those of other accounts counted in; None when it can't be known."""


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
    """Return whether the entry at CURSOR is later than the one at BEFORE by their numbers.

    Numbers of one source ascend.
    """
    here, last = parse_cursor(cursor), parse_cursor(before)
    return here is not None and last is not None and here.seqnum_id == last.seqnum_id and here.seqnum > last.seqnum


def is_numbered_up_to(cursor: str, before: str) -> bool:
    """Return whether the entry at CURSOR is that at BEFORE or an earlier one by their numbers."""
    here, last = parse_cursor(cursor), parse_cursor(before)
    return here is not None and last is not None and here.seqnum_id == last.seqnum_id and here.seqnum <= last.seqnum
