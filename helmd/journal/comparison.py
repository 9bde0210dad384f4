"""Comparing the entries read with the files' own numbers of them, and recovering entries after damage.

For a match libsystemd follows a chain of entry arrays in the file, and finds no entries after a broken link, without an
error. So at the end of each file, and of the journal, the number of entries read is compared with the file's. If some
are missing, the file is read without matches; those still missing are reported as a gap with their number.
"""

import time
from array import array
from collections.abc import Sequence
from typing import Any

from helmd.journal.expected import FOREVER, Expected, FileSet
from helmd.journal.mapped import release_pages, trim_heap
from helmd.journal.unfiltered import UnfilteredFile
from helmd.model.logs.parsing.journal_fields import JournalEntry
from helmd.model.logs.parsing.position import Gap, Missing, Position

OVERHEAD = 4096
"""Bytes of memory counted for an entry's twenty-odd fields besides its message, in the limit of a batch."""
LOOKUP_STEPS = 5_000
"""Number of entries skipped between two keepalives of the watchdog."""
_RELEASE_AFTER = 20_000
"""Number of entries read after which pages of the files are released."""
_IDLE_RELEASE_SECONDS = 10.0
"""Interval in which memory is released at the end of the journal."""
_TRIM_AFTER = 1_000
"""Number of entries read after which the heap is trimmed at the end of the journal."""
_CHECK_SECONDS, _CHECK_AGAIN_SECONDS = 30.0, 1.0
"""Interval in which the end of the journal is compared with the files' numbers, and that after a difference."""
_CONFIRM = True
"""Whether entries missing at the end of the running boot must be missing at a second check: libsystemd notices new
files late.
"""
_MOST_SEEN = 4_000_000
"""Number of entries after which the comparison starts again although no file has ended."""
UNKNOWN_HASH = 0
"""Stands for the hash of an unknown cursor."""


