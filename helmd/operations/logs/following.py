"""Following the log: what a follower missed or asked to see first, from the store; then what is new, as it comes."""

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
"""Ids among which entries are looked for at once; it bounds what a search for something rare takes."""
_FIRST_PAGE, _LAST_PAGE = 50, 500
_PAGE_BYTES = 512 << 10
_NEAR = 500
"""What can be read while new entries wait in the follower's queue."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a follower begins: with what it has not seen after the id ``since``, or with the newest ``tail`` ones."""

    since: int | None = None
    tail: int = 0

    @property
    def asks_newest(self) -> bool:
        """Whether the newest entries come first."""
        return self.since is None and self.tail > 0


async def follow_entries(
    feed: Feed, reader: LogReader, wanted: LogFilter, start: Start, beat: float
) -> AsyncGenerator[FeedUpdate, None]:
    """Yield what is WANTED, each entry once.

    The first update comes at once, others at least every BEAT seconds, maybe empty. Ends with helmd. Raises UsageError
    for a bad regular expression, BusyError, and StoreError, in the middle too: then the follower may begin again after
    the last id.
    """
    feed.check_capacity()
    await reader.check(wanted)
    seen = await feed.position() if start.since is None else start.since
    yield FeedUpdate(seen)
    # As far as there is much, without a queue that could overflow meanwhile. The newest ones are few.
    while not start.asks_newest and (there := await feed.position()) - seen > _NEAR:
        async with aclosing(_between(reader, wanted, seen, there)) as missed:
            async for update in missed:
                yield update
        seen = there
    with feed.subscribe(wanted) as subscription:
        # Up to here entries have been given, or are known not to be wanted.
        floor = subscription.start
        if start.asks_newest:
            # The feed may be a little behind what is found.
            floor = max(floor, await reader.newest_id())
            found = [entry for entry in await reader.last(wanted, start.tail) if entry.id <= floor]
            yield FeedUpdate(floor, batches=_batches(sorted(found, key=lambda entry: entry.id)))
        elif seen < floor:
            async with aclosing(_between(reader, wanted, seen, floor)) as missed:
                async for update in missed:
                    yield update
        elif start.since is not None and floor < seen <= await reader.newest_id():
            # Whoever knows an id from a list may be ahead of the feed. An id that the store can't have given is of a
            # time before it was put back to an earlier state.
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
        # As long as it took, so that what is slow is done the less often.
        await asyncio.sleep(loop.time() - begun)


async def _between(
    reader: LogReader, wanted: LogFilter, last_seen: int, up_to: int, leaves: Sequence[str] = ()
) -> AsyncGenerator[FeedUpdate, None]:
    """Yield entries after LAST_SEEN up to UP_TO. Those that can't be searched in time are reported as skipped."""
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
