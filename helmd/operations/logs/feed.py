"""Live followers: one task reads new entries from the store, after their commit, and delivers them to all followers.

So followers only see committed entries, whichever process stored them, and a follower resumes after the last id it saw.
Each has a bounded queue: a slow follower is notified of skipped entries, continues with the newest, and does not delay
others. If entries are stored faster than they can be delivered, the feed itself skips ahead and notifies all followers.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from helmd.model.errors import StoreError
from helmd.model.logs.filter import LogFilter
from helmd.model.logs.matching import matches
from helmd.model.logs.notify_payload import Announcement
from helmd.operations.logs.reader import BusyError
from helmd.store.logs.entries import StoredEntry
from helmd.store.logs.listen import Listener

MAX_FOLLOWERS = 500
QUEUE_BYTES = 512 << 10
"""Maximum size of a follower's queue; a single batch may be larger."""
BEHIND = 10_000
"""Maximum number of entries that the feed may be behind; with more it skips ahead."""
_CHUNK = 250
_CHUNK_BYTES = 2 << 20
_POLL_SECONDS = 5.0
"""Interval in seconds in which the store is polled without notification, which older versions did not send."""
_READY_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_SLICE_SECONDS = 0.01
"""Maximum time in seconds for which deliveries occupy the event loop."""
_DELIVERY_SECONDS = 40e-6
"""Estimated time of one delivery, in seconds, to fit as many as possible into _SLICE_SECONDS."""

_log = logging.getLogger(__name__)


class EntryJson(NamedTuple):
    """An entry as JSON, on one line, in ASCII without control characters."""

    id: int
    text: bytes


@dataclass(slots=True, eq=False)
class FeedBatch:
    """Entries that match a filter, shared by all followers with this filter. ``frames`` caches their encoding."""

    lines: tuple[EntryJson, ...]
    size: int
    frames: bytes = b""


def batch_of(lines: Sequence[EntryJson]) -> FeedBatch:
    """Return a batch of LINES, with their size in bytes."""
    return FeedBatch(tuple(lines), sum(len(line.text) for line in lines))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A range of ids, ``first`` to ``last``, that a follower did not receive, with at most ``count`` entries."""

    first: int
    last: int
    count: int
    at_most: bool = False

    def __add__(self, later: "Skipped") -> "Skipped":
        return Skipped(self.first, later.last, self.count + later.count, self.at_most or later.at_most)


@dataclass(frozen=True, slots=True)
class FeedUpdate:
    """An update for a follower: skipped entries, then new ones. It covers all ids up to ``reached``.

    ``leaves`` are the partitions to search for followers that read entries themselves; empty means all.
    """

    reached: int
    skipped: Skipped | None = None
    batches: tuple[FeedBatch, ...] = ()
    leaves: tuple[str, ...] = ()


class FeedEndedError(Exception):
    """helmd is stopping."""


class Subscription:
    """The queue of one follower: entries with ids above ``start``."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._reached = start
        self._queue: list[FeedBatch] = []
        self._size = 0
        self._skipped: Skipped | None = None
        self._leaves: frozenset[str] | None = frozenset()
        self._ended = False
        self._changed = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, seconds: float) -> FeedUpdate:
        """Wait for entries, at most for SECONDS; return those since the last call. Raises FeedEndedError."""
        if not self._changed and not self._ended:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._ended:
            raise FeedEndedError
        leaves = tuple(sorted(self._leaves)) if self._leaves is not None else ()
        update = FeedUpdate(self._reached, self._skipped, tuple(self._queue), leaves)
        self._queue, self._size, self._skipped, self._leaves, self._changed = [], 0, None, frozenset(), False
        return update

    def put(self, reached: int, batch: FeedBatch | None) -> None:
        """Append BATCH, if any; the queue then covers ids up to REACHED."""
        self._reached = reached
        if batch is None:
            return
        if self._queue and self._size + batch.size > QUEUE_BYTES:
            first, last = self._queue[0].lines[0].id, self._queue[-1].lines[-1].id
            lost = Skipped(first, last, sum(len(each.lines) for each in self._queue))
            self._skipped = self._skipped + lost if self._skipped else lost
            self._queue, self._size = [], 0
        self._queue.append(batch)
        self._size += batch.size
        self._notify()

    def moved(self, reached: int, leaves: Sequence[str]) -> None:
        """Notify a follower that reads entries itself that they exist up to REACHED."""
        self._reached = reached
        self._leaves = self._leaves | set(leaves) if leaves and self._leaves is not None else None
        self._notify()

    def skip(self, lost: Skipped) -> None:
        """Report LOST as skipped, along with all queued entries, since these precede them."""
        if self._queue:
            lost = Skipped(
                self._queue[0].lines[0].id, lost.last, lost.count + sum(len(each.lines) for each in self._queue), True
            )
        self._skipped = self._skipped + lost if self._skipped else lost
        self._queue, self._size, self._reached = [], 0, lost.last
        self._notify()

    def end(self) -> None:
        """Make `next` raise FeedEndedError."""
        self._ended = True
        self._wake()

    def _notify(self) -> None:
        self._changed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True)
