"""No statement that reads the store goes on without end at the server, whoever asks; and a DSN's own options hold."""

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import helmd
from helmd.model.api.log_views import LogViewRequest
from helmd.model.errors import StoreError
from helmd.model.logs.filter import LogFilter
from helmd.model.metrics.steps import RAW, Span
from helmd.operations.logs.reader import LogReader
from helmd.store.ingest.ingested import lines_between, newest_id, stored_up_to
from helmd.store.ingest.journal import JournalStore
from helmd.store.logs.gaps import gaps_since
from helmd.store.logs.listen import Listener
from helmd.store.maintenance.expiry import retention_warnings
from helmd.store.maintenance.indexes import connect_as_owner
from helmd.store.maintenance.migrate import migrate
from helmd.store.metrics.history import newest_samples
from helmd.store.session import Connection, Pool, connect
from tests.store.conftest import Database
from tests.waiting import WITHIN, eventually

NOW = datetime(2026, 3, 10, tzinfo=UTC)
LIMIT = 0.5
"""Seconds for a statement in these tests, instead of five to six hundred."""
TABLES = (
    "log_entries, log_partitions, log_counts_minute, log_counts_hour, service_status, service_metrics, journal_cursor"
)


@pytest.fixture(autouse=True)
def long_limits() -> None:
    """The limits here are Helm's own."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("session.STATEMENT_SECONDS", "logs.listen._TIMEOUT_SECONDS", "ingest.journal._ANSWER_SECONDS"):
        monkeypatch.setattr(f"helmd.store.{name}", LIMIT)
    monkeypatch.setattr("helmd.operations.logs.reader._EXPORT_SECONDS", LIMIT)


@pytest.fixture
async def locked(database: Database) -> AsyncIterator[Database]:
    """Yield the store, with all of its tables locked by somebody: nothing that reads them ends by itself."""
    await migrate(database.owner, "helm")
    with psycopg.connect(database.cluster.conninfo("postgres", database.name)) as holder:
        holder.execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE".encode())
        yield database
        holder.rollback()


def waiting(database: Database) -> int:
    """Return statements of Helm's roles that are being carried out."""
    return len(
        database.query(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND usename LIKE 'helm%%' AND state = 'active'",
            database.name,
        )
    )


async def ends(database: Database, read: Callable[[], Awaitable[object]]) -> None:
    """READ ends, and so does its statement at the server. Without a limit neither would, until the tables are free."""
    async with asyncio.timeout(WITHIN):
        with suppress(StoreError):
            await read()
    await eventually(lambda: not waiting(database), pause=0.05)


READER: dict[str, Callable[[LogReader], Awaitable[object]]] = {
    "page": lambda reader: reader.page(LogFilter(text="x"), 10, None, 0, counted=True),
    "around": lambda reader: reader.around(LogFilter(text="x"), 10, 1, None, counted=True),
    "last": lambda reader: reader.last(LogFilter(), 10),
    "entry": lambda reader: reader.entry(1),
    "histogram": lambda reader: reader.histogram(LogFilter(), NOW, NOW + timedelta(hours=1), timedelta(minutes=1)),
    "facets": lambda reader: reader.facets({"level": LogFilter(text="x")}, 10),
    "gaps": lambda reader: reader.gaps(NOW, NOW + timedelta(hours=1)),
    "patterns": lambda reader: reader.patterns(LogFilter(text="x"), 10),
    "views": lambda reader: reader.views("user x"),
    "save_view": lambda reader: reader.save_view("user x", LogViewRequest("x")),
    "remove_view": lambda reader: reader.remove_view(1, "user x", any_shared=False),
    "level_counts": lambda reader: reader.level_counts(NOW),
    "newest_id": lambda reader: reader.newest_id(),
    "check": lambda reader: reader.check(LogFilter(text="x", mode="regex")),
    "after": lambda reader: reader.after(0, 10, 10, LogFilter()),
    "export": lambda reader: exported(reader),
}


async def exported(reader: LogReader) -> None:
    async with reader.export(LogFilter(), "ndjson", oldest_first=False) as chunks:
        async for _ in chunks:
            pass


