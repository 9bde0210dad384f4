"""From the journal to the store: every line of the suite's services exactly once, whichever process dies in between.

Rows, the position behind them and what is still being joined commit together, and a position only replaces the one from
which was read on. So nothing has to be repaired after a failure: the stored position says where to go on, and the
journal is the buffer. While one batch is stored the next one is read and parsed; there are never more.

An entry that cannot be parsed or stored is stored as text or reported (`Assembler`, `JournalStore.append`), and ingest
goes on.
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
from helmd.model.logs.parsing.journal_entries import EVER, Assembler
from helmd.model.logs.parsing.journal_fields import JournalEntry, gap_row
from helmd.model.logs.parsing.parsed import DISABLED, Formats
from helmd.model.logs.parsing.position import Gap, Missing, Position
from helmd.model.units.unit_state import WAITING
from helmd.operations.logs.pattern_watchdog import PatternWatchdog, disabled_sentence
from helmd.store.ingest.journal import IngestTakenError, JournalStore, PositionMovedError

CHUNK_ROWS = 16_000
CHUNK_BYTES = 24 * 1024 * 1024
"""Bounds of what is stored in one transaction; two such batches are in memory at most."""
_FIRST_ROWS = 1_000
"""How many rows the first one of a backlog has; each further one has twice as many. So a burst takes little memory, of
which Python gives back only what is free as a whole.
"""
_FULL_WITH_FOUND = 4
"""So many times as much is stored at once when lines that were passed by are found."""
_LOOK_AFTER = 250
"""After so many entries it is looked for lines that were passed by; fewer come in as they are written."""
SLICE_ENTRIES = 250
_SLICE_BYTES = 4 * 1024 * 1024
"""What is read at once, between looks at the connection: the server must not wait for its next rows."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_IDLE_SECONDS = 5.0
"""How often to show that we are alive during work that takes long."""
_LIVELY_SECONDS = 5.0
_POLL, _QUIET_POLL = 0.02, 0.1
"""How often the journal is looked at while lines come, and else."""
_LOOKS = 10
"""After so many it is listened to for once: new files are seen only then."""
HOLD, HOLD_AT_REST, HOLD_IN_THE_MIDDLE = 150_000, 1_000_000, 2_000_000
"""Microseconds for which an error waits for lines that may belong to it: while journald writes other lines, while it
writes nothing (it stops between any two lines, for as long as it takes to begin a new file), and for the end of a
traceback."""
_UNWRITTEN_SECONDS = 30.0
"""How far a position may run ahead of the stored one while nothing of the suite passes by."""
_STATUS_SECONDS = 2.0
_DISK_SECONDS = 5.0
_UNREAD_SECONDS = 0.5
"""After so long without listening to the journal it is not known to be quiet: a new file may not have been noticed."""
_DAMAGE_SECONDS = 600.0
"""How often damaged files are looked for."""
_JOINING, _REPORTED = "joining", "told"
"""Keys of what is stored with the position: unfinished entries, and the damaged files that were reported."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose journal it is, and where."""

    uid: int
    machine_id: str
    boot_id: str
    hostname: str


@dataclass(slots=True)
class _Chunk:
    """What goes into the store in one transaction."""

    rows: list[LogRow] = field(default_factory=list)
    posted: list[PostedRow] = field(default_factory=list)
    position: Position | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    at_end: bool = False


