"""What was read of the journal, compared with the files' own count, and lines found behind damage.

libsystemd follows a match by a chain of the file's own, and finds nothing behind a broken link of it, without an error.
So at the end of each file, and of the journal, what was walked is compared with what the file says it has. Where lines
are missing the file is read without matches, and what is still missing is a gap with its count.
"""

import time
from array import array
from collections.abc import Sequence
from typing import Any

from helmd.journal.expected import FOREVER, Expected, FileSet
from helmd.journal.mapped import give_back, give_back_freed
from helmd.journal.unfiltered import UnfilteredFile
from helmd.model.logs.parsing.journal_fields import JournalEntry
from helmd.model.logs.parsing.position import Gap, Missing, Position

OVERHEAD = 4096
"""Bytes that the twenty-odd fields of an entry take here besides its message, for the bound on a batch."""
LOOKUP_STEPS = 5_000
"""Number of entries skipped between two keepalives of the watchdog."""
_GIVE_BACK_AFTER = 20_000
"""Entries after which the files' memory is given back."""
_REST_SECONDS = 10.0
"""How often memory is given back at the end of the journal."""
_FREED_AFTER = 1_000
"""Entries after which that goes for what was freed as well."""
_CHECK_SECONDS, _CHECK_AGAIN_SECONDS = 30.0, 1.0
"""How often the end is compared with the files' own count, and how soon again when that has more."""
_CONFIRM = True
"""Whether lines missing at the live end must be missing at a second check: libsystemd notices new files late."""
_MOST_SEEN = 4_000_000
"""Entries after which the comparison starts again although no file has ended."""
UNKNOWN_HASH = 0
"""Stands for the hash of a cursor that is not known."""


class Comparison:
    """The part of a `JournalReader` that compares and recovers; the reader walks, and moves the position."""

    _journal: Any

    def __init__(self, uid: int, boot_id: str, files: FileSet) -> None:
        self._uid = uid
        self._files = files
        self._current = self._boot_id = boot_id
        self._position: Position | None = None
        self._gaps: list[Gap] = []
        self._missing: list[Gap] = []
        """Gaps that are said with the next entry, whose position covers them."""
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
        self._walked: set[int] = set()
        self._walked_unknown = 0
        self._up_to = self._lost = self._said = 0
        self._read_behind: tuple[int, ...] = ()
        """The hashes of entries that were read right behind ``_up_to`` before the recovery began."""
        self._taken = 0
        # What the start of the process freed counts like a burst.
        self._freed = _FREED_AFTER
        """Entries since freed memory was given back."""
        self._rest_due = time.monotonic() + _REST_SECONDS
        self._previous = -1
        """Monotonic time of the entry before the last one."""
        self._stopped_at = ""
        """Cursor of the entry behind which reading began: it was stored."""
        self._again: set[str] = set()
        """Cursors of entries that were recovered, which libsystemd gives later by their damaged times."""
        self._recovered = -1
        """Monotonic time of the last entry that was recovered: the walk may meet entries of that time again."""

    def _begin_comparison(self, base: int, hashes: Sequence[int] = ()) -> None:
        """Counts what is read above the monotonic time BASE from here on; entries just above, of HASHES, were read."""
        self._base = base
        self._seen, self._hashes = array("Q", [base + 1] * len(hashes)), array("q", hashes)
        self._passed = 0
        self._limit = self._files.limit(base)

    def _note(self, seen: list[int], cursors: list[str]) -> None:
        """Note for the comparison what was read, and empty both."""
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
        # Behind an entry with damage in its time or number, the next one is compared.
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
            self._read_behind = tuple(self._hashes[read:])
            return True
        self._begin_comparison(up_to, tuple(self._hashes[read:]))
        return False

    def _is_damaged(self, limit: int) -> bool:
        """Whether files have more entries up to the monotonic time LIMIT than were read. Then `_recover` goes on."""
        if self._files.goes_on(limit) and len(self._seen) < _MOST_SEEN:
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
        """Whether there is more although libsystemd has come to the end."""
        running = self._boot_id == self._current
        now = time.monotonic()
        if running and now < self._check_due:
            return False
        self._check_due = now + _CHECK_SECONDS
        self._files.look()
        end = self._files.end() if running else FOREVER
        expected = self._files.expected(self._uid, self._base, end)
        if not self._lacks(expected):
            # A header that is behind what was read says nothing of the rest.
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
        self._walked, self._walked_unknown = set(self._hashes), self._hashes.count(UNKNOWN_HASH)
        self._damaged = [UnfilteredFile(each.file, self._uid, self._boot_id, self._base, up_to) for each in expected]
        self._up_to = up_to
        # Entries that the walk met and could not read were said already, but for those behind its last good one.
        self._lost, self._said = 0, self._passed - self._unreadable
        self._unreadable = 0
        self._read_behind = ()

    def _end_recovery(self) -> None:
        for damaged in self._damaged:
            damaged.close()
        self._damaged.clear()

    def _recover(self, most_entries: int, most_bytes: int) -> tuple[list[JournalEntry], int]:
        """Entries of a damaged file that the walk did not find. It is read without matches, which finds more."""
        damaged, last = self._damaged[0], self._position
        newest, ties, cursor = (last.monotonic, last.ties, last.cursor) if last is not None else (-1, 0, "")
        since = realtime = last.realtime if last is not None else 0
        entries: list[JournalEntry] = []
        text, remaining, over = 0, most_bytes, False
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
            if hash(entry.cursor) in self._walked:
                continue
            if self._walked_unknown and found.monotonic == self._base + 1:
                self._walked_unknown -= 1
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
            text += size
            remaining -= size + OVERHEAD
        if entries:
            self._position = Position(self._boot_id, cursor, realtime, newest, ties)
            self._recovered = self._previous = newest
            self._took(len(entries))
            # With the entries behind it, whose position covers it, so that it is said once.
            self._say_missing(lost, since, realtime, self._gaps)
        if over:
            self._say_missing(damaged.lost, realtime, max(realtime, damaged.until()), self._missing)
            self._lost += damaged.lost
            damaged.close()
            del self._damaged[0]
            if not self._damaged:
                self._files.look(self._up_to)
                self._begin_comparison(self._up_to, self._read_behind)
                self._go_on()
        return entries, text

    def _go_on(self) -> None:
        """Have libsystemd go on behind what was recovered: it takes a damaged sequence number for its place."""
        raise NotImplementedError

    def _say_missing(self, entries: int, since: int, until: int, gaps: list[Gap]) -> None:
        """Adds to GAPS what is missing of a damaged file besides what was said before."""
        entries += self._lost - self._said
        if entries > 0:
            gaps.append(Gap(since or until, until, Missing.UNREADABLE, entries))
            self._said += entries

    def _took(self, entries: int) -> None:
        self._taken += entries
        self._freed += entries
        if self._taken >= _GIVE_BACK_AFTER:
            self._taken = 0
            give_back()

    def _give_back_at_rest(self) -> None:
        """Give memory back from time to time, as long as nothing that was read waits to be stored."""
        now = time.monotonic()
        if now < self._rest_due:
            return
        self._rest_due = now + _REST_SECONDS
        self._taken = 0
        give_back()
        if self._freed >= _FREED_AFTER:
            self._freed = 0
            give_back_freed()
