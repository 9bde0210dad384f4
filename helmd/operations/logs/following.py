"""Following the log: first entries from the store that were missed or requested, then new ones from the feed."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from helmd.model.errors import StoreTimeoutError
from helmd.model.logs.filter import LogFilter
from helmd.operations.logs.feed import (
    BEHIND,
    Feed,
    FeedBatch,
    FeedEndedError,
    FeedUpdate,
    Skipped,
    Subscription,
    batch_of,
    entry_json,
)
from helmd.operations.logs.reader import LogReader
from helmd.store.logs.entries import StoredEntry

MAX_TAIL = 1000
_IDS = 20_000
"""Number of ids per search, which bounds the time of a search for rare entries."""
_FIRST_PAGE, _LAST_PAGE = 50, 500
_PAGE_BYTES = 512 << 10
_NEAR = 500
"""Number of entries that can be read while new ones wait in the follower's queue."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a follower begins: with the entries after the id ``since``, or with the newest ``tail`` ones."""

    since: int | None = None
    tail: int = 0

    @property
    def asks_newest(self) -> bool:
        """Whether the newest entries come first."""
        return self.since is None and self.tail > 0


async def follow_entries(
    feed: Feed, reader: LogReader, wanted: LogFilter, start: Start, beat: float
) -> AsyncGenerator[FeedUpdate, None]:
    """Yield the entries that match WANTED, each once.

    The first update comes immediately, others at least every BEAT seconds, possibly empty. Ends when helmd stops.
    Raises UsageError for an invalid regular expression, BusyError, and StoreError, also after entries were yielded:
    then the follower may resume after the last id.
    """
    feed.check_capacity()
    await reader.check(wanted)
    seen = await feed.position() if start.since is None else start.since
    yield FeedUpdate(seen)
    # A long backlog is read before subscribing, since the queue could overflow meanwhile.
    while not start.asks_newest and (there := await feed.position()) - seen > _NEAR:
        async with aclosing(_between(reader, wanted, seen, there)) as missed:
            async for update in missed:
                yield update
        seen = there
    with feed.subscribe(wanted) as subscription:
        # All matching entries up to here have been yielded.
        floor = subscription.start
        if start.asks_newest:
            # The feed may be behind the entries found.
            floor = max(floor, await reader.newest_id())
            found = [entry for entry in await reader.last(wanted, start.tail) if entry.id <= floor]
            yield FeedUpdate(floor, batches=_batches(sorted(found, key=lambda entry: entry.id)))
        elif seen < floor:
            async with aclosing(_between(reader, wanted, seen, floor)) as missed:
                async for update in missed:
                    yield update
        elif start.since is not None and floor < seen <= await reader.newest_id():
            # A client with an id from a list may be ahead of the feed. An id above all in the store is from before the
            # store was restored to an earlier state.
            floor = seen
        async with aclosing(_live(subscription, reader, wanted, beat)) as live:
            reached = subscription.start
            async for update in live:
                yield _without(update, floor) if reached < floor else update
                reached = update.reached


async def _live(
    subscription: Subscription, reader: LogReader, wanted: LogFilter, beat: float
) -> AsyncGenerator[FeedUpdate, None]:
    pulls = wanted.store_only
    position = subscription.start
    loop = asyncio.get_running_loop()
    while True:
        try:
            update = await subscription.next(beat)
        except FeedEndedError:
            return
        if not pulls or update.reached <= position:
            yield update
            continue
        if update.reached - position > BEHIND:
            to = update.reached - _LAST_PAGE
            yield FeedUpdate(to, Skipped(position + 1, to, to - position, True))
            position = to
        begun = loop.time()
        async with aclosing(_between(reader, wanted, position, update.reached, update.leaves)) as pulled:
            async for each in pulled:
                yield each
        position = update.reached
        # At most half of the time, so that slow searches run less often.
        await asyncio.sleep(loop.time() - begun)


async def _between(
    reader: LogReader, wanted: LogFilter, last_seen: int, up_to: int, leaves: Sequence[str] = ()
) -> AsyncGenerator[FeedUpdate, None]:
    """Yield the entries after LAST_SEEN up to UP_TO; ranges that exceed the time limit are reported as skipped."""
    size = _FIRST_PAGE
    while last_seen < up_to:
        end = min(up_to, last_seen + _IDS)
        try:
            entries = await reader.after(last_seen, end, size, wanted, leaves)
        except StoreTimeoutError:
            yield FeedUpdate(end, Skipped(last_seen + 1, end, end - last_seen, True))
            last_seen = end
            continue
        full = len(entries) == size
        last_seen = entries[-1].id if full else end
        batches = _batches(entries)
        if batches:
            size = max(4, min(_LAST_PAGE, 2 * size, _PAGE_BYTES * len(entries) // batches[0].size))
        yield FeedUpdate(last_seen, batches=batches)


def _batches(entries: Sequence[StoredEntry]) -> tuple[FeedBatch, ...]:
    return (batch_of([entry_json(entry) for entry in entries]),) if entries else ()


def _without(update: FeedUpdate, seen: int) -> FeedUpdate:
    """Return UPDATE without the entries up to the id SEEN."""
    kept = [[line for line in batch.lines if line.id > seen] for batch in update.batches]
    return FeedUpdate(
        max(update.reached, seen), update.skipped, tuple(batch_of(lines) for lines in kept if lines), update.leaves
    )
