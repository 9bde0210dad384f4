"""A real PostgreSQL cluster for the tests of this directory: made once, a fresh database for each test."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from helmd.postgres.binaries import newest
from helmd.postgres.configuration import LOCKS
from helmd.store import session
from helmd.store.logs.counts import histogram
from helmd.store.maintenance import expiry
from helmd.store.maintenance.indexes import connect_as_owner
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import Connection, Pool, connect
from tests.store.log_server import Served, serving
from tests.waiting import until_none

OPTIONS = (
    "-c listen_addresses='' -c fsync=off -c max_connections=50 -c log_min_messages=fatal"
    # Its locks would outlast the short lock_timeout of maintenance.
    f" -c autovacuum=off -c max_locks_per_transaction={LOCKS}"
)
MIGRATING = {"connection", "locked", "migrated", "served"}
"""Fixtures that first of all make Helm's tables in `database`, if they are not there already."""
STALLED = 20
"""Seconds for which neither this process nor PostgreSQL is kept from running on a busy machine."""
LIMITS = (
    "store.session.CONNECT_SECONDS",
    "store.logs.counts._SAMPLE_SECONDS",
    "store.logs.newest._SAMPLE_SECONDS",
    "store.logs.listen._TIMEOUT_SECONDS",
    "store.ingest.requests._ANSWER_SECONDS",
    "operations.logs.feed._READY_SECONDS",
    "operations.logs.posted._OPEN_SECONDS",
    "operations.logs.posted._JOURNAL_SECONDS",
    "operations.logs.reader.COUNT_SECONDS",
    "operations.logs.reader.SEARCH_SECONDS",
    "operations.logs.reader._QUICK_SECONDS",
    "operations.logs.reader._QUEUED_SECONDS",
    "operations.monitoring.custom_metrics._ANSWER_SECONDS",
    "operations.monitoring.history._SECONDS",
    "operations.monitoring.line_rates._SECONDS",
    "web.auth.asking.REPLY_SECONDS",
    "cli.client.HELMD_CONNECT_SECONDS",
    "cli.logs.store._ANSWER_SECONDS",
    "cli.logs.store._SEARCH_SECONDS",
    "cli.logs.store._STREAM_SECONDS",
    "cli.logs.store._IDLE_SECONDS",
)
"""How long helmd and helmctl wait for an answer at most, or count before they estimate: names in `helmd`."""


@dataclass(frozen=True)
class Cluster:
    """A server on a unix socket in ``directory``, trusting whoever connects."""

    directory: Path

    def conninfo(self, role: str, database: str = "postgres", socket: Path | None = None) -> str:
        return f"host={socket or self.directory} port=5432 dbname={database} user={role}"

    def start(self) -> None:
        self._pg_ctl("start", "-o", f"-k {self.directory} {OPTIONS}", "-l", str(self.directory / "log"))

    def stop(self) -> None:
        self._pg_ctl("stop", "-m", "immediate")

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.conninfo("postgres", database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _pg_ctl(self, *arguments: str) -> None:
        self.run(newest().program("pg_ctl"), "-w", "-t", 180, "-D", self.directory / "data", *arguments)

    def run(self, *command: object) -> None:
        words = [str(word) for word in command]
        if os.getuid() == 0:  # PostgreSQL refuses to run as root.
            words = ["runuser", "-u", "postgres", "--", *words]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=self.directory)


