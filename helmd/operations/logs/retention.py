"""Periodic maintenance of the log store: creates partitions in advance, indexes closed ones, drops expired ones."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import NoReturn

from helmd.model.errors import StoreError
from helmd.model.logs.retention import is_plausible
from helmd.store.ingest.copy_text import RetentionOf
from helmd.store.ingest.ingested import newest_id
from helmd.store.ingest.takeover import take_over
from helmd.store.maintenance.expiry import expire, newest_entry
from helmd.store.maintenance.indexes import compact, connect_as_owner, has_trigrams, index_text, seal, summarize
from helmd.store.maintenance.partitions import make_ahead
from helmd.store.session import Connection, store_errors
from helmd.systemd.clock import is_synchronized

ROUND_SECONDS = 15.0
IDLE_SECONDS = 60.0
"""How long a closed day must have had no new rows before its indexes are built: a backlog may still be read."""
_COMPACT_PAUSE = 600.0
"""Delay in seconds after rebuilding indexes failed, since a long read holds locks on them."""
_BUSY_RATE = 20_000
"""Entries per second above which text indexes of open days are postponed, to leave the processor to ingestion."""

_log = logging.getLogger(__name__)


class StoreMaintenance:
    """The maintenance loop, run as the owner of the tables.

    ``prepare`` migrates the schema first; ``retentions`` returns the retention classes in use, in days, and
    ``retention_of`` that of a service. ``also`` are further steps of each round.
    """

    def __init__(
        self,
        owner: str,
        prepare: Callable[[], Awaitable[None]],
        retentions: Callable[[], Iterable[int]],
        also: Iterable[Callable[[Connection], Awaitable[None]]] = (),
        retention_of: RetentionOf = lambda _: 90,
    ) -> None:
        self._owner = owner
        self._prepare = prepare
        self._retentions = retentions
        self._also = tuple(also)
        self._retention_of = retention_of
        self._taken_over = False
        self._trouble = ""
        self._newest: int | None = None
        self._seen: dict[str, tuple[int, float]] = {}
        self._expired_at: float | None = None
        self._compact_from = 0.0
        self.warnings: tuple[str, ...] = ()
        """Why expired partitions are kept, as sentences."""

    async def run(self) -> NoReturn:
        """Run until cancelled. While the store is unavailable, connecting is retried."""
        while True:
            try:
                await self._prepare()
                connection = await connect_as_owner(self._owner)
                if connection is not None:
                    try:
                        while True:
                            await self._round(connection)
                            self._trouble = ""
                            await asyncio.sleep(ROUND_SECONDS)
                    finally:
                        await connection.close()
            except StoreError as error:
                if error.sentence != self._trouble:
                    _log.warning("%s; it will be retried", error.sentence)
                self._trouble = error.sentence
            await asyncio.sleep(ROUND_SECONDS)

    async def _round(self, connection: Connection) -> None:
        """Run all steps. Raises errors at the end, so that a step blocked by a reader does not prevent the others."""
        failed: StoreError | None = None
        for step in (self._create_partitions, self._expire, self._index, self._take_over, *self._also):
            try:
                with store_errors("the log store can't be maintained"):
                    await step(connection)
            except StoreError as error:
                if connection.broken or connection.closed:
                    raise
                failed = failed or error
        if failed is not None:
            raise failed

    async def _create_partitions(self, connection: Connection) -> None:
        now = datetime.now(UTC)
        with store_errors("partitions can't be created in advance"):
            newest = await newest_entry(connection)
        # A wrong clock would create partitions for each of its steps. Writers create those that they need.
        if is_plausible(now, newest):
            await make_ahead(connection, self._retentions(), now)

    async def _expire(self, connection: Connection) -> None:
        now = time.monotonic()
        elapsed = 0.0 if self._expired_at is None else now - self._expired_at
        self._expired_at = now
        done = await expire(connection, datetime.now(UTC), elapsed, is_synchronized())
        for name in done.dropped:
            _log.info("the partition %s has expired and was dropped", name)
        warnings = tuple(done.warnings)
        for sentence in warnings if len(warnings) > len(self.warnings) else ():
            _log.warning("%s", sentence)
        self.warnings = warnings

    async def _take_over(self, connection: Connection) -> None:
        if not self._taken_over:
            await take_over(connection, self._retention_of, _log.info)
            self._taken_over = True

    async def _index(self, connection: Connection) -> None:
        now = datetime.now(UTC)
        newest = await newest_id(connection)
        busy = self._newest is not None and newest - self._newest > _BUSY_RATE * ROUND_SECONDS
        self._newest = newest
        await summarize(connection)
        trigrams = await has_trigrams(connection)
        if trigrams and not busy:
            await index_text(connection, now)
        for name in await seal(connection, now, self._is_idle, trigrams):
            _log.info("the partition %s is closed and has its indexes", name)
        await self._compact(connection)

    async def _compact(self, connection: Connection) -> None:
        if time.monotonic() < self._compact_from:
            return
        try:
            await compact(connection)
        except StoreError as error:
            if connection.broken or connection.closed:
                raise
            self._compact_from = time.monotonic() + _COMPACT_PAUSE
            _log.debug("%s", error.sentence)

    def _is_idle(self, leaf: str, newest: int) -> bool:
        """Return whether a partition's highest id has not changed for IDLE_SECONDS."""
        now = time.monotonic()
        before, since = self._seen.get(leaf, (-1, now))
        if before != newest:
            since = now
        self._seen[leaf] = (newest, since)
        return now - since >= IDLE_SECONDS
