"""Reading an account's entries of the systemd journal, boot by boot, from the stored position, and following them.

Why boot by boot: libsystemd orders entries of different files by sequence number, by monotonic time, or, between
boots written to different files, by the wall clock, which can step. A machine that boots with its clock set back (after
a power cut, without a battery) writes entries that sort *before* the stored cursor and would never be read. Within one
boot the order is total.

Seeking to the position in a boot read before:

- The cursor exists: continue after it.
- It does not (vacuumed; lost in a power cut, so that the store is ahead of the journal; or the file was rewritten):
  entries older than the stored monotonic time were read, later ones are new. Among those of that microsecond the
  sequence number decides, or, in a file with other numbers, their count. A gap is reported, unless the numbers prove
  that nothing is missing or the same entry is found with another number.
- A boot without a position is read from its head; a boot read to its end is not read again.

Files that journald has rotated or deleted stay readable as long as they are open, so the set of files is updated only
at the end of the journal: journald may delete files faster than they are read. This relies on journald writing an
account's entries to one file at a time.

sd_journal(3); journald's file format as of systemd 252.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from systemd import _reader

from helmd.journal.comparison import LOOKUP_STEPS, OVERHEAD, UNKNOWN_HASH, Comparison
from helmd.journal.doubled import Doubles
from helmd.journal.expected import files_of
from helmd.journal.matches import match_account
from helmd.journal.unfiltered import DATA_THRESHOLD, bounded, has_lost_its_message
from helmd.model.errors import HelmError
from helmd.model.logs.parsing.entry_times import STEP, Times
from helmd.model.logs.parsing.journal_fields import REALTIME, JournalEntry, Value
from helmd.model.logs.parsing.position import (
    Gap,
    Missing,
    Position,
    is_numbered_after,
    is_numbered_up_to,
    parse_cursor,
)

_new = tuple.__new__
"""Makes a named tuple with half the work of calling its class, which is Python code."""
_NO_OFFSETS = (0, 0)
_STALE = 1.0
"""Seconds since the set of files was updated after which a file may have been created and deleted in between."""


class JournalError(HelmError):
    """The journal can't be opened or read."""

    code: ClassVar[str] = "journal"


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """The entries of one read, all of one boot. ``position`` is None if no entry of that boot was read yet."""

    entries: tuple[JournalEntry, ...]
    gaps: tuple[Gap, ...]
    position: Position | None
    at_end: bool
    """There is nothing more to read for now."""
    size: int
    """Bytes of the entries: the messages of printed lines, all fields of others and of recovered ones."""


@dataclass(frozen=True, slots=True)
class _Boot:
    boot_id: str
    position: Position | None
    starts: int


