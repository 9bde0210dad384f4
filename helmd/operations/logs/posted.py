"""What is posted, into the store: one task commits all that waits; while the store is away the journal takes it.

Each batch has an id that the store remembers with its rows. So when a commit's outcome is unknown, or helmd ends in the
middle, the batch is put into the journal all the same: whoever stores it from there sees whether it is there already.
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
"""What is committed at once at most, but for a single batch that is larger."""
_OPEN_SECONDS = 0.7
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
"""How long the store is left alone after a failure; meanwhile the journal takes everything."""
_JOURNAL_SECONDS = 2.0
_KEPT_KEYS = 10_000

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A batch, and who waits to hear how many entries it, or the first one with its key, had."""

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
    """`post` takes batches, `run` stores them. How much waits is for who posts to bound: each waits for its answer.

    ``write`` puts rows into the journal, and blocks meanwhile. ``paused`` says whether the store is to be left alone,
    because its disk is nearly full.
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
        # A thread of its own: journald can be stopped, and what waits for it then must not hold up others.
        self._threads = ThreadPool(1)
        self._queue: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._group: list[_Waiting] = []
        self._store: PostedStore | None = None
        self._again_at = 0.0
        self._pause = _FIRST_PAUSE
        self._ended = False
        # Keys of batches in the journal, that reach the store only later.
        self._journalled: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.trouble = ""
        """Why the store can't be written right now, as a sentence; empty when it can."""

    async def post(self, service: str, rows: Sequence[LogRow], key: str | None, size: int) -> int:
        """Have ROWS of one SERVICE stored, which took SIZE bytes; return how many they are, or the first batch with KEY
        had.

        Returns once they are in the store or the journal. Raises JournalError when neither can be written, StoreError
        when the store refuses the rows.
        """
        waiting = _Waiting(service, key, rows, size, asyncio.get_running_loop().create_future())
        if self._ended:
            self._put_down([waiting])
        else:
            self._queue.append(waiting)
            self._changed.set()
        return await waiting.answer

    async def run(self) -> NoReturn:
        """Go on until cancelled; what waits then is put into the journal."""
        try:
            while True:
                await self._changed.wait()
                self._group = self._next_group()
                await self._take(self._group)
                self._group = []
        finally:
            self._ended = True
            self._put_down([*self._group, *self._queue])
            self._queue.clear()
            await self._close()

    def _next_group(self) -> list[_Waiting]:
        """Return what is to be committed next: of what waits as much as may go together."""
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

    async def _take(self, waiting: Sequence[_Waiting]) -> None:
        group = [one for one in waiting if not self._repeats_journalled(one)]
        if not group:
            return
        _number(group)
        if self._paused() or time.monotonic() < self._again_at:
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
                # A connection that was made long ago may just have been closed at the other end.
                if fresh or time.monotonic() - begun > _OPEN_SECONDS:
                    raise
                await self._to_store(group)
        except RefusedError as error:
            await self._one_by_one(group, error)
        except StoreError as error:
            self._complain(error)
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
        """So that a batch which can't be stored takes no others with it, and isn't left to the journal without end."""
        if len(group) == 1:
            _log.error("a batch of %s is refused: %s", group[0].service, error.sentence)
            group[0].fail(error)
            return
        for one in group:
            one.id = ""
            await self._take([one])

    async def _to_journal(self, group: Sequence[_Waiting]) -> None:
        writing = asyncio.ensure_future(self._threads.run(lambda: self._write(_rows_of(group))))
        try:
            await asyncio.wait({writing}, timeout=_JOURNAL_SECONDS)
        except asyncio.CancelledError:
            # It goes on in its thread, so it must not be put down again.
            await asyncio.wait({writing}, timeout=_JOURNAL_SECONDS)
            raise
        finally:
            if not writing.done():
                writing.cancel()
                self._refuse(group, JournalError("the journal can't be written: journald does not answer"))
            else:
                self._heard(group, writing.result)

    def _heard(self, group: Sequence[_Waiting], wrote: Callable[[], None]) -> None:
        """Answer GROUP by what WROTE does: it raises JournalError if the journal could not be written."""
        try:
            wrote()
        except JournalError as error:
            self._refuse(group, error)
        else:
            self._journalled_are(group)

    def _put_down(self, left: Sequence[_Waiting]) -> None:
        """Put what is LEFT into the journal without giving way: helmd ends."""
        group = [one for one in left if not one.answer.done() and not self._repeats_journalled(one)]
        if not group:
            return
        _number(group)
        self._heard(group, lambda: self._write(_rows_of(group)))

    def _journalled_are(self, group: Sequence[_Waiting]) -> None:
        for one in group:
            if one.key is not None:
                first = self._journalled.setdefault((one.service, one.key), len(one.rows))
                one.settle(first)
            one.settle(len(one.rows))
        while len(self._journalled) > _KEPT_KEYS:
            self._journalled.popitem(last=False)

    def _repeats_journalled(self, one: _Waiting) -> bool:
        """Return whether ONE repeats a batch that is in the journal; then it has its answer."""
        if one.key is None or (first := self._journalled.get((one.service, one.key))) is None:
            return False
        one.settle(first)
        return True

    def _refuse(self, group: Sequence[_Waiting], error: JournalError) -> None:
        _log.error("there is no journal either, so posted batches (%d) are refused: %s", len(group), error.sentence)
        for one in group:
            one.fail(JournalError(error.sentence))

    def _complain(self, error: StoreError) -> None:
        if error.sentence != self.trouble:
            _log.warning("%s; the journal takes it meanwhile", error.sentence)
        self.trouble = error.sentence
        self._again_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _recovered(self) -> None:
        if self.trouble:
            _log.info("posted entries are stored again")
        self.trouble, self._pause = "", _FIRST_PAUSE

    async def _close(self) -> None:
        if self._store is not None:
            await self._store.close()
            self._store = None


def _number(group: Iterable[_Waiting]) -> None:
    """Give each batch its id; those of a service without keys share one, which is half the work for the store."""
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
