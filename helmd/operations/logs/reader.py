"""Reading stored log entries for clients, with bounded concurrency, so that expensive searches delay nothing else."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, LiteralString, cast

from helmd.model.api.log_views import LogView, LogViewRequest
from helmd.model.errors import HelmError
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.operations.logs.window import LogWindow, surrounding_window
from helmd.store.ingest.ingested import newest_id
from helmd.store.logs.bounded import breakable, check_expression, end_with_client
from helmd.store.logs.counts import Histogram, Total, histogram, level_counts, total
from helmd.store.logs.entries import StoredEntry, after, entry
from helmd.store.logs.export import Form, export
from helmd.store.logs.facets import Facet, facets
from helmd.store.logs.gaps import StoredGap, gaps_between
from helmd.store.logs.patterns import FoundPatterns, patterns
from helmd.store.logs.search import Page, cursor_of, find
from helmd.store.logs.views import read_views, remove_view, save_view
from helmd.store.session import Connection, Pool, connect, limit_statements

CONNECTIONS = 10
"""Size of the pool: three searches with their counts, two followers, and some for short statements."""
KEPT = 4
"""Number of connections kept open, since a new one reads the catalog first: for two searches with their counts."""
SEARCH_SECONDS = 1.0
COUNT_SECONDS = 0.2
"""Time limit in seconds for counting rows; after that their number is estimated."""
_SEARCHES, _READS, _EXPORTS = 3, 2, 2
_QUICK_SECONDS = 2.0
_EXPORT_SECONDS = 600.0
"""Time limit in seconds for fetching the next rows of an export."""
_QUEUED_SECONDS = 5.0
"""Maximum time in seconds that a search is queued."""
_UNAVAILABLE_SECONDS = 0.7
"""Maximum time in seconds to wait for a connection while the store is known to be unavailable."""


class BusyError(HelmError):
    """Too many expensive requests at the same time."""

    code: ClassVar[str] = "busy"


@dataclass(frozen=True, slots=True)
class Listing:
    """A page, and the total number of entries if requested."""

    page: Page
    total: Total | None


class LogReader:
    """Uses connections of POOL, for exports new ones to CONNINFO. UNAVAILABLE says whether the store is known to be
    unavailable.
    """

    def __init__(self, pool: Pool, conninfo: str, unavailable: Callable[[], bool]) -> None:
        self._pool = pool
        self._conninfo = conninfo
        self._unavailable = unavailable
        self._searches = asyncio.Semaphore(_SEARCHES)
        self._reads = asyncio.Semaphore(_READS)
        self._exports = asyncio.Semaphore(_EXPORTS)

    async def page(
        self,
        wanted: LogFilter,
        limit: int,
        behind: PageCursor | None,
        offset: int,
        *,
        counted: bool,
        oldest_first: bool = False,
    ) -> Listing:
        """Return a page as `helmd.store.logs.search.find` does. Raises as that, and BusyError."""
        await self.check(wanted)
        async with _limited(self._searches):
            searching = self._find(wanted, limit, behind, offset, oldest_first=oldest_first)
            if not counted:
                return Listing(await searching, None)
            if not wanted.counted:
                page = await searching
                # A complete page is its own count; otherwise counting takes longer than searching.
                whole = behind is None and page.next is None and (offset == 0 or page.entries)
                if whole:
                    return Listing(page, Total(offset + len(page.entries)))
                # A search that reached its time limit is expensive to count, too.
                return Listing(page, await self._total(wanted, page.common or page.searched_to is not None))
            # Not in a TaskGroup, which would wrap the error in an ExceptionGroup.
            found, number = asyncio.ensure_future(searching), asyncio.ensure_future(self._total(wanted))
            try:
                done, _ = await asyncio.wait({found, number}, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
                return Listing(found.result(), number.result())
            finally:
                found.cancel()
                number.cancel()
                await asyncio.wait({found, number})

    async def around(
        self, wanted: LogFilter, limit: int, number: int, services: frozenset[str] | None, *, counted: bool
    ) -> LogWindow | None:
        """Return at most LIMIT entries: the one with the id NUMBER, of one of SERVICES, and those before and after it.

        None if there is no such entry. Raises as `page`.
        """
        await self.check(wanted)
        if (entry := await self.entry(number, services)) is None:
            return None
        place = cursor_of(entry)
        async with _limited(self._searches):
            newer = await self._find(wanted, limit, place, 0, oldest_first=True)
            older = await self._find(wanted, limit, place, 0)
            all_of_them = await self._total(wanted) if counted else None
        return surrounding_window(entry, newer, older, limit, all_of_them)

    async def last(self, wanted: LogFilter, number: int) -> list[StoredEntry]:
        """Return the newest NUMBER entries, newest first, or those found within the time limit. Raises as `page`."""
        async with _limited(self._searches):
            return list((await self._find(wanted, number, None, 0)).entries)

    async def entry(self, number: int, services: frozenset[str] | None = None) -> StoredEntry | None:
        """Return the entry with this id, or None if there is none of SERVICES. Raises StoreError."""
        async with self._pooled("reading a log entry", _QUICK_SECONDS) as connection:
            found = await entry(connection, number)
        return found if found is None or services is None or found.row.service_name in services else None

    async def histogram(self, wanted: LogFilter, start: datetime, end: datetime, step: timedelta) -> Histogram:
        """As `helmd.store.logs.counts.histogram`. Raises as that, and BusyError."""
        await self.check(wanted)
        async with _limited(self._searches), self._pooled("counting log entries", 5.0) as connection:
            return await breakable(connection, histogram(connection, wanted, start, end, step))

    async def gaps(self, since: datetime, until: datetime) -> list[StoredGap]:
        """As `helmd.store.logs.gaps.gaps_between`. Raises StoreError."""
        async with self._pooled("reading log entries", _QUICK_SECONDS) as connection:
            return await breakable(connection, gaps_between(connection, since, until, SEARCH_SECONDS))

    async def facets(self, wanted: Mapping[str, LogFilter], most: int) -> dict[str, Facet]:
        """As `helmd.store.logs.facets.facets`, within SEARCH_SECONDS. Raises as that, and BusyError."""
        for its in wanted.values():
            await self.check(its)
        async with _limited(self._searches), self._pooled("counting log entries", 5.0) as connection:
            return await breakable(connection, facets(connection, wanted, most, SEARCH_SECONDS))

    async def patterns(self, wanted: LogFilter, most: int) -> FoundPatterns:
        """As `helmd.store.logs.patterns.patterns`, within SEARCH_SECONDS. Raises as that, and BusyError."""
        await self.check(wanted)
        async with _limited(self._searches), self._pooled("reading log entries", 5.0) as connection:
            return await breakable(connection, patterns(connection, wanted, most, SEARCH_SECONDS))

    async def views(self, owner: str) -> list[LogView]:
        """Return the saved views of OWNER, and shared ones. Raises StoreError."""
        async with self._pooled("reading saved views", _QUICK_SECONDS) as connection:
            return await read_views(connection, owner)

    async def save_view(self, owner: str, view: LogViewRequest) -> LogView | None:
        """As `helmd.store.logs.views.save_view`. Raises StoreError."""
        async with self._pooled("saving a view", _QUICK_SECONDS) as connection:
            return await save_view(connection, owner, view)

    async def remove_view(self, number: int, owner: str, *, any_shared: bool) -> str | None:
        """As `helmd.store.logs.views.remove_view`. Raises StoreError."""
        async with self._pooled("removing a view", _QUICK_SECONDS) as connection:
            return await remove_view(connection, number, owner, any_shared=any_shared)

    async def level_counts(self, since: datetime) -> dict[str, dict[str, int]]:
        """Return numbers of entries by service and level. Raises StoreError."""
        async with self._pooled("counting log entries", _QUICK_SECONDS) as connection:
            return await level_counts(connection, since)

    async def newest_id(self) -> int:
        """Return the highest id. Raises StoreError."""
        async with self._pooled("reading log entries", _QUICK_SECONDS) as connection:
            return await newest_id(connection)

    async def check(self, wanted: LogFilter) -> None:
        """Raise UsageError for a regular expression that is not valid for PostgreSQL."""
        for expression in wanted.expressions:
            async with self._pooled("reading log entries", _QUICK_SECONDS) as connection:
                await check_expression(connection, expression)

    async def after(
        self, last_seen: int, up_to: int, limit: int, wanted: LogFilter, leaves: Sequence[str] = ()
    ) -> list[StoredEntry]:
        """As `helmd.store.logs.entries.after`. Raises StoreError; StoreTimeoutError after SEARCH_SECONDS."""

        async def read(connection: Connection) -> list[StoredEntry]:
            async with connection.transaction():
                await limit_statements(connection, SEARCH_SECONDS)
                return await after(connection, last_seen, up_to, limit, leaves, wanted)

        async with self._reads, self._pooled("reading log entries", 3.0) as connection:
            return await breakable(connection, read(connection))

    @asynccontextmanager
    async def export(self, wanted: LogFilter, form: Form, *, oldest_first: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield all entries in chunks. Raises StoreError, UsageError and BusyError, also after the first chunk."""
        await self.check(wanted)
        async with _limited(self._exports):
            connection = await connect(self._conninfo, "helmd-export", _EXPORT_SECONDS)
            try:
                await end_with_client(connection)
                async with aclosing(_chunks(connection, wanted, form, oldest_first)) as chunks:
                    yield chunks
            finally:
                await connection.close()

    async def _find(
        self, wanted: LogFilter, limit: int, behind: PageCursor | None, offset: int, *, oldest_first: bool = False
    ) -> Page:
        async with self._pooled("searching log entries", 5.0) as connection:
            searching = find(connection, wanted, limit, behind, offset, SEARCH_SECONDS, oldest_first=oldest_first)
            return await breakable(connection, searching)

    async def _total(self, wanted: LogFilter, expensive: bool = False) -> Total:
        async with self._pooled("counting log entries", 5.0) as connection:
            return await breakable(connection, total(connection, wanted, COUNT_SECONDS, expensive=expensive))

    @asynccontextmanager
    async def _pooled(self, doing: LiteralString, seconds: float) -> AsyncIterator[Connection]:
        if self._unavailable():
            seconds = _UNAVAILABLE_SECONDS
        async with self._pool.connection(doing, seconds) as connection:
            yield connection


@asynccontextmanager
async def _limited(semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
    """Hold SEMAPHORE, for which other requests of its kind are queued. Raises BusyError after _QUEUED_SECONDS."""
    try:
        async with asyncio.timeout(_QUEUED_SECONDS):
            await semaphore.acquire()
    except TimeoutError:
        raise BusyError(
            "too many requests for log entries are in progress", hint="Try again in a few seconds."
        ) from None
    try:
        yield
    finally:
        semaphore.release()


async def _chunks(
    connection: Connection, wanted: LogFilter, form: Form, oldest_first: bool
) -> AsyncGenerator[bytes, None]:
    exported = cast(AsyncGenerator[bytes, None], export(connection, wanted, form, oldest_first=oldest_first))
    async with aclosing(exported) as source:

        async def advance() -> bytes | None:
            return await anext(source, None)

        while (chunk := await breakable(connection, advance())) is not None:
            yield chunk
