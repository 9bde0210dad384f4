"""How far a boot's part of the journal has been read, and what was found missing on the way.

The journal is read one boot at a time. Within one boot the monotonic clock never steps and gives a total order that no
wrong wall clock, no new journal file and no reused sequence number can upset; between boots there is no such order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class Recovery(NamedTuple):
    """How far files in which entries were missed have been read without matches."""

    up_to: int
    """The monotonic time up to which they are read so."""
    places: Mapping[str, int]
    """By file id: how many entries of a file, in the order in which it lists them, are behind us."""
    entries: int
    """How many entries were found so."""
    reported: int
    """How many unreadable entries gaps have reported."""


class Counted(NamedTuple):
    """What was read of a boot above the monotonic time ``base``, for comparison with the files' own counts."""

    base: int
    entries: int
    """Entries of the account that were found by matches, up to the position."""
    last: str = ""
    """Cursor of the last of them, also where its number is damaged and the position is without it."""
    unreadable: int = 0
    """Entries that were met and could not be read; gaps have reported them."""
    recovery: Recovery | None = None

    def state(self) -> dict[str, Any]:
        """As JSON values, for `counted_from`."""
        return {**self._asdict(), "recovery": self.recovery and self.recovery._asdict()}


def counted_from(state: object) -> Counted | None:
    """What `Counted.state` gave, or None when STATE is nothing of the kind."""
    match state:
        case {
            "base": int(base),
            "entries": int(entries),
            "last": str(last),
            "unreadable": int(unreadable),
            "recovery": recovery,
        }:
            counted = Counted(base, entries, last, unreadable)
        case _:
            return None
    match recovery:
        case None:
            return counted
        case {"up_to": int(up_to), "places": dict(places), "entries": int(found), "reported": int(reported)}:
            numbers = {str(file): number for file, number in places.items() if isinstance(number, int)}
            return counted._replace(recovery=Recovery(up_to, numbers, found, reported))
    return None


class Position(NamedTuple):
    """The last entry read of one boot. It is stored in the transaction that stores the entries before it."""

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
    """The boot is over and was read to its end."""
    counted: Counted | None = None
    """What is behind us of the files that have not been compared yet; None when that is not known."""

    def is_at(self, other: "Position | None") -> bool:
        """Whether both are the same place, whatever was counted before it."""
        return other is not None and self._replace(counted=None) == other._replace(counted=None)


class Missing(StrEnum):
    """Why entries are not in the store."""

    LOST = "lost"
    """The entry where reading stopped is no longer in the journal: rotated away, or lost in a power cut."""
    UNREADABLE = "unreadable"
    """A journal file is damaged."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of time of which entries may be missing. Times are microseconds since 1970."""

    since: int
    until: int
    why: Missing
    at_most: int | None = None
    """No more than this many entries are missing, those of other accounts counted in; None when it can't be known."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The parts of a journal cursor that identify an entry (sd_journal_get_cursor(3), JOURNAL_FILE_FORMAT)."""

    seqnum_id: str
    seqnum: int
    xor_hash: str


def parse_cursor(text: str) -> Cursor | None:
    """The parts of a cursor, or None for an empty or unknown form (the form is systemd's own and may change)."""
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    try:
        return Cursor(parts["s"], int(parts["i"], 16), parts["x"])
    except (KeyError, ValueError):
        return None


def is_numbered_after(cursor: str, before: str) -> bool:
    """Whether the entry at CURSOR is later than the one at BEFORE by their numbers. Numbers of one source ascend."""
    here, last = parse_cursor(cursor), parse_cursor(before)
    return here is not None and last is not None and here.seqnum_id == last.seqnum_id and here.seqnum > last.seqnum


def is_numbered_up_to(cursor: str, before: str) -> bool:
    """Whether the entry at CURSOR is that at BEFORE or an earlier one by their numbers."""
    here, last = parse_cursor(cursor), parse_cursor(before)
    return here is not None and last is not None and here.seqnum_id == last.seqnum_id and here.seqnum <= last.seqnum
