"""The loop from journal files to the store: every line once, whatever breaks on the way."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from helmd.journal.reader import JournalReader
from helmd.lifecycle import end
from helmd.model.layout import layout
from helmd.operations import ingest
from helmd.operations.configuration import load_formats
from helmd.operations.ingest import Account, Ingest
from helmd.store.journal import JournalStore
from helmd.store.migrate import migrate
from tests.store.conftest import Cluster, Database
from tests.store.journals import BOOT_A, BOOT_B, MACHINE, SECOND, START, UID, append, line
from tests.store.proxy import Proxy

SHARE = Path(__file__).resolve().parents[2]
FORMATS = load_formats(layout({}, SHARE, UID, SHARE))


class Daemon:
    """An ingest loop as helmd-journal runs it, on a journal directory and a store of this test."""

    def __init__(self, journal: Path, store: str, owner: str, boot: str = BOOT_A) -> None:
        self.said: list[str] = []
        self.beats = 0
        self.prepared = 0
        account = Account(UID, MACHINE, boot, "testhost")

        async def prepare() -> None:
            await migrate(owner, "helm")
            self.prepared += 1

        self.loop = Ingest(
            account,
            lambda: JournalReader(UID, boot, journal),
            lambda: JournalStore.open(store, MACHINE, UID, lambda _: 90),
            FORMATS,
            prepare=prepare,
            beat=self._beat,
            say=self.said.append,
        )

    def _beat(self) -> None:
        self.beats += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Daemon"]:
        task = asyncio.create_task(self.loop.run())
        try:
            yield self
        finally:
            await end(task)
            with suppress(asyncio.CancelledError):
                task.result()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small batches, so that failures fall between and into them."""
    monkeypatch.setattr(ingest, "SLICE_ENTRIES", 7)
    monkeypatch.setattr(ingest, "PORTION_ROWS", 13)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "journal"
    directory.mkdir()
    yield directory


def texts(database: Database) -> list[str]:
    """What is stored of the service ``core``, in the order of ids; nothing before the first migration."""
    if database.query("SELECT to_regclass('log_entries') IS NULL") == [(True,)]:
        return []
    found = database.query("SELECT message FROM log_entries WHERE service_name = 'core' ORDER BY id")
    return [str(message) for (message,) in found]


async def stored(database: Database, count: int) -> list[str]:
    """The messages once there are COUNT of them."""
    async with asyncio.timeout(20):
        while len(found := await asyncio.to_thread(texts, database)) < count:
            await asyncio.sleep(0.02)
    return found


def numbered(first: int, last: int) -> list[bytes]:
    return [line(str(n), SECOND + n * 10) for n in range(first, last + 1)]


def numbers(first: int, last: int) -> list[str]:
    return [str(n) for n in range(first, last + 1)]


async def test_what_is_there_and_what_comes(database: Database, journal: Path) -> None:
    append(journal / "a.journal", numbered(1, 100))
    async with Daemon(journal, database.store, database.owner).running() as daemon:
        assert await stored(database, 100) == numbers(1, 100)
        await asyncio.to_thread(append, journal / "a.journal", numbered(101, 150))
        assert await stored(database, 150) == numbers(1, 150)
        assert daemon.beats > 10
    assert "100 rows" in " ".join(daemon.said) or "rows since the start" in " ".join(daemon.said)


async def test_the_store_is_away_at_first_and_again_later(
    database: Database, journal: Path, cluster: Cluster, tmp_path: Path
) -> None:
    append(journal / "a.journal", numbered(1, 50))
    through = Proxy(tmp_path, cluster.directory)
    store, owner = (cluster.conninfo(role, database.name, tmp_path) for role in ("helm", "helm_owner"))
    async with Daemon(journal, store, owner).running() as daemon:
        await asyncio.sleep(0.3)
        assert daemon.said[-1].startswith("waiting: the log store can't be reached")
        assert daemon.beats > 1
        async with through:
            await stored(database, 50)
            await through.close()
            append(journal / "a.journal", numbered(51, 90))
            await asyncio.sleep(0.5)
            assert texts(database) == numbers(1, 50)
            assert "waiting" in daemon.said[-1]
            await through.open()
            assert await stored(database, 90) == numbers(1, 90)
    assert daemon.prepared == 1