class Ingest:
    """The loop. ``prepare`` runs before the store is first used (migrations); ``beat`` is called on all progress;
    ``say`` takes a sentence on the current state, for systemctl status; ``own`` reads the entries that Helm wrote
    itself; ``full`` gives a sentence when the disk is too full to store more, else nothing; ``damaged`` looks for
    damaged journal files. To be run in the main thread (`PatternWatchdog`).
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
        say: Callable[[str], None],
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
        self._beat = beat
        self._say = say
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
        self._stored_at = self._lively_at = self._read_at = time.monotonic()
        self._disk_at = self._said_at = 0.0
        self._at_end = False
        self._most_rows = min(_FIRST_ROWS, CHUNK_ROWS)
        self._rows = 0
        self._rows_said = 0

    async def run(self) -> NoReturn:
        """Run until cancelled; while the store or the journal is unavailable, try again and again."""
        try:
            while True:
                try:
                    await self._session()
                except (StoreError, JournalError) as error:
                    if isinstance(error, JournalError | PositionMovedError):
                        self._close_reader()
                    self._complain(error)
                    self._beat()
                    await asyncio.sleep(self._pause)
                    self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        finally:
            self._close_reader()

    async def _session(self) -> NoReturn:
        """Store batch after batch on one connection, until it fails."""
        if not self._prepared:
            await self._beating(asyncio.ensure_future(self._prepare()))
            self._prepared = True
        store = await self._open_store()
        try:
            await self._stand(store)
            chunk = await self._read()
            while True:
                self._beat()
                await self._wait_for_space()
                if chunk.at_end or not self._worth_storing(chunk):
                    await self._store_if_worth(store, chunk)
                    self._recovered()
                    self._update_status(chunk)
                    if chunk.at_end:
                        await self._rest()
                    chunk = await self._read()
                else:
                    chunk = await self._store_and_read(store, chunk)
        finally:
            await store.close()

    async def _beating(self, work: asyncio.Future[None]) -> None:
        """Wait for WORK that may take longer than the watchdog's limit, such as migrating large tables."""
        try:
            while not work.done():
                self._beat()
                await asyncio.wait({work}, timeout=_IDLE_SECONDS)
            work.result()
        finally:
            work.cancel()

    async def _stand(self, store: JournalStore) -> None:
        """Go on at the stored position, with the unfinished entries of it. Files stay open: they may be deleted."""
        self._known = await store.positions()
        if self._reader is None:
            self._reader = self._open_reader()
        await self._seek(self._reader)
        self._kept = kept = await store.kept(self._reader.boot_id)
        try:
            self._assembler = Assembler(self._formats, kept.get(_JOINING), self._own, self._health_paths)
        except (ValueError, TypeError):
            _log.warning("what was stored of unfinished log entries can't be read; they are dropped")
            self._assembler = Assembler(self._formats, own=self._own, health_paths=self._health_paths)
        reported = kept.get(_REPORTED)
        self._reported = [str(number) for number in reported] if isinstance(reported, list) else []
        self._clocks = {boot: position.realtime - position.monotonic for boot, position in self._known.items()}

    async def _seek(self, reader: JournalReader) -> None:
        """Move the reader to the stored position. In a thread: it may take longer than the watchdog's limit."""
        given_up = threading.Event()

        def alive() -> None:
            if given_up.is_set():
                raise JournalError("finding the place in the journal was given up")

        seeking = asyncio.ensure_future(asyncio.to_thread(reader.seek, self._known, alive))
        try:
            # Shielded, since a thread can't be cancelled, and nobody may touch the reader before it has let go of it.
            await self._beating(asyncio.shield(seeking))
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
            await self._store_if_worth(store, chunk)
            self._recovered()
            self._update_status(chunk)
            return await reading
        finally:
            # What was read and not stored is read again: `_stand` starts from what is stored.
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            elif not reading.cancelled():
                reading.exception()

    async def _read(self) -> _Chunk:
        """Read the next batch: as much as there is, within its bounds."""
        assert self._reader is not None
        chunk, assembler, size, read = _Chunk(), self._assembler, 0, 0
        now = time.monotonic()
        if now - self._read_at > _UNREAD_SECONDS:
            self._lively_at = now
        self._read_at = now
        while True:
            batch = self._reader.read(SLICE_ENTRIES, _SLICE_BYTES)
            for gap in batch.gaps:
                chunk.rows.append(gap_row(gap, self._account.hostname))
            if batch.entries:
                self._lively_at = time.monotonic()
                with self._watchdog:
                    assembler.take(batch.entries)
                self._see_clock(chunk, batch.entries)
            chunk.position = batch.position or chunk.position
            with self._watchdog:
                self._expire(batch.at_end, batch.position)
            self._report_faults(assembler)
            chunk.rows += assembler.rows
            chunk.posted += assembler.posted
            assembler.rows, assembler.posted = [], []
            finished = batch.position is not None and batch.position.finished
            size += batch.text + 512 * len(batch.entries)
            read += len(batch.entries)
            full = max(size / CHUNK_BYTES, len(chunk.rows) / self._most_rows)
            if batch.at_end or finished or full >= 1:
                # Lines that were passed by are stored with those around them: later, nobody looks before a position.
                look = not finished and full < _FULL_WITH_FOUND and (full >= 1 or read > _LOOK_AFTER)
                if not (look and self._reader.passed_by_entries()):
                    break
            await asyncio.sleep(0)
        chunk.at_end = batch.at_end
        self._most_rows = min(_FIRST_ROWS if batch.at_end else 2 * self._most_rows, CHUNK_ROWS)
        if chunk.position is not None:  # else there is nothing with which it could be stored
            damaged = [file for file in self._look_for_damage() if file.file_id not in self._reported]
            chunk.rows += [gap_row(_gap_of(file), self._account.hostname) for file in damaged]
            self._reported += [file.file_id for file in damaged]
        joining = assembler.state()
        chunk.kept = ({_JOINING: joining} if joining else {}) | (
            {_REPORTED: self._reported[-100:]} if self._reported else {}
        )
        return chunk

    def _report_faults(self, assembler: Assembler) -> None:
        """Log what went wrong with entries; helmd-journal's own log is in the journal, and so in the store."""
        if assembler.runaways:
            self._formats = assembler.formats
            for name in assembler.runaways:
                _log.warning("%s", disabled_sentence(name))
            self.disabled += assembler.runaways
            assembler.runaways = []
            self._said_at = 0.0
        if assembler.faults:
            (where, fault), *others = assembler.faults
            more = f", and {len(others):,} more" if others else ""
            _log.warning("%s%s can't be parsed and is stored as text: %s: %s", where, more, type(fault).__name__, fault)
            assembler.faults = []

    def _see_clock(self, chunk: _Chunk, entries: tuple[Any, ...]) -> None:
        last = entries[-1]
        if steps := clock_steps(self._clocks.get(last.boot_id), entries, self._account.hostname):
            # The age of a line is unknown across a step. At worst an entry is stored in two parts.
            self._assembler.let_go()
            chunk.rows += steps
        self._clocks[last.boot_id] = last.realtime - last.monotonic

    def _expire(self, at_end: bool, position: Position | None) -> None:
        """Finish entries to which no line was added for a while, and all of a boot that is over."""
        if not len(self._assembler) or position is None:
            return
        quiet = 1_000_000 * (time.monotonic() - self._lively_at)
        if position.finished or (at_end and quiet > HOLD_IN_THE_MIDDLE):
            self._assembler.let_go()
        elif at_end:
            # Not by the age of lines: in a file that journald has replaced, its last line is old when it is read.
            before = EVER if quiet > HOLD_AT_REST else position.realtime - HOLD
            self._assembler.expire(before, position.realtime - HOLD_IN_THE_MIDDLE)
        else:
            self._assembler.expire(position.realtime - HOLD_IN_THE_MIDDLE)

    def _look_for_damage(self) -> list[Truncated]:
        now = time.monotonic()
        if now < self._damage_due:
            return []
        self._damage_due = now + _DAMAGE_SECONDS
        return self._damaged()

    def _worth_storing(self, chunk: _Chunk) -> bool:
        """Return whether there is something to commit; entries of other programs alone move the position only every 30
        s.
        """
        position = chunk.position
        if position is None:
            return False
        if chunk.rows or chunk.posted:
            return True
        if position == self._known.get(position.boot_id) and chunk.kept == self._kept:
            return False
        waited = time.monotonic() - self._stored_at
        return position.finished or chunk.kept != self._kept or waited > _UNWRITTEN_SECONDS

    async def _store_if_worth(self, store: JournalStore, chunk: _Chunk) -> None:
        if chunk.position is None or not self._worth_storing(chunk):
            return
        boot_id = chunk.position.boot_id
        await store.append(chunk.rows, chunk.position, self._known.get(boot_id), chunk.kept, chunk.posted)
        self._known[boot_id] = chunk.position
        self._kept = chunk.kept
        self._stored_at = time.monotonic()
        self._rows += len(chunk.rows) + len(chunk.posted)
        # Not kept until there is something new to read.
        chunk.rows, chunk.posted = [], []

    async def _rest(self) -> None:
        """Wait until the journal has more, or for an open entry, a keepalive of the watchdog, or new files."""
        assert self._reader is not None
        lively = time.monotonic() - self._lively_at < _LIVELY_SECONDS
        # A look costs a tenth of listening for journald's word, which comes a quarter of a second late besides.
        for _ in range(_LOOKS):
            await asyncio.sleep(_POLL if lively else _QUIET_POLL)
            if self._reader.has_more():
                return
            if len(self._assembler):
                break
        await self._reader.wait(_POLL)
        self._read_at = time.monotonic()

    async def _wait_for_space(self) -> None:
        """Wait while the disk is too full; the journal keeps its own bounds meanwhile."""
        if time.monotonic() - self._disk_at < _DISK_SECONDS:
            return
        while full := self._full():
            self._complain(StoreError(full))
            self._beat()
            await asyncio.sleep(_LONGEST_PAUSE)
        self._disk_at = time.monotonic()

    def _complain(self, error: HelmError) -> None:
        """Report ERROR; in the log once for each new one, since the log is read here as lines to store."""
        if error.sentence != self._trouble:
            level = logging.INFO if isinstance(error, IngestTakenError) else logging.WARNING
            _log.log(level, "%s; new lines stay in the journal until this is corrected", error.sentence)
        self._trouble = error.sentence
        self._say(f"{WAITING}{error.sentence}; {self._rows:,} rows stored since the start")
        self._said_at = 0.0

    def _recovered(self) -> None:
        if self._trouble:
            _log.info("storing again")
        self._trouble, self._pause = "", _FIRST_PAUSE

    def _update_status(self, chunk: _Chunk) -> None:
        now = time.monotonic()
        passed = now - self._said_at
        caught_up = chunk.at_end and not self._at_end
        self._at_end = chunk.at_end
        if passed < _STATUS_SECONDS and not caught_up:
            return
        rate = (self._rows - self._rows_said) / passed if self._said_at else 0.0
        self._said_at, self._rows_said = now, self._rows
        if chunk.position is None:
            self._say("the journal has nothing of this account yet")
            return
        lag = 0.0 if chunk.at_end else max(0.0, time.time() - chunk.position.realtime / 1_000_000)
        place = datetime_of(chunk.position.realtime).isoformat(timespec="milliseconds")
        disabled = f"; formats {DISABLED}: {', '.join(self.disabled)}" if self.disabled else ""
        self._say(
            f"stored up to {place}, lag {lag:.1f} s, {rate:,.0f} rows/s, {self._rows:,} rows since the start{disabled}"
        )


def _gap_of(file: Truncated) -> Gap:
    return Gap(file.first, max(file.first, file.last), Missing.UNREADABLE)
