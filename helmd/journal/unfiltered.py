"""Reading a journal file without matches, entry by entry, by its global entry array.

libsystemd stops at, or jumps from, an entry whose sequence number is damaged, since it seeks by that. So the array is
read here, and libsystemd is asked for one entry after the other: entries after damage are found, and unreadable ones
counted.
"""

import os
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, NamedTuple

from systemd import _reader

from helmd.journal.files import DamagedError, EntryHead, JournalFile, is_same_boot
from helmd.model.logs.entry import MESSAGE_LIMIT
from helmd.model.logs.parsing.entry_times import Times
from helmd.model.logs.parsing.journal_fields import CUT, JournalEntry, Value, with_realtime_field
from helmd.model.logs.parsing.position import parse_cursor

DATA_THRESHOLD = MESSAGE_LIMIT + len(b"MESSAGE=") + 1
"""Data threshold: one byte more than is kept of a field, to detect truncation; the default is 64 KiB."""
_LOOKED_UP = 2**64
"""Greater than all sequence numbers: makes the next entry be looked up by its cursor."""
_MAX_SKIPPED = 1_000
"""Number of entries to skip before an entry is looked up by its cursor."""


FIELDS_LIMIT = 16 * 1024 * 1024
"""Maximum number of bytes of an entry's fields that are kept; Helm's own posted entries are smaller."""
_CUT_LIMIT = 4096


class Recovered(NamedTuple):
    """An entry, its monotonic time in the file, plausible or not, and the size of its fields in bytes."""

    entry: JournalEntry
    monotonic: int
    size: int


class UnfilteredFile:
    """The entries of an account and boot above the monotonic time AFTER, up to and including UP_TO.

    ``lost`` is the maximum number of unreadable entries before the next one, including those of others if the account's
    are not known.
    """

    def __init__(self, file: JournalFile, uid: int, boot_id: str, after: int, up_to: int) -> None:
        self.file = file
        self.lost = 0
        self._uid = b"%d" % uid
        self._boot_id = boot_id
        self._chain = file.entries()
        self._number, self._stop = self._chain.bounds(boot_id, after, up_to)
        self._alone = file.belongs_to(uid)
        self._own = None if self._alone else self._offsets_of_account(after, up_to)
        self._read = self._doubtful = 0
        """Numbers of the account's entries read, and of unreadable ones of others if the array is right."""
        self._journal: Any = None
        self._pending = self._closed = False
        """Whether libsystemd's current entry was not returned yet, and whether it can't open the file."""
        self._last_seqnum = 0

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def until(self) -> int:
        """Return the wall clock time of the end of the range, if plausible; 0 at the end."""
        for number in range(self._stop - 1, max(-1, self._stop - 1_000), -1):
            entry = self._chain.entry(number)
            if entry is not None:
                return self._chain.times(number, self._boot_id, Times(entry.realtime, entry.monotonic)).realtime
        return 0

    def at_end(self) -> bool:
        """Return whether the end is reached; then ``lost`` is final."""
        end = min(self._stop, self._chain.covered)
        if self._number < end:
            return False
        lost, self._number = self._doubtful + self._stop - self._number, max(self._stop, self._number)
        self._doubtful = 0
        if self._own is not None:
            lost = min(lost, len(self._own) - self._read - self.lost)
        self.lost += max(0, lost)
        return True

    def next(self) -> Recovered | None:
        """Return the next entry, or None if it is not the account's, or unreadable.

        Not to be called at the end.
        """
        number, self._number = self._number, self._number + 1
        head = self._chain.entry(number)
        fields, size = bounded(self._fields(head)) if head is not None else ({}, 0)
        uid = fields.get("_UID")
        is_own = uid == self._uid or (uid is None and self._may_be_own(number))
        if head is None or not fields or (is_own and (has_lost_its_message(fields) or has_lost_its_unit(fields))):
            if self._may_be_own(number):
                self.lost += 1
            else:
                self._doubtful += 1
            return None
        # A boot's entries are consecutive; only at the ends of the range there may be another's due to damage.
        of_boot = fields.get("_BOOT_ID") == self._boot_id.encode() or is_same_boot(head.boot_id, self._boot_id)
        if not is_own or not of_boot:
            return None
        self._read += 1
        given = Times(head.realtime, head.monotonic)
        times = self._chain.times(number, self._boot_id, given)
        cursor = head.cursor(self.file.header.seqnum_id)
        entry = JournalEntry(fields, cursor, self._boot_id, times.monotonic, times.realtime)
        return Recovered(with_realtime_field(entry, given), head.monotonic, size)

    def _may_be_own(self, number: int) -> bool:
        """Return whether an entry is the account's by the file's list of these, as far as it is known where the entry
        is.
        """
        if self._own is None:
            return True
        before, offset, after = (self._chain.offset(each) for each in (number - 1, number, number + 1))
        if not before < offset < (after or offset + 1):
            return True
        place = bisect_left(self._own, offset)
        return place < len(self._own) and self._own[place] == offset

    def _offsets_of_account(self, after: int, up_to: int) -> "array[int] | None":
        """Return the ascending offsets of the account's entries, or None if their array is damaged."""
        try:
            chain = self.file.entries_with(b"_UID", self._uid)
        except DamagedError:
            return None
        if not chain.whole:
            return None
        begin, stop = chain.bounds(self._boot_id, after, up_to)
        return array("Q", sorted(chain.offset(number) for number in range(begin, stop)))

    def _fields(self, head: EntryHead) -> dict[str, Value]:
        """Return the fields of an entry; empty when it can't be read."""
        try:
            if self._seek_to(head):
                fields: dict[str, Value] = self._journal._get_all()
                return fields
        except (OSError, ValueError):  # ValueError: damage in the name of a field
            pass
        return {}

    def _seek_to(self, head: EntryHead) -> bool:
        """Seek to an entry; return whether it was found. It is the next one unless there is damage before it."""
        misled, self._last_seqnum = self._last_seqnum >= head.seqnum, head.seqnum
        cursor = head.cursor(self.file.header.seqnum_id)
        if self._journal is not None and not misled:
            found = self._advance_to(cursor, head.seqnum)
            if found is not None:
                return found
        if self._journal is None and not self._open():
            return False
        # It is not found by its number after a damaged number, nor by its time after a damaged time.
        for by_number in (True, False):
            if by_number:
                self._journal.seek_cursor(cursor)
            else:
                self._journal.seek_monotonic(head.monotonic, head.boot_id)
            self._pending = False
            if self._advance_to(cursor, head.seqnum):
                return True
        if self._seek_back_to(cursor, head):
            self._last_seqnum = _LOOKED_UP
            return True
        # libsystemd may have dropped the file because of an error.
        self.close()
        self._journal = None
        return False

    def _advance_to(self, cursor: str, seqnum: int) -> bool | None:
        """Advance to the entry of a cursor; return whether it was found, or None if it may be elsewhere."""
        for _ in range(_MAX_SKIPPED):
            if not self._pending and not self._journal._next():
                return None
            self._pending = True
            here = self._journal._get_cursor()
            if here == cursor:
                self._pending = False
                return True
            found = parse_cursor(here)
            if found is None or found.seqnum >= seqnum:
                return False
            self._pending = False
        return None

    def _seek_back_to(self, cursor: str, head: EntryHead) -> bool:
        """Search backwards for the entry of a cursor; return whether it was found.

        An entry of the same time may have a number that is too high.
        """
        self._journal.seek_monotonic(head.monotonic + 1, head.boot_id)
        self._pending = False
        for _ in range(_MAX_SKIPPED):
            if not self._journal._previous() or self._journal._get_monotonic().timestamp < head.monotonic:
                return False
            if self._journal._get_cursor() == cursor:
                return True
        return False

    def _open(self) -> bool:
        # By descriptor, since journald may have renamed it. libsystemd can't open a deleted file.
        if self._closed:
            return False
        descriptor = os.dup(self.file.descriptor)
        try:
            self._journal = _reader._Reader(0, None, [descriptor])
        except OSError:
            os.close(descriptor)
            self._closed = True
            return False
        self._journal.data_threshold = DATA_THRESHOLD
        return True


