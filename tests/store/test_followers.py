"""Writers at the same time, and readers that follow by id: nothing is skipped, whatever fails or comes late."""

import asyncio
import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg

from helmd.model.logs.entry import LogRow
from helmd.store.ingest.ingested import newest_id
from helmd.store.ingest.logs import Appender
from helmd.store.logs import entries
from helmd.store.logs.listen import Listener
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import connect
from tests.campaign import scaled
from tests.store.conftest import Database

SECONDS = scaled(600.0, 6.0)
WRITERS = {"printed": "journal", "posted": "http"}
"""Names of the connections of the two, and where their rows come from."""
MOST_ROWS = 400
PAGE = 500


def retention_of(service: str) -> int:
    return 7 if service.endswith("brief") else 90


class Writer:
    """Appends transactions of any size, some of them undone; starts again when its connection is cut."""

    def __init__(self, conninfo: str, name: str, chance: random.Random) -> None:
        self._conninfo = conninfo
        self.name = name
        self._chance = chance
        self._made = 0
        self._ends_at = time.monotonic() + SECONDS
        self.committed: set[str] = set()
        self.in_doubt: set[str] = set()
        """Those whose commit got no answer."""

    def _goes_on(self) -> bool:
        return time.monotonic() < self._ends_at or len(self.committed) < 50 * SECONDS

    async def run(self) -> None:
        while self._goes_on():
            with suppress(psycopg.OperationalError):
                await self._session()

    async def _session(self) -> None:
        connection = await connect(self._conninfo, self.name)
        try:
            appender = Appender(retention_of)
            while self._goes_on():
                rows = self._rows()
                messages = {row.message for row in rows}
                self.in_doubt |= messages
                if self._chance.random() < 0.1:
                    async with connection.transaction(force_rollback=True):
                        await appender.append(connection, rows)
                    self.in_doubt -= messages
                    # It may have thought of partitions as made that are gone again.
                    appender = Appender(retention_of)
                    continue
                async with connection.transaction():
                    await appender.append(connection, rows)
                    await asyncio.sleep(self._chance.choice((0, 0, 0.003)))
                self.in_doubt -= messages
                self.committed |= messages
                await asyncio.sleep(self._chance.choice((0, 0, 0.01)))
        finally:
            await connection.close()

    def _rows(self) -> list[LogRow]:
        """Of several days and two retention classes, so that they lie in different partitions."""
        rows = []
        for _ in range(self._chance.randrange(1, MOST_ROWS)):
            self._made += 1
            day = datetime.now(UTC) - timedelta(days=self._chance.choice((0, 0, 0, 1, 2, 9)))
            service = self._chance.choice(("core", "brief"))
            rows.append(LogRow(day, service, "INFO", f"{self.name} {self._made}", source=WRITERS[self.name]))
        return rows


async def follow_by_polling(conninfo: str, seen: list[tuple[int, str]], writing: "asyncio.Future[None]") -> None:
    """As a client that asks for what is after the last id it has."""
    connection = await connect(conninfo, "asks")
    try:
        while True:
            over = writing.done()
            found = await entries.after(connection, seen[-1][0] if seen else 0, 2**62, PAGE)
            seen += [(entry.id, entry.row.message) for entry in found]
            if over and not found:
                return
            if not found:
                await asyncio.sleep(0.001)
    finally:
        await connection.close()


async def follow_by_listening(conninfo: str, seen: list[tuple[int, str]], writing: "asyncio.Future[None]") -> None:
    """As helmd does: woken by what writers announce, looking only where they say."""
    listener = await Listener.open(conninfo, "listens")
    try:
        last = 0
        while True:
            over = writing.done()
            notified = await listener.next(0.2)
            if notified is None:
                if over:
                    return
                continue
            while last < notified.last_id:
                found = await listener.after(last, notified.last_id, PAGE, notified.leaves)
                seen += [(entry.id, entry.row.message) for entry in found]
                last = found[-1].id if len(found) == PAGE else notified.last_id
    finally:
        await listener.close()


async def test_two_writers_and_followers_by_id(database: Database) -> None:
    """Every entry once and in the order of ids, to those who poll and those who listen, while writers are cut off."""
    await migrate(database.owner, "helm")
    chance = random.Random(4)
    writers = [Writer(database.store, name, random.Random(n)) for n, name in enumerate(WRITERS)]
    polled: list[tuple[int, str]] = []
    notified: list[tuple[int, str]] = []

    async def cut_now_and_then() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            number = chance.randrange(len(writers))
            await asyncio.to_thread(database.kill_backends, writers[number].name)
            # Where a transaction takes longer than that, none would ever commit.
            before = len(writers[number].committed)
            while len(writers[number].committed) == before:
                await asyncio.sleep(0.05)

    writing = asyncio.gather(*(writer.run() for writer in writers))
    done = asyncio.ensure_future(_ended(writing))
    cutting = asyncio.create_task(cut_now_and_then())
    try:
        await asyncio.gather(
            follow_by_polling(database.store, polled, done), follow_by_listening(database.store, notified, done), done
        )
    finally:
        cutting.cancel()
        with suppress(asyncio.CancelledError):
            await cutting
    there = [(int(str(number)), str(message)) for number, message in database.query(
        "SELECT id, message FROM log_entries ORDER BY id"
    )]  # fmt: skip
    for seen in (polled, notified):
        assert seen == sorted(seen), "out of order"
        assert len(seen) == len(there) and seen == there
    messages = {message for _, message in there}
    committed = writers[0].committed | writers[1].committed
    in_doubt = writers[0].in_doubt | writers[1].in_doubt
    assert len(messages) == len(there)
    assert committed <= messages <= committed | in_doubt
    assert len(there) >= 100 * SECONDS
    async with await psycopg.AsyncConnection.connect(database.store) as connection:
        assert await newest_id(connection) == there[-1][0]


async def _ended(writing: "asyncio.Future[list[None]]") -> None:
    await writing