def test_every_reading_of_the_reader_is_listed() -> None:
    public = {name for name, _ in inspect.getmembers(LogReader, inspect.isfunction) if not name.startswith("_")}
    assert public == set(READER)


@pytest.mark.parametrize("name", READER)
async def test_readings_of_log_entries(locked: Database, name: str) -> None:
    async with Pool(locked.store, "helmd-logs") as pool:
        reader = LogReader(pool, locked.store, lambda: False)

        async def read() -> None:
            await READER[name](reader)

        await ends(locked, read)


POOLED: dict[str, Callable[[Connection], Awaitable[object]]] = {
    "stored_up_to": lambda connection: stored_up_to(connection, "machine", 1000, "boot"),
    "newest_id": newest_id,
    "lines_between": lambda connection: lines_between(connection, 0, 10),
    "newest_samples": lambda connection: newest_samples(connection, "core", Span(NOW, NOW, 1, RAW), None, 10),
    "gaps_since": lambda connection: gaps_since(connection, NOW),
    "retention_warnings": lambda connection: retention_warnings(connection, NOW),
}


@pytest.mark.parametrize("name", POOLED)
async def test_readings_by_a_pool(locked: Database, name: str) -> None:
    async with Pool(locked.store, "helmd") as pool:

        async def read() -> None:
            async with pool.connection("reading") as connection:
                await POOLED[name](connection)

        await ends(locked, read)


async def test_readings_on_connections_of_their_own(locked: Database) -> None:
    listener = await Listener.open(locked.store, "helmd-feed")
    await ends(locked, listener.newest_id)
    journal = await JournalStore.open(locked.store, "machine", 1000, lambda _: 90)
    await ends(locked, journal.positions)
    journal = await JournalStore.open(locked.store, "machine", 1000, lambda _: 90)
    await ends(locked, lambda: journal.pending("boot"))
    await listener.close()
    await journal.close()


async def test_a_client_that_is_gone_leaves_no_statement_behind(locked: Database) -> None:
    async with Pool(locked.store, "helmd") as pool:

        async def read() -> None:
            async with pool.connection("checking health", 0.1) as connection:
                await newest_id(connection)

        await ends(locked, read)


def test_connections_are_made_in_one_place() -> None:
    """There each gets a limit, so what is read on one can't be without."""
    makers = set()
    for file in Path(helmd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("psycopg.connect", "AsyncConnection.connect", "AsyncConnectionPool")
            ):
                makers.add(file.relative_to(Path(helmd.__file__).parent).as_posix())
    assert {path for path in makers if not path.startswith("postgres/")} == {"store/session.py"}


async def shown(connection: Connection, *names: str) -> list[object]:
    found = []
    for name in names:
        row = await (await connection.execute(f"SHOW {name}".encode())).fetchone()
        found.append(row[0] if row else None)
    return found


URI = "postgresql://{user}@/{name}?host={host}&port=5432&options=-c%20work_mem%3D7MB%20-c%20timezone%3DAsia/Tokyo"


@pytest.mark.parametrize("uri", [False, True])
async def test_options_of_the_dsn_hold_beside_helms(database: Database, uri: bool) -> None:
    dsn = database.owner + " options='-c work_mem=7MB -c timezone=Asia/Tokyo'"
    if uri:
        dsn = URI.format(user="helm_owner", name=database.name, host=database.cluster.directory)
    names = ("work_mem", "TimeZone", "statement_timeout")
    connection = await connect(dsn, "test")
    assert await shown(connection, *names) == ["7MB", "UTC", "5s"]
    await connection.close()
    async with Pool(dsn, "test") as pool, pool.connection("reading") as connection:
        assert await shown(connection, *names) == ["7MB", "UTC", "500ms"]
    await migrate(dsn, "helm")
    maintenance = await connect_as_owner(dsn)
    assert maintenance is not None
    assert await shown(maintenance, *names) == ["7MB", "UTC", "1min"]
    await maintenance.close()


async def test_a_dsn_that_is_none_is_said() -> None:
    with pytest.raises(StoreError, match="not a valid connection string"):
        await connect("postgresql://[", "test")