@dataclass(frozen=True)
class Database:
    """A database of one test, owned by ``helm_owner``."""

    cluster: Cluster
    name: str

    @property
    def owner(self) -> str:
        return self.cluster.conninfo("helm_owner", self.name)

    @property
    def store(self) -> str:
        return self.cluster.conninfo("helm", self.name)

    def query(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """What a statement gives, as the superuser. It holds up the event loop, so it waits for no lock for long."""
        conninfo = f"{self.cluster.conninfo('postgres', self.name)} options='-c lock_timeout={STALLED}s'"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def kill_backends(self, application: str) -> int:
        """End the server's side of every connection of an application; how many there were."""
        killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE (datname, application_name) = (%s, %s)"
        return len(self.query(killed, self.name, application))


AFTERWARDS = """
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid") && kill -QUIT "$pid"
while kill -0 "$pid"; do sleep 0.1; done
rm -rf "$1"
"""
"""Waits for the end of its input, then removes the cluster in a directory if it is still there."""


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster that ends with this process, also when that is killed."""
    directory = Path(tempfile.mkdtemp(prefix="helm-tests-", dir="/tmp"))
    words = ["sh", "-c", AFTERWARDS, "sh", str(directory)]
    # In a session of its own, since Ctrl+C and scripts/test's end concern the process group.
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
        try:
            if os.getuid() == 0:
                shutil.chown(directory, "postgres")
            directory.chmod(0o755)
            cluster = Cluster(directory)
            initdb = newest().program("initdb")
            cluster.run(initdb, "-D", directory / "data", "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8")
            cluster.start()
            try:
                cluster.execute("CREATE ROLE helm_owner LOGIN")
                cluster.execute("CREATE ROLE helm LOGIN")
                yield cluster
            finally:
                cluster.stop()
        finally:
            shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def long_limits() -> Iterator[None]:
    """The limits are those of a busy machine. Tests of a limit set it themselves."""
    with pytest.MonkeyPatch.context() as patch:
        for name in LIMITS:
            patch.setattr(f"helmd.{name}", STALLED)
        # Writers have many rows.
        patch.setattr("helmd.store.ingest.journal._ANSWER_SECONDS", 6 * STALLED)
        patch.setattr(session.connect, "__defaults__", (6 * STALLED, *(session.connect.__defaults__ or ())[1:]))
        patch.setattr(session, "STATEMENT_SECONDS", STALLED)
        patch.setattr(histogram, "__defaults__", (STALLED,))
        lend = Pool.connection

        def connection(
            pool: Pool, doing: LiteralString, seconds: float = STALLED
        ) -> AbstractAsyncContextManager[Connection]:
            # Who waits for less knows that the store is away.
            return lend(pool, doing, STALLED if seconds > 1 else seconds)

        patch.setattr(Pool, "connection", connection)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """The name of a database with Helm's tables. To copy it takes less than half of the time in which they are made."""
    name = "helm_template"
    cluster.execute(f"CREATE DATABASE {name} OWNER helm_owner")
    # asyncio.run() would leave this thread without an event loop, which newer versions of pytest-asyncio ask for.
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(migrate(cluster.conninfo("helm_owner", name), "helm"))
    with psycopg.connect(cluster.conninfo("postgres"), autocommit=True) as connection:
        connected = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        until_none(lambda: connection.execute(connected, (name,)).fetchall(), pause=0.02)
    return name


@pytest.fixture
def database(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Database]:
    name = "helm"
    copied = f"TEMPLATE {request.getfixturevalue('template')}" if MIGRATING & set(request.fixturenames) else ""
    cluster.execute(f"CREATE DATABASE {name} OWNER helm_owner {copied}")
    try:
        yield Database(cluster, name)
    finally:
        cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    """A connection as Helm's role to a store with its tables."""
    await migrate(database.owner, "helm")
    made = await connect(database.store, "writer")
    yield made
    await made.close()


@pytest.fixture
async def owner(connection: Connection, database: Database) -> AsyncIterator[Connection]:
    """A connection as the owner of that store's tables."""
    made = await connect_as_owner(database.owner)
    assert made is not None
    yield made
    await made.close()


@pytest.fixture
def long_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a round of expiry count as the whole time since the one before."""
    monkeypatch.setattr(expiry, "_LONGEST_ROUND", 1e9)


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Served]:
    """A server of the API's logs and metrics over a store with its tables; what is stored from now on is followed."""
    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path) as made:
        await made.feed.position()
        yield made
