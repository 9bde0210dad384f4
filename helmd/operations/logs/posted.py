"""Storing posted entries: one task commits all waiting batches. The journal buffers them during outages of the store.

Each batch has an id that is stored with its rows. So if the outcome of a commit is unknown, or helmd is stopped
meanwhile, the batch is written to the journal anyway: the id shows whether it is in the store already.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn
from uuid import uuid4

from helmd.health.thread_pool import ThreadPool
from helmd.journal.reader import JournalError
from helmd.model.errors import StoreError
from helmd.model.ingest.journal_codec import all_posted
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import LogRow
from helmd.store.ingest.requests import PostedStore, RefusedError, Request

_GROUP_ROWS = 10_000
_GROUP_BYTES = 8 << 20
"""Maximum size of a transaction; a single batch may be larger."""
_OPEN_SECONDS = 0.7
"""Maximum time in seconds to wait for a connection to the store."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
"""Delay before the store is tried again after a failure, at first and at most, in seconds."""
_JOURNAL_SECONDS = 2.0
"""Maximum time in seconds to wait until journald has taken a batch."""
_KEPT_KEYS = 10_000
"""Maximum number of idempotency keys remembered of batches in the journal."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A batch, and the future for the number of entries that it, or the first one with its key, had."""

    service: str
    key: str | None
    rows: Sequence[LogRow]
    size: int
    answer: "asyncio.Future[int]"
    id: str = ""

    def settle(self, entries: int) -> None:
        if not self.answer.done():
            self.answer.set_result(entries)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class PostedLogs:
    """`post` queues batches, `run` stores them. Callers have to bound the size of the queue; each awaits its result.

    ``write`` writes rows to the journal, and blocks. ``paused`` says whether nothing may be stored, since the file
    system is nearly full.
    """

    def __init__(
        self,
        open_store: Callable[[], Awaitable[PostedStore]],
        write: Callable[[Iterable[PostedRow]], None],
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._open_store = open_store
        self._write = write
        self._paused = paused
        # A thread of its own: while journald is stopped, writing blocks, which must not block other work.
        self._threads = ThreadPool(1)
        self._queue: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._group: list[_Waiting] = []
        self._store: PostedStore | None = None
        self._retry_at = 0.0
        self._pause = _FIRST_PAUSE
        self._ended = False
        # Keys of batches in the journal, which are not in the store yet.
        self._journalled: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.trouble = ""
        """Why the store can't be written at present, as a sentence; empty if it can."""

    async def post(self, service: str, rows: Sequence[LogRow], key: str | None, size: int) -> int:
        """Store ROWS of one SERVICE, SIZE bytes; return their number, or that of the first batch with KEY.

        Returns once they are in the store or the journal. Raises JournalError if neither can be written, StoreError if
        the store refuses the rows.
        """
        waiting = _Waiting(service, key, rows, size, asyncio.get_running_loop().create_future())
        if self._ended:
            self._write_remaining([waiting])
        else:
            self._queue.append(waiting)
            self._changed.set()
        return await waiting.answer

    async def run(self) -> NoReturn:
        """Run until cancelled; batches that are waiting then are written to the journal."""
        try:
            while True:
                await self._changed.wait()
                self._group = self._next_group()
                await self._store_group(self._group)
                self._group = []
        finally:
            self._ended = True
            self._write_remaining([*self._group, *self._queue])
            self._queue.clear()
            await self._close()

    def _next_group(self) -> list[_Waiting]:
        """Return the next batches to commit, as many as fit into a transaction."""
        group: list[_Waiting] = []
        rows = size = 0
        while self._queue:
            first = self._queue[0]
            rows, size = rows + len(first.rows), size + first.size
            if group and (rows > _GROUP_ROWS or size > _GROUP_BYTES):
                break
            group.append(self._queue.popleft())
        if not self._queue:
            self._changed.clear()
        return group

    async def _store_group(self, waiting: Sequence[_Waiting]) -> None:
        """Commit batches to the store, or write them to the journal; set their results."""
        group = [one for one in waiting if not self._repeats_journalled(one)]
        if not group:
            return
        _assign_ids(group)
        if self._paused() or time.monotonic() < self._retry_at:
            await self._to_journal(group)
            return
        begun = time.monotonic()
        fresh = self._store is None
        try:
            try:
                await self._to_store(group)
            except RefusedError:
                raise
            except StoreError:
                # An old connection may have been closed by the server meanwhile.
                if fresh or time.monotonic() - begun > _OPEN_SECONDS:
                    raise
                await self._to_store(group)
        except RefusedError as error:
            await self._one_by_one(group, error)
        except StoreError as error:
            self._report_failure(error)
            await self._to_journal(group)
        else:
            self._recovered()

    async def _to_store(self, group: Sequence[_Waiting]) -> None:
        store, self._store = self._store or await self._opened(), None
        answers = await store.append(
            [Request(one.id, one.service, one.key, len(one.rows)) for one in group], [one.rows for one in group]
        )
        self._store = store
        for one, entries in zip(group, answers, strict=True):
            one.settle(entries)

    async def _opened(self) -> PostedStore:
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                return await self._open_store()
        except TimeoutError:
            raise StoreError("the log store can't be reached: it does not answer") from None

    async def _one_by_one(self, group: Sequence[_Waiting], error: RefusedError) -> None:
        """Store the batches separately, so that an invalid one fails alone and is not written to the journal."""
        if len(group) == 1:
            _log.error("a batch of %s is refused: %s", group[0].service, error.sentence)
            group[0].fail(error)
            return
        for one in group:
            one.id = ""
            await self._store_group([one])

    async def _to_journal(self, group: Sequence[_Waiting]) -> None:
        writing = asyncio.ensure_future(self._threads.run(lambda: self._write(_rows_of(group))))
        try:
            await asyncio.wait({writing}, timeout=_JOURNAL_SECONDS)
        except asyncio.CancelledError:
            # The thread continues, so the batches must not be written again.
            await asyncio.wait({writing}, timeout=_JOURNAL_SECONDS)
            raise
        finally:
            if not writing.done():
                writing.cancel()
                self._refuse(group, JournalError("the journal can't be written: journald does not answer"))
            else:
                self._settle(group, writing.result)

    def _settle(self, group: Sequence[_Waiting], wrote: Callable[[], None]) -> None:
        """Set the results of GROUP. WROTE raises JournalError if the journal could not be written."""
        try:
            wrote()
        except JournalError as error:
            self._refuse(group, error)
        else:
            self._mark_journalled(group)

    def _write_remaining(self, left: Sequence[_Waiting]) -> None:
        """Write the batches LEFT to the journal, blocking the event loop: helmd is stopping."""
        group = [one for one in left if not one.answer.done() and not self._repeats_journalled(one)]
        if not group:
            return
        _assign_ids(group)
        self._settle(group, lambda: self._write(_rows_of(group)))

    def _mark_journalled(self, group: Sequence[_Waiting]) -> None:
        for one in group:
            if one.key is not None:
                first = self._journalled.setdefault((one.service, one.key), len(one.rows))
                one.settle(first)
            one.settle(len(one.rows))
        while len(self._journalled) > _KEPT_KEYS:
            self._journalled.popitem(last=False)

    def _repeats_journalled(self, one: _Waiting) -> bool:
        """Set the result of ONE if it repeats a batch in the journal; return whether it does."""
        if one.key is None or (first := self._journalled.get((one.service, one.key))) is None:
            return False
        one.settle(first)
        return True

    def _refuse(self, group: Sequence[_Waiting], error: JournalError) -> None:
        _log.error("there is no journal either, so posted batches (%d) are refused: %s", len(group), error.sentence)
        for one in group:
            one.fail(JournalError(error.sentence))

    def _report_failure(self, error: StoreError) -> None:
        if error.sentence != self.trouble:
            _log.warning("%s; posted entries are written to the journal meanwhile", error.sentence)
        self.trouble = error.sentence
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _recovered(self) -> None:
        if self.trouble:
            _log.info("posted entries are stored again")
        self.trouble, self._pause = "", _FIRST_PAUSE

    async def _close(self) -> None:
        if self._store is not None:
            await self._store.close()
            self._store = None


def _assign_ids(group: Iterable[_Waiting]) -> None:
    """Assign ids to batches. Those of a service without keys share one, which halves the work of the store."""
    shared: dict[str, str] = {}
    for one in group:
        if not one.id:
            one.id = str(uuid4()) if one.key is not None else shared.setdefault(one.service, str(uuid4()))


def _rows_of(group: Iterable[_Waiting]) -> list[PostedRow]:
    rows: list[PostedRow] = []
    counts: dict[str, int] = {}
    for one in group:
        first = counts.get(one.id, 0)
        rows += all_posted(one.rows, one.id, one.key, first)
        counts[one.id] = first + len(one.rows)
    return rows