class _Followers:
    """Followers grouped by filter, since equal filters get the same batches; and those that read entries themselves."""

    by_filter: dict[LogFilter, list[Subscription]] = field(default_factory=dict)
    pulling: list[Subscription] = field(default_factory=list)

    def __iter__(self) -> Iterator[Subscription]:
        for some in self.by_filter.values():
            yield from some
        yield from self.pulling

    @property
    def number(self) -> int:
        return sum(map(len, self.by_filter.values())) + len(self.pulling)


class Feed:
    """`run` reads and delivers entries, `subscribe` is for followers. OPEN_LISTENER connects to the store."""

    def __init__(self, open_listener: Callable[[], Awaitable[Listener]]) -> None:
        self._open_listener = open_listener
        self._followers = _Followers()
        self._position: int | None = None
        self._known = asyncio.Event()
        self._chunk_size = _CHUNK
        self._pause = _FIRST_PAUSE
        self._ended = False
        self.trouble = "the log store has not been reached yet"
        """Why new entries can't be read at present, as a sentence; empty if they can."""

    @property
    def followers(self) -> int:
        """The number of followers."""
        return self._followers.number

    def check_capacity(self) -> None:
        """Raise BusyError if the maximum number of followers is reached."""
        if self.followers >= MAX_FOLLOWERS:
            raise BusyError(f"there are {MAX_FOLLOWERS} followers already")

    async def position(self) -> int:
        """Return the id up to which entries were delivered.

        Raises StoreError before the first connection to the store.
        """
        if self._position is None:
            try:
                async with asyncio.timeout(_READY_SECONDS):
                    await self._known.wait()
            except TimeoutError:
                raise StoreError(self.trouble) from None
        assert self._position is not None
        return self._position

    @contextmanager
    def subscribe(self, wanted: LogFilter) -> Iterator[Subscription]:
        """Yield a subscription, which begins at the present `position`, without a gap.

        With a regular expression no entries are delivered: the follower has to read them itself, so that a slow one
        delays no others.
        Raises BusyError.
        """
        self.check_capacity()
        subscription = Subscription(self._position or 0)
        if self._ended:
            subscription.end()
        place = self._followers.pulling if wanted.store_only else self._followers.by_filter.setdefault(wanted, [])
        place.append(subscription)
        try:
            yield subscription
        finally:
            place.remove(subscription)
            if not place:
                self._followers.by_filter.pop(wanted, None)

    async def run(self) -> NoReturn:
        """Run until cancelled, which ends all subscriptions. While the store is unavailable, connecting is retried."""
        try:
            while True:
                try:
                    await self._session()
                except StoreError as error:
                    if self.trouble != error.sentence:
                        _log.warning("followers of the log get nothing new: %s", error.sentence)
                    self.trouble = error.sentence
                    await asyncio.sleep(self._pause)
                    self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        finally:
            self._ended = True
            for follower in self._followers:
                follower.end()

    async def _session(self) -> NoReturn:
        listener = await self._open_listener()
        try:
            newest = await listener.newest_id()
            if self._position is None or newest < self._position:
                # At the start, and after the store was restored to an earlier state.
                self._position = newest
            self.trouble, self._pause = "", _FIRST_PAUSE
            self._known.set()
            await self._read(listener, Announcement(newest))
            while True:
                update = await listener.next(_POLL_SECONDS)
                await self._read(listener, update or Announcement(await listener.newest_id()))
        finally:
            await listener.close()

    async def _read(self, listener: Listener, announcement: Announcement) -> None:
        """Read and deliver the announced entries."""
        loop = asyncio.get_running_loop()
        while self._position is not None and self._position < announcement.last_id:
            if not self._followers.by_filter:
                self._move(announcement.last_id, announcement.leaves)
                return
            if announcement.last_id - self._position > BEHIND:
                self._skip(announcement.last_id - self._chunk_size)
            begun = loop.time()
            asked = self._chunk_size
            entries = await listener.after(self._position, announcement.last_id, asked, announcement.leaves)
            received = loop.time()
            deliveries = await self._deliver(
                entries, announcement.last_id if len(entries) < asked else entries[-1].id, announcement.leaves
            )
            if self._position < announcement.last_id:
                # Leave at least half of the time to other tasks.
                await asyncio.sleep(min(loop.time() - begun, 5 * _SLICE_SECONDS))
            elif deliveries > 1:
                await asyncio.sleep(min(deliveries * _DELIVERY_SECONDS + received - begun, _SLICE_SECONDS))

    async def _deliver(self, entries: Sequence[StoredEntry], reached: int, leaves: Sequence[str]) -> int:
        """Deliver ENTRIES to the followers whose filter they match; return the number of these."""
        loop = asyncio.get_running_loop()
        groups = [(wanted, tuple(some)) for wanted, some in self._followers.by_filter.items()]
        # Before the first await: later subscriptions are not among the groups.
        self._move(reached, leaves)
        lines: dict[int, EntryJson] = {}
        deliveries, begun = 0, loop.time()
        for wanted, some in groups:
            chosen = [entry for entry in entries if matches(wanted, entry.row, entry.id)]
            for entry in chosen:
                if entry.id not in lines:
                    lines[entry.id] = entry_json(entry)
            batch = batch_of([lines[entry.id] for entry in chosen]) if chosen else None
            for follower in some:
                follower.put(reached, batch)
            deliveries += len(some) if batch else 0
            if loop.time() - begun > _SLICE_SECONDS:
                await asyncio.sleep(0)
                begun = loop.time()
        self._adapt(len(lines), sum(len(line.text) for line in lines.values()))
        return deliveries

    def _adapt(self, entries: int, size: int) -> None:
        """Adapt the number of entries read at once to their size."""
        if entries:
            self._chunk_size = max(4, min(_CHUNK, 2 * self._chunk_size, _CHUNK_BYTES * entries // size))

    def _move(self, reached: int, leaves: Sequence[str]) -> None:
        self._position = reached
        for follower in self._followers.pulling:
            follower.moved(reached, leaves)

    def _skip(self, to: int) -> None:
        """Continue after the id TO."""
        assert self._position is not None
        lost = Skipped(self._position + 1, to, to - self._position, True)
        for some in self._followers.by_filter.values():
            for follower in some:
                follower.skip(lost)
        self._position = to


def entry_json(entry: StoredEntry) -> EntryJson:
    """Return the entry in the JSON of the API."""
    # JSON does not require DEL to be escaped.
    return EntryJson(entry.id, json.dumps(entry.as_json()).encode().replace(b"\x7f", b"\\u007f"))
