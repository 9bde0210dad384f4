"""The journal into the store: every line of the suite's services exactly once, whatever dies in between.

Rows and the position behind them commit together, and a position only replaces the one it was read on from. So there
is nothing to make good after a failure: the stored position says where to read on, and the journal is the buffer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from helmd.journal.reader import JournalError, JournalReader
from helmd.model.errors import HelmError, StoreError
from helmd.model.position import Position
from helmd.model.row import LogRow, gap_row, moment, row_of
from helmd.store.journal import IngestTakenError, JournalStore, PositionMovedError

BATCH_ENTRIES = 2_000
BATCH_BYTES = 4 * 1024 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_IDLE_SECONDS = 5.0
"""How long to wait for the journal before showing that we are alive."""
_UNWRITTEN_SECONDS = 30.0
"""How far a position may run ahead of the stored one while nothing of the suite passes by."""
_STATUS_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose journal it is, and where."""

    uid: int
    machine_id: str
    boot_id: str
    hostname: str


@dataclass(frozen=True, slots=True)
class _Portion:
    """What goes into the store in one transaction."""

    rows: tuple[LogRow, ...]
    position: Position | None
    at_end: bool


class Ingest:
    """The loop. ``prepare`` runs before the store is first used (migrations); ``beat`` is called on all progress;
    ``say`` takes a sentence on how things stand, for systemctl status.
    """

    def __init__(
        self,
        account: Account,
        open_reader: Callable[[], JournalReader],
        open_store: Callable[[], Awaitable[JournalStore]],
        *,
        prepare: Callable[[], Awaitable[None]],
        beat: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._account = account
        self._open_reader = open_reader
        self._open_store = open_store
        self._prepare = prepare
        self._beat = beat
        self._say = say
        self._prepared = False
        self._trouble = ""
        self._pause = _FIRST_PAUSE
        self._reader: JournalReader | None = None
        self._known: dict[str, Position] = {}
        self._kept: _Portion | None = None
        self._stored_at = time.monotonic()
        self._said_at = 0.0
        self._at_end = False
        self._rows = 0
        self._rows_said = 0

    async def run(self) -> NoReturn:
        """Go on until cancelled; outages of store and journal are waited out."""
        try:
            while True:
                try:
                    await self._session()
                except (StoreError, JournalError) as error:
                    if isinstance(error, JournalError | PositionMovedError):
                        self._forget_place()
                    self._complain(error)
                    self._beat()
                    await asyncio.sleep(self._pause)
                    self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        finally:
            self._forget_place()

    async def _session(self) -> NoReturn:
        """Store batch after batch on one connection, until it fails."""
        if not self._prepared:
            await self._beating(asyncio.ensure_future(self._prepare()))
            self._prepared = True
        store = await self._open_store()
        try:
            self._agree(await store.positions())
            while True:
                self._beat()
                portion = self._kept or self._read()
                if self._worth_storing(portion):
                    await self._store(store, portion)
                self._kept = None
                self._recovered()
                self._tell(portion)
                if portion.at_end:
                    await self._opened().wait(_IDLE_SECONDS)
                else:
                    await asyncio.sleep(0)
        finally:
            await store.close()

    async def _beating(self, work: asyncio.Future[None]) -> None:
        """Wait for WORK that may rightly take longer than the watchdog's patience: a migration of large tables."""
        try:
            while not work.done():
                self._beat()
                await asyncio.wait({work}, timeout=_IDLE_SECONDS)
            work.result()
        finally:
            work.cancel()

    def _agree(self, stored: dict[str, Position]) -> None:
        """Go on where the store stands: with the batch in hand if its commit did not happen, behind it if it did."""
        if self._reader is not None and stored == self._known:
            return
        self._known = stored
        self._kept = None
        self._opened().seek(stored)

    def _opened(self) -> JournalReader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _forget_place(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._kept = None

    def _read(self) -> _Portion:
        batch = self._opened().read(BATCH_ENTRIES, BATCH_BYTES)
        gaps = [gap_row(gap, self._account.hostname) for gap in batch.gaps]
        rows = [row for entry in batch.entries if (row := row_of(entry)) is not None]
        return _Portion((*gaps, *rows), batch.position, batch.at_end)

    def _worth_storing(self, portion: _Portion) -> bool:
        """Whether there is something to commit; entries of strangers alone move the position only now and then."""
        if portion.position is None or portion.position == self._known.get(portion.position.boot_id):
            return False
        waited = time.monotonic() - self._stored_at
        return bool(portion.rows) or portion.position.finished or waited > _UNWRITTEN_SECONDS

    async def _store(self, store: JournalStore, portion: _Portion) -> None:
        assert portion.position is not None
        self._kept = portion
        boot_id = portion.position.boot_id
        await store.append(portion.rows, portion.position, self._known.get(boot_id))
        self._known[boot_id] = portion.position
        self._stored_at = time.monotonic()
        self._rows += len(portion.rows)

    def _complain(self, error: HelmError) -> None:
        """Say what is wrong; in the log once for each new trouble, since that log comes back here as lines to store."""
        if error.sentence != self._trouble:
            level = logging.INFO if isinstance(error, IngestTakenError) else logging.WARNING
            _log.log(level, "%s; the journal keeps what comes until it is mended", error.sentence)
        self._trouble = error.sentence
        self._say(f"waiting: {error.sentence}; {self._rows:,} rows stored since the start")
        self._said_at = 0.0

    def _recovered(self) -> None:
        if self._trouble:
            _log.info("storing again")
        self._trouble, self._pause = "", _FIRST_PAUSE

    def _tell(self, portion: _Portion) -> None:
        now = time.monotonic()
        passed = now - self._said_at
        caught_up = portion.at_end and not self._at_end
        self._at_end = portion.at_end
        if passed < _STATUS_SECONDS and not caught_up:
            return
        rate = (self._rows - self._rows_said) / passed if self._said_at else 0.0
        self._said_at, self._rows_said = now, self._rows
        if portion.position is None:
            self._say("the journal has nothing of this account yet")
            return
        lag = 0.0 if portion.at_end else max(0.0, time.time() - portion.position.realtime / 1_000_000)
        place = moment(portion.position.realtime).isoformat(timespec="milliseconds")
        self._say(f"stored up to {place}, lag {lag:.1f} s, {rate:,.0f} rows/s, {self._rows:,} rows since the start")
