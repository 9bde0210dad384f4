"""Copies the lines of the suite's services from the journal to the store, each exactly once, also after a crash.

Rows, the journal position after them and unfinished entries are committed in one transaction, and a position only
replaces the one from which reading began. So nothing has to be repaired after a failure: reading resumes at the stored
position, and the journal is the buffer. While one batch is stored, the next one is read and parsed; two are in memory
at most.

An entry that cannot be parsed or stored is stored as text or reported (`Assembler`, `JournalStore.append`), and ingest
continues.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NoReturn

from helmd.journal.damage import Truncated
from helmd.journal.reader import JournalError, JournalReader
from helmd.model.errors import HelmError, StoreError
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import LogRow, datetime_of
from helmd.model.logs.parsing.clock_steps import clock_steps
from helmd.model.logs.parsing.journal_entries import MAX_REALTIME, Assembler
from helmd.model.logs.parsing.journal_fields import JournalEntry, gap_row
from helmd.model.logs.parsing.parsed import DISABLED, Formats
from helmd.model.logs.parsing.position import Gap, Missing, Position
from helmd.model.units.unit_state import WAITING
from helmd.operations.logs.pattern_watchdog import PatternWatchdog, disabled_sentence
from helmd.store.ingest.journal import IngestTakenError, JournalStore, PositionMovedError

CHUNK_ROWS = 16_000
CHUNK_BYTES = 24 * 1024 * 1024
"""Maximum size of a transaction."""
_FIRST_ROWS = 1_000
"""Maximum number of rows of a backlog's first batch; it doubles with each further one. So a burst takes little memory,
of which Python returns only arenas that are free as a whole.
"""
_FULL_WITH_MISSED = 4
"""Factor by which a batch may exceed its maximum size when missed lines are found."""
_COMPARE_AFTER = 250
"""Number of entries after which missed lines are searched for; smaller batches are read while they are written."""
SLICE_ENTRIES = 250
_SLICE_BYTES = 4 * 1024 * 1024
"""Maximum size of one read. The event loop runs between two, so that the server does not wait for its next rows."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Delay in seconds before a retry, at first and at most."""
_HEARTBEAT_SECONDS = 5.0
"""Interval in seconds of keepalives for the watchdog during long work."""
_ACTIVE_SECONDS = 5.0
"""Seconds since the last line for which the journal counts as active."""
_POLL, _QUIET_POLL = 0.02, 0.1
"""Interval in seconds in which the journal is polled, while it is active and otherwise."""
_POLLS = 10
"""Number of polls before sd_journal_wait(3) is called, without which new files are not noticed."""
HOLD, HOLD_AT_REST, HOLD_INCOMPLETE = 150_000, 1_000_000, 2_000_000
"""Microseconds for which an error is held for lines that may belong to it: while journald writes other lines, while it
writes nothing (it stops between any two lines, for as long as it takes to begin a new file), and for the end of a
traceback."""
_POSITION_SECONDS = 30.0
"""Interval in seconds in which the position is stored while the suite writes nothing."""
_STATUS_SECONDS = 2.0
_DISK_SECONDS = 5.0
_UNNOTICED_SECONDS = 0.5
"""Seconds without sd_journal_wait(3) after which the journal is not known to be quiet: a new file may not have been
noticed."""
_DAMAGE_SECONDS = 600.0
"""Interval in seconds in which damaged files are searched for."""
_JOINING, _REPORTED = "joining", "told"
"""Keys of what is stored with the position: unfinished entries, and the damaged files that were reported."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """The account whose journal is read, and its machine and boot."""

    uid: int
    machine_id: str
    boot_id: str
    hostname: str


@dataclass(slots=True)
class _Chunk:
    """What is stored in one transaction."""

    rows: list[LogRow] = field(default_factory=list)
    posted: list[PostedRow] = field(default_factory=list)
    position: Position | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    at_end: bool = False


class Ingest:
    """The ingest loop, which must run in the main thread (`PatternWatchdog`).

    ``prepare`` runs before the store is first used (migrations). ``beat`` sends a keepalive to the watchdog.
    ``set_status`` sets the status text that systemctl shows. ``own`` parses the entries that Helm wrote itself.
    ``full`` returns why nothing more may be stored, as a sentence, if the disk is too full; else an empty string.
    ``damaged`` finds damaged journal files.
    """

    def __init__(
        self,
        account: Account,
        open_reader: Callable[[], JournalReader],
        open_store: Callable[[], Awaitable[JournalStore]],
        formats: Formats,
        *,
        prepare: Callable[[], Awaitable[None]],
        beat: Callable[[], None],
        set_status: Callable[[str], None],
        own: Callable[[JournalEntry], PostedRow | None],
        health_paths: Callable[[str], Collection[str]] = lambda _: (),
        full: Callable[[], str] = lambda: "",
        damaged: Callable[[], list[Truncated]] = list,
    ) -> None:
        self._account = account
        self._open_reader = open_reader
        self._open_store = open_store
        self._formats = formats
        self._prepare = prepare
        self._heartbeat = beat
        self._set_status = set_status
        self._own = own
        self._health_paths = health_paths
        self._watchdog = PatternWatchdog()
        self.disabled: list[str] = []
        """Names of formats that are not used any more, because their patterns took too long."""
        self._full = full
        self._damaged = damaged
        self._prepared = False
        self._trouble = ""
        self._pause = _FIRST_PAUSE
        self._reader: JournalReader | None = None
        self._assembler = Assembler(formats, own=own, health_paths=health_paths)
        self._reported: list[str] = []
        self._kept: dict[str, Any] = {}
        self._damage_due = 0.0
        self._known: dict[str, Position] = {}
        self._clocks: dict[str, int] = {}
        self._stored_at = self._active_at = self._read_at = time.monotonic()
        self._disk_at = self._status_at = 0.0
        self._at_end = False
        self._max_rows = min(_FIRST_ROWS, CHUNK_ROWS)
        self._rows = 0
        self._rows_at_status = 0

    async def run(self) -> NoReturn:
        """Run until cancelled. While the store or the journal is unavailable, it is retried."""
        try:
            while True:
                try:
                    await self._session()
                except (StoreError, JournalError) as error:
                    if isinstance(error, JournalError | PositionMovedError):
                        self._close_reader()
                    self._report_failure(error)
                    self._heartbeat()
                    await asyncio.sleep(self._pause)
                    self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        finally:
            self._close_reader()

    async def _session(self) -> NoReturn:
        """Store batches on one connection until it fails. Raises StoreError and JournalError."""
        if not self._prepared:
            await self._await_with_heartbeat(asyncio.ensure_future(self._prepare()))
            self._prepared = True
        store = await self._open_store()
        try:
            await self._resume(store)
            chunk = await self._read()
            while True:
                self._heartbeat()
                await self._wait_for_space()
                if chunk.at_end or not self._needs_commit(chunk):
                    await self._store_if_needed(store, chunk)
                    self._recovered()
                    self._update_status(chunk)
                    if chunk.at_end:
                        await self._wait_for_entries()
                    chunk = await self._read()
                else:
                    chunk = await self._store_and_read(store, chunk)
        finally:
            await store.close()

    async def _await_with_heartbeat(self, work: asyncio.Future[None]) -> None:
        """Wait for WORK that may take longer than the watchdog's timeout, such as migrating large tables."""
        try:
            while not work.done():
                self._heartbeat()
                await asyncio.wait({work}, timeout=_HEARTBEAT_SECONDS)
            work.result()
        finally:
            work.cancel()

    async def _resume(self, store: JournalStore) -> None:
        """Resume at the stored position, with the unfinished entries stored with it.

        An open reader is kept: its files may have been deleted meanwhile.
        """
        self._known = await store.positions()
        if self._reader is None:
            self._reader = self._open_reader()
        await self._seek(self._reader)
        self._kept = kept = await store.pending(self._reader.boot_id)
        try:
            self._assembler = Assembler(self._formats, kept.get(_JOINING), self._own, self._health_paths)
        except (ValueError, TypeError):
            _log.warning("what was stored of unfinished log entries can't be read; they are dropped")
            self._assembler = Assembler(self._formats, own=self._own, health_paths=self._health_paths)
        reported = kept.get(_REPORTED)
        self._reported = [str(number) for number in reported] if isinstance(reported, list) else []
        self._clocks = {boot: position.realtime - position.monotonic for boot, position in self._known.items()}

    async def _seek(self, reader: JournalReader) -> None:
        """Seek to the stored position. In a thread, since that may take longer than the watchdog's timeout."""
        given_up = threading.Event()

        def alive() -> None:
            if given_up.is_set():
                raise JournalError("finding the position in the journal was aborted")

        seeking = asyncio.ensure_future(asyncio.to_thread(reader.seek, self._known, alive))
        try:
            # Shielded, since a thread can't be cancelled, and the reader may only be used by one thread at a time.
            await self._await_with_heartbeat(asyncio.shield(seeking))
        finally:
            given_up.set()
            await asyncio.wait({seeking})
            seeking.exception()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    async def _store_and_read(self, store: JournalStore, chunk: _Chunk) -> _Chunk:
        """Store CHUNK while the next one is read."""
        reading = asyncio.create_task(self._read())
        try:
            await self._store_if_needed(store, chunk)
            self._recovered()
            self._update_status(chunk)
            return await reading
        finally:
            # After a failure `_resume` reads this batch again, from the stored position.
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            elif not reading.cancelled():
                reading.exception()

    async def _read(self) -> _Chunk:
        """Read the next batch, up to its maximum size. Raises JournalError."""
        assert self._reader is not None
        chunk, assembler, size, read = _Chunk(), self._assembler, 0, 0
        now = time.monotonic()
        if now - self._read_at > _UNNOTICED_SECONDS:
            self._active_at = now
        self._read_at = now
        while True:
            batch = self._reader.read(SLICE_ENTRIES, _SLICE_BYTES)
            for gap in batch.gaps:
                chunk.rows.append(gap_row(gap, self._account.hostname))
            if batch.entries:
                self._active_at = time.monotonic()
                with self._watchdog:
                    assembler.take(batch.entries)
                    self._check_clock(chunk, batch.entries)
            chunk.position = batch.position or chunk.position
            with self._watchdog:
                self._expire(batch.at_end, batch.position)
            self._log_faults(assembler)
            chunk.rows += assembler.rows
            chunk.posted += assembler.posted
            assembler.rows, assembler.posted = [], []
            finished = batch.position is not None and batch.position.finished
            size += batch.size + 512 * len(batch.entries)
            read += len(batch.entries)
            full = max(size / CHUNK_BYTES, len(chunk.rows) / self._max_rows)
            if batch.at_end or finished or full >= 1:
                # Missed lines have to be in the same batch: after its position is stored, none before it are compared.
                look = not finished and full < _FULL_WITH_MISSED and (full >= 1 or read > _COMPARE_AFTER)
                if not (look and self._reader.find_missed_entries()):
                    break
            await asyncio.sleep(0)
        chunk.at_end = batch.at_end
        self._max_rows = min(_FIRST_ROWS if batch.at_end else 2 * self._max_rows, CHUNK_ROWS)
        if chunk.position is not None:  # else there is nothing with which it could be stored
            damaged = [file for file in self._find_damaged() if file.file_id not in self._reported]
            chunk.rows += [gap_row(_gap_of(file), self._account.hostname) for file in damaged]
            self._reported += [file.file_id for file in damaged]
        joining = assembler.state()
        chunk.kept = ({_JOINING: joining} if joining else {}) | (
            {_REPORTED: self._reported[-100:]} if self._reported else {}
        )
        return chunk

    def _log_faults(self, assembler: Assembler) -> None:
        """Log entries that could not be parsed, and formats that were disabled."""
        if assembler.runaways:
            self._formats = assembler.formats
            for name in assembler.runaways:
                _log.warning("%s", disabled_sentence(name))
            self.disabled += assembler.runaways
            assembler.runaways = []
            self._status_at = 0.0
        if assembler.faults:
            (where, fault), *others = assembler.faults
            more = f", and {len(others):,} more" if others else ""
            _log.warning("%s%s can't be parsed and is stored as text: %s: %s", where, more, type(fault).__name__, fault)
            assembler.faults = []

    def _check_clock(self, chunk: _Chunk, entries: tuple[Any, ...]) -> None:
        last = entries[-1]
        if steps := clock_steps(self._clocks.get(last.boot_id), entries, self._account.hostname):
            # The age of a line is unknown across a step. At worst an entry is stored in two parts.
            self._assembler.finish_all()
            chunk.rows += steps
        self._clocks[last.boot_id] = last.realtime - last.monotonic

    def _expire(self, at_end: bool, position: Position | None) -> None:
        """Finish entries to which no line was added for a while, and all entries of an earlier boot at its end."""
        if not len(self._assembler) or position is None:
            return
        quiet = 1_000_000 * (time.monotonic() - self._active_at)
        if position.finished or (at_end and quiet > HOLD_INCOMPLETE):
            self._assembler.finish_all()
        elif at_end:
            # Not by the age of lines: the last line of a file that journald has rotated is old when it is read.
            before = MAX_REALTIME if quiet > HOLD_AT_REST else position.realtime - HOLD
            self._assembler.expire(before, position.realtime - HOLD_INCOMPLETE)
        else:
            self._assembler.expire(position.realtime - HOLD_INCOMPLETE)

    def _find_damaged(self) -> list[Truncated]:
        now = time.monotonic()
        if now < self._damage_due:
            return []
        self._damage_due = now + _DAMAGE_SECONDS
        return self._damaged()

    def _needs_commit(self, chunk: _Chunk) -> bool:
        """Return whether there is something to commit. A new position alone is stored every _POSITION_SECONDS."""
        position = chunk.position
        if position is None:
            return False
        if chunk.rows or chunk.posted:
            return True
        if position == self._known.get(position.boot_id) and chunk.kept == self._kept:
            return False
        waited = time.monotonic() - self._stored_at
        return position.finished or chunk.kept != self._kept or waited > _POSITION_SECONDS

    async def _store_if_needed(self, store: JournalStore, chunk: _Chunk) -> None:
        if chunk.position is None or not self._needs_commit(chunk):
            return
        boot_id = chunk.position.boot_id
        await store.append(chunk.rows, chunk.position, self._known.get(boot_id), chunk.kept, chunk.posted)
        self._known[boot_id] = chunk.position
        self._kept = chunk.kept
        self._stored_at = time.monotonic()
        self._rows += len(chunk.rows) + len(chunk.posted)
        # Free their memory now: the batch is referenced until the next one is read.
        chunk.rows, chunk.posted = [], []

    async def _wait_for_entries(self) -> None:
        """Wait until the journal has more entries, or an unfinished entry, a keepalive or new files are due."""
        assert self._reader is not None
        active = time.monotonic() - self._active_at < _ACTIVE_SECONDS
        # A poll costs a tenth of sd_journal_wait(3), whose notification also comes a quarter of a second late.
        for _ in range(_POLLS):
            await asyncio.sleep(_POLL if active else _QUIET_POLL)
            if self._reader.has_more():
                return
            if len(self._assembler):
                break
        await self._reader.wait(_POLL)
        self._read_at = time.monotonic()

    async def _wait_for_space(self) -> None:
        """Wait while the disk is too full. journald limits the size of the journal meanwhile."""
        if time.monotonic() - self._disk_at < _DISK_SECONDS:
            return
        while full := self._full():
            self._report_failure(StoreError(full))
            self._heartbeat()
            await asyncio.sleep(_LONGEST_PAUSE)
        self._disk_at = time.monotonic()

    def _report_failure(self, error: HelmError) -> None:
        """Show ERROR in the status; log it only if it is a new one, since this log is read here and stored, too."""
        if error.sentence != self._trouble:
            level = logging.INFO if isinstance(error, IngestTakenError) else logging.WARNING
            _log.log(level, "%s; new lines stay in the journal until this is corrected", error.sentence)
        self._trouble = error.sentence
        self._set_status(f"{WAITING}{error.sentence}; {self._rows:,} rows stored since the start")
        self._status_at = 0.0

    def _recovered(self) -> None:
        if self._trouble:
            _log.info("log entries are stored again")
        self._trouble, self._pause = "", _FIRST_PAUSE

    def _update_status(self, chunk: _Chunk) -> None:
        now = time.monotonic()
        passed = now - self._status_at
        caught_up = chunk.at_end and not self._at_end
        self._at_end = chunk.at_end
        if passed < _STATUS_SECONDS and not caught_up:
            return
        rate = (self._rows - self._rows_at_status) / passed if self._status_at else 0.0
        self._status_at, self._rows_at_status = now, self._rows
        if chunk.position is None:
            self._set_status("the journal has nothing of this account yet")
            return
        lag = 0.0 if chunk.at_end else max(0.0, time.time() - chunk.position.realtime / 1_000_000)
        place = datetime_of(chunk.position.realtime).isoformat(timespec="milliseconds")
        disabled = f"; formats {DISABLED}: {', '.join(self.disabled)}" if self.disabled else ""
        self._set_status(
            f"stored up to {place}, lag {lag:.1f} s, {rate:,.0f} rows/s, {self._rows:,} rows since the start{disabled}"
        )


def _gap_of(file: Truncated) -> Gap:
    return Gap(file.first, max(file.first, file.last), Missing.UNREADABLE)