async def test_a_commit_whose_answer_never_came_is_not_repeated(
    database: Database, journal: Path, cluster: Cluster, tmp_path: Path
) -> None:
    append(journal / "a.journal", numbered(1, 200))
    await migrate(database.owner, "helm")
    async with Proxy(tmp_path, cluster.directory) as through:
        through.lose_answers_to_commit = 5
        store = cluster.conninfo("helm", database.name, tmp_path)
        async with Daemon(journal, store, database.owner).running():
            await stored(database, 200)
            await asyncio.sleep(0.3)
        assert through.lost == 5
    assert texts(database) == numbers(1, 200)


async def test_two_at_once_store_nothing_twice_and_the_second_takes_over(database: Database, journal: Path) -> None:
    append(journal / "a.journal", numbered(1, 100))
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 20)
        async with Daemon(journal, database.store, database.owner).running() as second:
            await stored(database, 100)
            await asyncio.sleep(0.3)
            assert "another process is storing" in second.said[-1]
    async with Daemon(journal, database.store, database.owner).running():
        append(journal / "a.journal", numbered(101, 120))
        assert await stored(database, 120) == numbers(1, 120)


async def test_a_gap_is_one_entry_of_helm(database: Database, journal: Path) -> None:
    append(journal / "a.journal", numbered(1, 30))
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 30)
    (journal / "a.journal").unlink()
    append(journal / "b.journal", numbered(41, 60))
    for _ in range(2):
        async with Daemon(journal, database.store, database.owner).running():
            assert await stored(database, 50) == numbers(1, 30) + numbers(41, 60)
    found = database.query("SELECT level, source, context->>'gap' FROM log_entries WHERE service_name = 'helm'")
    assert found == [("WARNING", "helm", "lost")]


async def test_entries_of_strangers_move_the_position_now_and_then(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(journal / "a.journal", numbered(1, 10))
    shell = {"_SYSTEMD_USER_UNIT": "app-shell.scope", "SYSLOG_IDENTIFIER": "bash"}
    strangers = [line("other", SECOND * 2 + n, fields=shell) for n in range(40)]
    monkeypatch.setattr(ingest, "_UNWRITTEN_SECONDS", 0.0)
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 10)
        await asyncio.to_thread(append, journal / "a.journal", strangers)
        async with asyncio.timeout(5):
            while database.query("SELECT monotonic FROM journal_cursor") != [(SECOND * 2 + 39,)]:
                await asyncio.sleep(0.05)
    assert database.query("SELECT count(*) FROM log_entries") == [(10,)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_line_once_whatever_breaks(
    database: Database, journal: Path, cluster: Cluster, tmp_path: Path, seed: int
) -> None:
    """Random writing against cuts, killed backends, lost answers, restarts, a power cut and a second instance."""
    chance = random.Random(seed)
    await migrate(database.owner, "helm")
    store = cluster.conninfo("helm", database.name, tmp_path)
    expected: list[str] = []
    boot, offset, ticks, file = BOOT_A, 0, SECOND, 0

    def write(count: int) -> None:
        """As journald does: one file at a time, and never one microsecond into two files."""
        nonlocal ticks, file
        file += chance.randrange(4) == 0
        ticks += 1
        entries = []
        for _ in range(count):
            ticks += chance.choice((0, 0, 1, 500))
            text = chance.choice(("same", f"{len(expected)} ü\n\tx", "\\N"))
            entries.append(line(text, ticks, boot=boot, realtime=START + offset + ticks))
            expected.append(text)
        append(journal / f"{file}.journal", entries)

    async with Proxy(tmp_path, cluster.directory) as through:
        for half in range(2):
            for _ in range(3):
                async with Daemon(journal, store, database.owner, boot).running():
                    async with Daemon(journal, store, database.owner, boot).running():
                        for _ in range(4):
                            await asyncio.to_thread(write, chance.randrange(1, 120))
                            await asyncio.sleep(chance.random() / 20)
                            match chance.randrange(4):
                                case 0:
                                    through.cut()
                                case 1:
                                    await asyncio.to_thread(database.kill_backends, "helmd-journal")
                                case 2:
                                    through.lose_answers_to_commit = chance.randrange(1, 3)
                                case 3:
                                    await through.close()
                                    await through.open()
            if half == 0:
                async with Daemon(journal, store, database.owner, boot).running():
                    await stored(database, len(expected))
                # A new boot, its clock an hour behind, and the last boot's newest file has lost itself.
                (journal / f"{file}.journal").unlink()
                boot, offset, ticks, file = BOOT_B, -3600 * SECOND, SECOND, file + 1
        through.lose_answers_to_commit = 0
        async with Daemon(journal, store, database.owner, boot).running():
            await stored(database, len(expected))
            await asyncio.sleep(0.2)
    assert sorted(texts(database)) == sorted(expected)