def bounded(fields: dict[str, Value]) -> tuple[dict[str, Value], int]:
    """Return FIELDS of an entry, truncated to FIELDS_LIMIT bytes, and their size.

    The largest are dropped, except the message and journald's own, and their names stored in CUT.
    """
    fields = without_others(fields)
    sizes = {name: len(value) if isinstance(value, bytes) else sum(map(len, value)) for name, value in fields.items()}
    size, cut = sum(sizes.values()), []
    for name in sorted(sizes, key=lambda each: sizes[each], reverse=True) if size > FIELDS_LIMIT else ():
        if size <= FIELDS_LIMIT:
            break
        if name != "MESSAGE" and not name.startswith("_"):
            size -= sizes[name]
            cut.append(name)
    if not cut:
        return fields, size
    kept = {name: value for name, value in fields.items() if name not in cut}
    return {**kept, CUT: ", ".join(sorted(cut)).encode()[:_CUT_LIMIT]}, size


def without_others(fields: dict[str, Value]) -> dict[str, Value]:
    """Return FIELDS without those of other entries, which follow its own if the size of the entry is damaged.

    Then fields occur repeatedly that are always unique: journald's own, or the message of a printed line.
    """
    several = {name for name, value in fields.items() if isinstance(value, list)}
    printed = fields.get("_TRANSPORT") == b"stdout"
    if not any(name.startswith("_") or (printed and name == "MESSAGE") for name in several):
        return fields
    return {name: value[0] if isinstance(value, list) else value for name, value in fields.items()}


def has_lost_its_message(fields: Mapping[str, Value]) -> bool:
    """Return whether an entry has lost its message: only entries by journald's own protocol may lack one.

    libsystemd omits damaged fields of an entry.
    """
    return "MESSAGE" not in fields and fields.get("_TRANSPORT", b"stdout") == b"stdout"


def has_lost_its_unit(fields: Mapping[str, Value]) -> bool:
    """Return whether an entry of a damaged file has lost the fields that identify its unit.

    All lines of a unit refer to the same data objects. In an intact file, a line may lack them if its process ended
    before journald read them, below systemd-cat(1) without an identifier.
    """
    printed = fields.get("_TRANSPORT", b"stdout") == b"stdout"
    return printed and not any(name in fields for name in ("_SYSTEMD_USER_UNIT", "USER_UNIT", "SYSLOG_IDENTIFIER"))