class Comparison:
    """The part of a `JournalReader` that compares and recovers; the reader iterates and moves the position."""

    _journal: Any

    def __init__(self, uid: int, boot_id: str, files: FileSet) -> None:
        self._uid = uid
        self._files = files
        self._current = self._boot_id = boot_id
        self._position: Position | None = None
        self._gaps: list[Gap] = []
        self._missing: list[Gap] = []
        """Gaps to be reported with the next entry, whose position covers them."""
        self._pending = False
        self._unreadable = 0
        self._base = -1
        self._seen = array("Q")
        """Monotonic times of the entries read above ``_base``."""
        self._hashes = array("q")
        """The hashes of their cursors; UNKNOWN_HASH of those read before a restart."""
        self._passed = 0
        self._limit = FOREVER
        self._suspected = (-2, 0)
        self._check_due = 0.0
        self._damaged: list[UnfilteredFile] = []
        self._hashes_read: set[int] = set()
        self._unknown_read = 0
        self._up_to = self._lost = self._reported = 0
        self._read_after: tuple[int, ...] = ()
        """The hashes of entries that were read right after ``_up_to`` before the recovery began."""
        self._unreleased = 0
        """Number of entries read since pages were released."""
        # What the start of the process freed counts like a burst.
        self._untrimmed = _TRIM_AFTER
        """Number of entries read since the heap was trimmed."""
        self._release_due = time.monotonic() + _IDLE_RELEASE_SECONDS
        self._previous = -1
        """Monotonic time of the entry before the last one."""
        self._stopped_at = ""
        """Cursor of the entry after which reading began: it is stored."""
        self._again: set[str] = set()
        """Cursors of recovered entries, which libsystemd returns later, by their damaged times."""
        self._recovered = -1
        """Monotonic time of the last recovered entry: the reader may find entries of that time again."""

    def _begin_comparison(self, base: int, hashes: Sequence[int] = ()) -> None:
        """Count the entries read above the monotonic time BASE; those of HASHES, just above it, were read already."""
        self._base = base
        self._seen, self._hashes = array("Q", [base + 1] * len(hashes)), array("q", hashes)
        self._passed = 0
        self._limit = self._files.limit(base)

    def _note(self, seen: list[int], cursors: list[str]) -> None:
        """Record the monotonic times and cursors of entries read, and clear both lists."""
        self._seen.extend(seen)
        self._hashes.extend(map(hash, cursors))
        seen.clear()
        cursors.clear()

    def find_missed_entries(self) -> bool:
        """Return whether files have more entries up to the last one read than were read; these are read next.

        To be called before a position is stored: a reader that begins there compares nothing before it.
        """
        if self._damaged:
            return True
        last = self._position
        # After an entry with a damaged time or number, the comparison waits for the next one.
        if last is None or not last.cursor or self._unreadable or not self._seen or self._seen[-1] != last.monotonic:
            return False
        read, up_to = len(self._seen), last.monotonic - 1
        while read and self._seen[read - 1] == last.monotonic:
            read -= 1
        if up_to <= self._base:
            return False
        self._files.look()
        expected = self._files.expected(self._uid, self._base, up_to, last.cursor)
        if self._lacks(expected, read):
            self._begin_recovery(expected, up_to)
            self._read_after = tuple(self._hashes[read:])
            return True
        self._begin_comparison(up_to, tuple(self._hashes[read:]))
        return False

    def _is_damaged(self, limit: int) -> bool:
        """Return whether files have more entries up to the monotonic time LIMIT than were read.

        Then `_recover` returns the next entries.
        """
        if self._files.has_grown(limit) and len(self._seen) < _MOST_SEEN:
            self._limit = self._files.limit(limit)
            return False
        expected = self._files.expected(self._uid, self._base, limit)
        if self._lacks(expected):
            self._begin_recovery(expected, limit)
            return True
        self._files.look(limit)
        self._begin_comparison(limit)
        return False

    def _check_end(self) -> bool:
        """Return whether there are more entries although libsystemd is at the end."""
        running = self._boot_id == self._current
        now = time.monotonic()
        if running and now < self._check_due:
            return False
        self._check_due = now + _CHECK_SECONDS
        self._files.look()
        end = self._files.end() if running else FOREVER
        expected = self._files.expected(self._uid, self._base, end)
        if not self._lacks(expected):
            # A header older than the last entry read does not count the entries after it.
            if running and end > self._base and (self._position is None or end >= self._position.monotonic):
                self._begin_comparison(end)
            return False
        if self._journal._next():
            self._pending = True
            return True
        # journald may have written just now, into a file that libsystemd has yet to notice.
        state = (self._base, len(self._seen))
        if running and _CONFIRM and self._suspected != state:
            self._suspected = state
            self._check_due = now + _CHECK_AGAIN_SECONDS
            return False
        self._begin_recovery(expected, end)
        return True

    def _lacks(self, expected: list[Expected], read: int | None = None) -> bool:
        counts = [each.entries for each in expected]
        read = len(self._seen) if read is None else read
        return None in counts or sum(count or 0 for count in counts) > read + self._passed

    def _begin_recovery(self, expected: list[Expected], up_to: int) -> None:
        self._hashes_read, self._unknown_read = set(self._hashes), self._hashes.count(UNKNOWN_HASH)
        self._damaged = [UnfilteredFile(each.file, self._uid, self._boot_id, self._base, up_to) for each in expected]
        self._up_to = up_to
        # Unreadable entries were reported already, except those after the last readable one.
        self._lost, self._reported = 0, self._passed - self._unreadable
        self._unreadable = 0
        self._read_after = ()

    def _end_recovery(self) -> None:
        for damaged in self._damaged:
            damaged.close()
        self._damaged.clear()

    def _recover(self, most_entries: int, most_bytes: int) -> tuple[list[JournalEntry], int]:
        """Return entries of a damaged file that matches did not find, and their size in bytes.

        The limits are those of `JournalReader.read`.
        """
        damaged, last = self._damaged[0], self._position
        newest, ties, cursor = (last.monotonic, last.ties, last.cursor) if last is not None else (-1, 0, "")
        since = realtime = last.realtime if last is not None else 0
        entries: list[JournalEntry] = []
        total, remaining, over = 0, most_bytes, False
        lost = 0
        for _ in range(LOOKUP_STEPS):
            if len(entries) >= most_entries or remaining <= 0:
                break
            if damaged.at_end():
                over = True
                break
            found = damaged.next()
            if found is None:
                continue
            entry = found.entry
            if hash(entry.cursor) in self._hashes_read:
                continue
            if self._unknown_read and found.monotonic == self._base + 1:
                self._unknown_read -= 1
                continue
            if entry.cursor == self._stopped_at:
                continue
            if found.monotonic > self._up_to:
                self._again.add(entry.cursor)
            entries.append(entry)
            lost = damaged.lost
            if entry.monotonic >= newest:
                ties = ties + 1 if entry.monotonic == newest else 1
                newest, realtime = entry.monotonic, entry.realtime
                cursor = entry.cursor if self._files.has_number(entry.cursor) else ""
            size = found.size
            total += size
            remaining -= size + OVERHEAD
        if entries:
            self._position = Position(self._boot_id, cursor, realtime, newest, ties)
            self._recovered = self._previous = newest
            self._count_read(len(entries))
            # With the entries after the gap, whose position covers it, so that it is reported once.
            self._report_missing(lost, since, realtime, self._gaps)
        if over:
            self._report_missing(damaged.lost, realtime, max(realtime, damaged.until()), self._missing)
            self._lost += damaged.lost
            damaged.close()
            del self._damaged[0]
            if not self._damaged:
                self._files.look(self._up_to)
                self._begin_comparison(self._up_to, self._read_after)
                self._resume()
        return entries, total

    def _resume(self) -> None:
        """Seek to the last recovered entry: libsystemd continues from the sequence number, which may be damaged."""
        raise NotImplementedError

    def _report_missing(self, entries: int, since: int, until: int, gaps: list[Gap]) -> None:
        """Add a gap to GAPS for missing entries of a damaged file that were not reported before."""
        entries += self._lost - self._reported
        if entries > 0:
            gaps.append(Gap(since or until, until, Missing.UNREADABLE, entries))
            self._reported += entries

    def _count_read(self, entries: int) -> None:
        """Count ENTRIES as read, and release pages after every _RELEASE_AFTER."""
        self._unreleased += entries
        self._untrimmed += entries
        if self._unreleased >= _RELEASE_AFTER:
            self._unreleased = 0
            release_pages()

    def _release_when_idle(self) -> None:
        """Release memory every _IDLE_RELEASE_SECONDS. Not to be called while entries read wait to be stored."""
        now = time.monotonic()
        if now < self._release_due:
            return
        self._release_due = now + _IDLE_RELEASE_SECONDS
        self._unreleased = 0
        release_pages()
        if self._untrimmed >= _TRIM_AFTER:
            self._untrimmed = 0
            trim_heap()