class JournalReader(Comparison):
    """A reader of the entries of one account (``_UID``) on this machine; not to be shared between tasks.

    ``directory`` replaces the machine's; ``boot_id`` is the running boot, which is read last and followed.
    """

    def __init__(self, uid: int, boot_id: str, directory: Path | None = None) -> None:
        self._directory = directory
        self._doubles = Doubles() if directory is None else Doubles((directory,))
        super().__init__(uid, boot_id, files_of(directory))
        self._open()
        self._ahead: list[_Boot] = []
        self._offsets = _NO_OFFSETS
        """The difference of wall clock and monotonic time is unchanged while between these, in microseconds."""
        self._updated = time.monotonic()
        self._keepalive: Callable[[], None] = _nothing

    def _open(self) -> None:
        try:
            if self._directory is None:
                self._journal = _reader._Reader(_reader.LOCAL_ONLY)
            else:
                self._journal = _reader._Reader(0, str(self._directory))
            # libsystemd watches the directories only from here on.
            self._descriptor = self._journal.fileno()
        except OSError as error:
            raise JournalError(f"the journal can't be opened: {error.strerror}") from error
        self._journal.data_threshold = DATA_THRESHOLD

    def close(self) -> None:
        """Close the journal's files."""
        self._end_recovery()
        self._files.close()
        self._journal.close()

    def seek(self, positions: Mapping[str, Position], keepalive: Callable[[], None] | None = None) -> None:
        """Seek to the POSITIONS, by boot: the next read returns the entries after them. Raises JournalError.

        If a cursor is not found, all entries before it are skipped, which may take minutes; KEEPALIVE is called
        regularly meanwhile, and an exception that it raises ends the search.
        """
        self._keepalive = keepalive or _nothing
        try:
            # Otherwise a cursor in a new file would seem to be lost.
            self._journal.process()
            self._updated = time.monotonic()
            self._gaps.clear()
            self._missing.clear()
            self._unreadable = 0
            self._ahead = self._boots_to_read(positions)
            self._enter(self._ahead.pop(0))
        except OSError as error:
            raise JournalError(f"the journal can't be read: {error.strerror}") from error
        finally:
            self._keepalive = _nothing

    @property
    def boot_id(self) -> str:
        """Return the boot that is being read."""
        return self._boot_id

    def read(self, most_entries: int, most_bytes: int) -> ReadBatch:
        """Return at most MOST_ENTRIES of one boot; only the last may exceed MOST_BYTES. Raises JournalError."""
        try:
            if self._damaged:
                entries, size, at_end = *self._recover(most_entries, most_bytes), False
            else:
                entries, size, at_end = self._iterate(most_entries, most_bytes)
            if at_end and not entries:
                self._release_when_idle()
            if at_end:
                at_end = not self._check_end()
            if at_end and self._boot_id != self._current:
                self._gaps += self._missing
                self._missing.clear()
            position, gaps = self._position, tuple(self._gaps)
            self._gaps.clear()
            if at_end and self._boot_id != self._current:
                position = position and position._replace(finished=True)
                self._enter(self._ahead.pop(0))
                at_end = False
        except OSError as error:
            raise JournalError(f"the journal can't be read: {error.strerror}") from error
        return ReadBatch(tuple(entries), gaps, position, at_end, size)

    def _iterate(self, most_entries: int, most_bytes: int) -> tuple[list[JournalEntry], int, bool]:
        """Return the next entries, their size as in `ReadBatch`, and whether libsystemd is at the end.

        The hot path, without avoidable calls. (Cursors are needed: libsystemd can't continue after damage.)
        """
        journal, boot_id, own = self._journal, self._boot_id, b"%d" % self._uid
        advance, get_all, get_cursor = journal._next, journal._get_all, journal._get_cursor
        get_monotonic, get_realtime = journal._get_monotonic, journal._get_realtime
        limit, recovered = self._limit, self._recovered
        lowest, highest = self._offsets
        previous, again = self._previous, self._again
        entries: list[JournalEntry] = []
        seen: list[int] = []
        cursors: list[str] = []
        remaining, at_end = most_bytes, False
        last = self._position
        newest, ties, before = (last.monotonic, last.ties, last.cursor) if last is not None else (-1, 0, "")
        pending, self._pending = self._pending, False
        while remaining > 0 and len(entries) < most_entries:
            if pending:
                pending = False
            elif not advance():
                at_end = True
                break
            try:
                fields: dict[str, Value] = get_all()
                written: int = get_monotonic().timestamp
                realtime: int = get_realtime()
                cursor: str = get_cursor()
            except (OSError, ValueError):  # ValueError: damage in the name of a field
                fields = {}
            try:
                message = fields["MESSAGE"]
                # True of nearly all; indexing takes half as long as get().
                is_plain = fields["_UID"] == own and fields["_TRANSPORT"] == b"stdout" and type(message) is bytes
            except KeyError:
                if not fields or has_lost_its_message(fields):
                    self._unreadable += 1
                    self._passed += 1
                    continue
                is_plain = False
            monotonic, given = written, realtime
            if not lowest < realtime - monotonic < highest:
                times = self._files.times(cursor, Times(realtime, monotonic))
                if times is None:
                    continue
                realtime, monotonic = times
                lowest, highest = self._offsets = (realtime - monotonic - STEP, realtime - monotonic + STEP)
            # After the end of a file, or of several: their missing entries come before those of the next file.
            while monotonic > limit:
                self._note(seen, cursors)
                if self._is_damaged(limit):
                    self._pending = True
                    break
                limit = self._limit
            if self._pending:
                break
            if is_plain:
                is_own, size = True, len(message)
            else:
                fields, size = bounded(fields)
                is_own = fields.get("_UID", own) == own
            if again and cursor in again:
                continue
            if monotonic < newest:
                if not is_numbered_after(cursor, before):
                    continue  # of a file that was noticed late; entries older than the position were read
                # By its number it is later: one of the two times is damaged.
                if monotonic >= previous:
                    newest, ties = monotonic, 0
                else:
                    monotonic, ties = newest, ties - 1
            if is_own:
                seen.append(written)
                cursors.append(cursor)
            if monotonic == recovered == newest and is_numbered_up_to(cursor, before):
                continue  # recovered before libsystemd noticed its file
            if self._unreadable:
                # Reported with the next readable entry, whose cursor covers these, so that they are reported once.
                since = entries[-1].realtime if entries else last.realtime if last is not None else realtime
                self._gaps.append(Gap(since, realtime, Missing.UNREADABLE, self._unreadable))
                self._unreadable = 0
            ties = ties + 1 if monotonic == newest else 1
            # A cursor ends with the entry's hash, which is cheaper to compare than the rest.
            if ties > 1 and cursor.endswith(before[-12:]) and self._doubles.repeats(before, cursor):
                continue
            previous, newest, before = newest, monotonic, cursor
            if realtime != given:
                fields[REALTIME] = b"%d" % given
            entries.append(_new(JournalEntry, (fields, cursor, boot_id, monotonic, realtime)))
            remaining -= size + OVERHEAD
        self._note(seen, cursors)
        if entries:
            end = entries[-1]
            self._previous = previous
            cursor = end.cursor if self._files.has_number(end.cursor) else ""
            self._position = Position(boot_id, cursor, end.realtime, end.monotonic, ties)
            self._count_read(len(entries))
            self._gaps += self._missing
            self._missing.clear()
        return entries, most_bytes - remaining - OVERHEAD * len(entries), at_end

    def has_more(self) -> bool:
        """Return within microseconds whether open files have an entry after the last one read. Raises JournalError."""
        try:
            self._pending = self._pending or bool(self._journal._next())
        except OSError as error:
            raise JournalError(f"the journal can't be read: {error.strerror}") from error
        return self._pending

    async def wait(self, seconds: float) -> None:
        """Wait at the end until the journal may have more, at most for SECONDS. Raises JournalError."""
        stale = time.monotonic() - self._updated > _STALE
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        timeout = self._journal.get_timeout_ms()
        if timeout >= 0:
            # Only where the journal is on a network file system, without inotify.
            seconds = min(seconds, timeout / 1000)
        loop.add_reader(self._descriptor, woken.set)
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._descriptor)
        try:
            state = self._journal.process()
            # The only sign of files that were rotated and deleted unread since the last update.
            if state == _reader.INVALIDATE and stale and self._position is not None:
                self._seek_position(self._position, _now())
        except OSError as error:
            raise JournalError(f"the journal can't be read: {error.strerror}") from error
        self._updated = time.monotonic()

    def _boots_to_read(self, positions: Mapping[str, Position]) -> list[_Boot]:
        """Return the boots that may have new entries, ordered by wall-clock time; the running one is last."""
        present = {raw.decode("ascii", "replace") for raw in self._journal.query_unique("_BOOT_ID")}
        earlier: list[_Boot] = []
        for boot_id in (present | set(positions)) - {self._current}:
            position = positions.get(boot_id)
            if position is not None and position.finished:
                continue
            starts = position.realtime if position is not None else self._first_time(boot_id)
            if starts is not None:
                earlier.append(_Boot(boot_id, position, starts))
        earlier.sort(key=lambda boot: boot.starts)
        first = self._first_time(self._current)
        return [*earlier, _Boot(self._current, positions.get(self._current), _now() if first is None else first)]

    def _first_time(self, boot_id: str) -> int | None:
        """Return the wall-clock time of the account's first entry in a boot, or None if there is none."""
        match_account(self._journal, self._uid, boot_id)
        self._journal.seek_head()
        while self._journal._next():
            try:
                first: int = self._journal._get_realtime()
            except OSError:
                continue
            return first
        return None

    def _enter(self, boot: _Boot) -> None:
        """Continue with another boot."""
        self._boot_id, self._position = boot.boot_id, boot.position
        self._pending = False
        self._offsets = _NO_OFFSETS
        self._again.clear()
        self._end_recovery()
        if boot.position is None:
            self._stopped_at, self._previous = "", -1
            match_account(self._journal, self._uid, boot.boot_id)
            self._journal.seek_head()
            self._files.enter(boot.boot_id, -1)
            self._begin_comparison(-1)
        else:
            self._seek_position(boot.position, self._ahead[0].starts if self._ahead else _now())
        self._check_due = 0.0

    def _seek_position(self, position: Position, end: int) -> None:
        """Continue after POSITION. END is the time up to which lines may be missing if the boot has none after it."""
        match_account(self._journal, self._uid, position.boot_id)
        self._pending = False
        self._stopped_at, self._previous = position.cursor, position.monotonic
        found = bool(position.cursor) and self._seek_entry(position.cursor)
        self._files.enter(position.boot_id, position.monotonic - 1)
        # It may exist nevertheless, in a file whose match chains are damaged.
        present = found or (bool(position.cursor) and self._files.has(position))
        if present:
            self._begin_comparison(position.monotonic - 1, [UNKNOWN_HASH] * position.ties)
        else:
            self._begin_comparison(position.monotonic)
        if found:
            return
        self._seek_near(position)
        if not present:
            self._position = position._replace(cursor="")
        gap = self._skip_known(position, end)
        if gap is not None and position.cursor and not present:
            self._gaps.append(gap)

    def _resume(self) -> None:
        if self._pending or self._position is None:
            return
        if not (self._position.cursor and self._seek_entry(self._position.cursor)):
            self._seek_near(self._position)
            self._skip_known(self._position, 0)

    def _seek_near(self, position: Position) -> None:
        """Seek to an entry at or before POSITION, though not always the nearest.

        By monotonic time alone, libsystemd 252 starts at the head of every file that ends earlier. A cursor, even of a
        deleted entry, also has a sequence number and the wall clock, by which it skips such files.
        """
        try:
            self._journal.seek_cursor(position.cursor)
        except ValueError:  # EINVAL: empty, or of another version's form
            self._journal.seek_monotonic(position.monotonic, position.boot_id)

    def _seek_entry(self, cursor: str) -> bool:
        """Seek to the entry of a cursor; return False if the journal does not have it."""
        try:
            self._journal.seek_cursor(cursor)
            # If it does not exist, the nearest entry is found, without an error.
            return bool(self._journal._next() and self._journal.test_cursor(cursor))
        except (ValueError, OSError):  # EINVAL: of another version's form; else the entry is damaged
            return False

    def _skip_known(self, position: Position, end: int) -> Gap | None:
        """Skip entries up to POSITION, and return the gap after it if there is one, up to END if no entry follows.

        The next new entry is left pending.
        """
        last = parse_cursor(position.cursor)
        known = position.ties
        seen_again = False
        skipped = 0
        while self._journal._next():
            skipped += 1
            if skipped % LOOKUP_STEPS == 0:
                self._keepalive()
            try:
                monotonic = self._journal._get_monotonic().timestamp
                if monotonic < position.monotonic:
                    self._count_read(1)
                    continue
                until, cursor = self._journal._get_realtime(), self._journal._get_cursor()
            except OSError:
                continue  # damaged, and reported by the comparison with the file
            if monotonic > position.monotonic:
                times = self._files.times(cursor, Times(until, monotonic))
                if times is None or times.monotonic < position.monotonic:
                    continue
                until, monotonic = times
            here = parse_cursor(cursor)
            distance = None  # from the lost entry's sequence number, if both are of one source
            if last is not None and here is not None and here.seqnum_id == last.seqnum_id:
                distance = here.seqnum - last.seqnum
            if monotonic == position.monotonic:
                seen_again = seen_again or (last is not None and here is not None and here.xor_hash == last.xor_hash)
                if distance is not None and distance <= 0:
                    continue
                if distance is None and known > 0:
                    known -= 1
                    continue
            self._pending = True
            if distance is None:
                return None if seen_again else Gap(position.realtime, until, Missing.LOST)
            if distance == 1:
                return None
            return Gap(position.realtime, until, Missing.LOST, distance - 1 if distance > 0 else None)
        return None if seen_again else Gap(position.realtime, max(end, position.realtime), Missing.LOST)


def _nothing() -> None:
    pass


def _now() -> int:
    return time.time_ns() // 1000
