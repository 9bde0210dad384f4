"""What ``helmctl logs`` shows of a real store, through helmd's own routes on a unix socket."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helmd.cli.client import HelmdAwayError
from helmd.cli.logs.format import OutputLine
from helmd.cli.logs.store import StoreLines
from helmd.journal.query import Wanted
from helmd.model.logs.entry import LogRow
from helmd.operations.logs.feed import Feed
from helmd.operations.logs.reader import CONNECTIONS, LogReader
from helmd.store.ingest.logs import Appender
from helmd.store.logs.listen import Listener
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import Pool, connect
from helmd.web.api.logs import Logs
from helmd.web.api.stream import Streams
from helmd.web.auth.roles import Role
from helmd.web.route import Route
from helmd.web.server import HttpServer, application
from tests.fakes import Statuses
from tests.store.conftest import Database
from tests.waiting import eventually

NOW = datetime.now(UTC).replace(microsecond=0)


def row(n: int, text: str | None = None, service: str = "core", **more: object) -> LogRow:
    """Return the N-th row, a millisecond after the one before; the thousandth is of now."""
    instant = NOW + timedelta(milliseconds=n - 1000)
    level = str(more.pop("level", "INFO"))
    return LogRow(instant, service, level, text or f"line {n}", process_id=7, **more)  # type: ignore[arg-type]


@dataclass
class Store:
    """A database with helmd before it."""

    database: Database
    socket: Path
    said: list[str] = field(default_factory=list)

    async def append(self, *rows: LogRow) -> None:
        async with await connect(self.database.store, "test") as connection, connection.transaction():
            await Appender(lambda _: 90).append(connection, rows)

    def lines(self, wanted: Wanted) -> StoreLines:
        return StoreLines(self.socket, wanted, None, self.said.append)

    async def found(self, wanted: Wanted, count: int | None = None, *, newest_first: bool = False) -> list[str]:
        def ask() -> list[str]:
            return [line.row.message for line in self.lines(wanted).open(count, newest_first, False)]

        return await asyncio.to_thread(ask)

    @asynccontextmanager
    async def helmd(self, away: bool = False) -> AsyncIterator[None]:
        """AWAY says that the database is known to be."""
        feed = Feed(lambda: Listener.open(self.database.store, "helmd-feed"))
        async with Pool(self.database.store, "helmd", CONNECTIONS) as pool:
            reader = LogReader(pool, self.database.store, lambda: away)
            logs, streams = Logs(reader, Statuses()), Streams(feed, reader)
            table = (
                Route("GET", "/api/logs", logs.list, Role.TECHNICIAN, "list"),
                Route("GET", "/api/logs/export", logs.export, Role.TECHNICIAN, "export"),
                Route("GET", "/api/logs/stream", streams.events, Role.TECHNICIAN, "stream"),
            )
            server = HttpServer(application(table), self.socket, lambda port: None)
            await server.start("127.0.0.1", 0)
            running = asyncio.create_task(feed.run())
            try:
                yield
            finally:
                running.cancel()
                await asyncio.wait({running})
                await server.stop()


@pytest.fixture
async def store(database: Database, tmp_path: Path) -> Store:
    await migrate(database.owner, "helm")
    return Store(database, tmp_path / "helm.sock")


async def test_lines_in_either_direction_and_the_last_ones(store: Store) -> None:
    every = [f"line {n}" for n in range(1, 2501)]
    await store.append(*(row(n) for n in range(1, 2501)))
    async with store.helmd():
        assert await store.found(Wanted()) == every
        assert await store.found(Wanted(), newest_first=True) == every[::-1]
        assert await store.found(Wanted(), 1200) == every[-1200:]
        assert await store.found(Wanted(pattern=re.compile(r"line \d00$")), 3) == ["line 700", "line 800", "line 900"]
        assert await store.found(Wanted(pattern=re.compile("LINE"))) == []
        since = int(NOW.timestamp()) * 1_000_000
        assert await store.found(Wanted(since=since, until=since + 2000)) == ["line 1000", "line 1001", "line 1002"]
    assert store.said == []


async def test_filters_and_every_column(store: Store) -> None:
    whole = row(1, "a\n  b", level="ERROR", context={"k": [1, None]}, trace_id="t", user_id="u", hostname="h")
    whole = whole._replace(unit="hivematrix-core.service", stream="stderr", boot_id="b" * 32)
    await store.append(whole, row(2, "two", "nexus", source="http"), row(3, "three", stream="stdout"))
    async with store.helmd():
        lines: list[OutputLine] = await asyncio.to_thread(lambda: list(store.lines(Wanted()).open(None, False, False)))
        last: list[OutputLine] = await asyncio.to_thread(lambda: list(store.lines(Wanted()).open(9, False, False)))
        assert lines == last
        assert lines[0].row == whole
        for wanted in (
            Wanted(levels=frozenset({"ERROR", "CRITICAL"})),
            Wanted(trace="t"),
            Wanted(streams=frozenset({"stderr"})),
        ):
            assert await store.found(wanted, 5) == await store.found(wanted) == ["a\n  b"]
        assert await store.found(Wanted(services=frozenset({"nexus", "codex"}))) == ["two"]
        assert await asyncio.to_thread(store.lines(Wanted()).has, "nexus")
        assert not await asyncio.to_thread(store.lines(Wanted()).has, "ghost")
        assert await asyncio.to_thread(store.lines(Wanted()).newest, frozenset({"nexus"})) is None


async def test_a_database_that_is_away_is_reported_by_helmd(store: Store) -> None:
    store.database.cluster.execute(f"ALTER DATABASE {store.database.name} ALLOW_CONNECTIONS false")
    async with store.helmd(away=True):
        for count in (5, None):
            with pytest.raises(HelmdAwayError, match="helmd's database can't be reached"):
                await store.found(Wanted(), count)


async def test_followed_without_loss_or_doubles_across_restarts(store: Store) -> None:
    await store.append(*(row(n) for n in range(1, 21)))
    reading, writing = os.pipe()
    seen: list[str] = []
    lines = store.lines(Wanted(services=frozenset({"core"})))

    def follow(there: Iterator[OutputLine]) -> None:
        for line in there:
            seen.append(line.row.message)
        for line in lines.follow(lambda: None, writing):
            seen.append(line.row.message)

    n = 20
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            async with store.helmd():
                if n == 20:
                    there = await asyncio.to_thread(lines.open, 5, False, True)
                    # What comes before anybody follows.
                    await store.append(row(n := n + 1), row(500, "another's", "nexus"))
                    group.create_task(asyncio.to_thread(follow, there))
                for _ in range(3):
                    await store.append(row(n := n + 1), row(n := n + 1))
                await eventually(lambda: f"line {n}" in seen)
            await store.append(row(n := n + 1))
        async with store.helmd():
            await eventually(lambda: f"line {n}" in seen)
            os.close(reading)
    os.close(writing)
    assert seen == [f"line {number}" for number in range(16, n + 1)]
    assert store.said == []
