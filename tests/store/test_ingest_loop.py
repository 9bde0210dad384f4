"""The loop from journal files to the store: every line once, whatever breaks on the way."""

import asyncio
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest

from helmd.journal.damage import Truncated
from helmd.journal.reader import JournalReader
from helmd.lifecycle import end
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import StoreError
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.layout import layout
from helmd.model.logs.entry import LogRow
from helmd.model.logs.parsing.format_schema import read_formats
from helmd.model.logs.parsing.journal_fields import Value
from helmd.model.logs.parsing.parsed import Formats
from helmd.model.logs.parsing.position import Position
from helmd.operations.configuration.load import load_formats
from helmd.operations.logs import ingest
from helmd.operations.logs.ingest import Account, Ingest
from helmd.store.ingest.journal import JournalStore
from helmd.store.maintenance.migrate import migrate
from tests.signing import OWN, action_fields, posted_fields
from tests.store.conftest import Cluster, Database
from tests.store.journals import BOOT_A, BOOT_B, MACHINE, SECOND, START, UID, append, flip_bit, line
from tests.store.proxy import Proxy
from tests.waiting import WITHIN, eventually

SHARE = Path(__file__).resolve().parents[2]
FORMATS = load_formats(layout({}, SHARE, UID, SHARE))
RUNAWAY = "[formats.mine]\norder = 1\nfirst = '@'\npattern = '@(?P<message>(?:a+)+)\\$'\n"
"""A format that practically never ends for some lines."""


class Daemon:
    """An ingest loop as helmd-journal runs it, on a journal directory and a store of this test."""

    def __init__(
        self,
        journal: Path,
        store: str,
        owner: str,
        boot: str = BOOT_A,
        formats: Formats = FORMATS,
        **looks: Callable[..., Any],
    ) -> None:
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
            formats,
            prepare=prepare,
            beat=self._beat,
            set_status=self.said.append,
            own=OWN.read,
            **looks,
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
    monkeypatch.setattr(ingest, "CHUNK_ROWS", 13)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "journal"
    directory.mkdir()
    yield directory


def texts(database: Database) -> list[str]:
    """Return what is stored of the service ``core``, in the order of ids; nothing before the first migration."""
    if database.query("SELECT to_regclass('log_entries') IS NULL") == [(True,)]:
        return []
    found = database.query("SELECT message FROM log_entries WHERE service_name = 'core' ORDER BY id")
    return [str(message) for (message,) in found]


async def stored(database: Database, count: int) -> list[str]:
    """Return the messages once there are COUNT of them."""
    async with asyncio.timeout(WITHIN):
        while len(found := await asyncio.to_thread(texts, database)) < count:
            await asyncio.sleep(0.02)
    return found


async def holds(database: Database, text: str) -> bool:
    return text in await asyncio.to_thread(texts, database)


def numbered(first: int, last: int) -> list[bytes]:
    return [line(str(n), SECOND + n * 10) for n in range(first, last + 1)]


def numbers(first: int, last: int) -> list[str]:
    return [str(n) for n in range(first, last + 1)]


TRACEBACK = ("Traceback (most recent call last):", '  File "/app/run.py", line 3, in f', "    f()", "ValueError: no")


def lines_in(messages: list[str]) -> list[str]:
    """Return all lines, whichever entries they were joined to."""
    return [text for message in messages for text in message.split("\n")]


async def stored_lines(database: Database, expected: list[str]) -> None:
    """Wait until there are as many lines as EXPECTED has."""
    async with asyncio.timeout(WITHIN):
        while len(lines_in(await asyncio.to_thread(texts, database))) < len(lines_in(expected)):
            await asyncio.sleep(0.02)


async def seen(database: Database, statement: str, expected: list[tuple[Any, ...]]) -> None:
    """Wait until STATEMENT gives what is EXPECTED."""
    async with asyncio.timeout(WITHIN):
        while await asyncio.to_thread(database.query, statement) != expected:
            await asyncio.sleep(0.01)


def now() -> int:
    return time.time_ns() // 1000


async def test_what_is_there_and_what_comes(database: Database, journal: Path) -> None:
    append(journal / "a.journal", numbered(1, 100))
    async with Daemon(journal, database.store, database.owner).running() as daemon:
        assert await stored(database, 100) == numbers(1, 100)
        await asyncio.to_thread(append, journal / "a.journal", numbered(101, 150))
        assert await stored(database, 150) == numbers(1, 150)
        assert daemon.beats > 10
        await eventually(lambda: re.match("stored up to .* 150 rows since the start", daemon.said[-1]))
    newest = datetime.fromtimestamp((START + SECOND + 1500) / SECOND, UTC).isoformat(timespec="milliseconds")
    assert daemon.said[-1].startswith(f"stored up to {newest}, lag 0.0 s, ")


async def test_the_store_is_away_at_first_and_again_later(
    database: Database, journal: Path, cluster: Cluster, tmp_path: Path
) -> None:
    append(journal / "a.journal", numbered(1, 50))
    through = Proxy(tmp_path, cluster.directory)
    store, owner = (cluster.conninfo(role, database.name, tmp_path) for role in ("helm", "helm_owner"))
    async with Daemon(journal, store, owner).running() as daemon:
        away = "waiting: the log store can't be reached"
        await eventually(lambda: daemon.said and daemon.said[-1].startswith(away) and daemon.beats > 1)
        async with through:
            await stored(database, 50)
            await through.close()
            append(journal / "a.journal", numbered(51, 90))
            await eventually(lambda: "waiting" in daemon.said[-1])
            assert texts(database) == numbers(1, 50)
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
            await eventually(lambda: second.said and "another process is storing" in second.said[-1])
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


async def test_entries_of_other_units_move_the_position_now_and_then(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(journal / "a.journal", numbered(1, 10))
    shell = {"_SYSTEMD_USER_UNIT": "app-shell.scope", "SYSLOG_IDENTIFIER": "bash"}
    others = [line("other", SECOND * 2 + n, fields=shell) for n in range(40)]
    monkeypatch.setattr(ingest, "_POSITION_SECONDS", 0.0)
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 10)
        await asyncio.to_thread(append, journal / "a.journal", others)
        await eventually(lambda: database.query("SELECT monotonic FROM journal_cursor") == [(SECOND * 2 + 39,)])
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
            text = chance.choice(("same", f"{len(expected)} ü\n\tx", "\\N", *TRACEBACK, *TRACEBACK))
            pid = {"_PID": chance.choice("12")}
            entries.append(line(text, ticks, boot=boot, realtime=START + offset + ticks, fields=pid))
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
                    await stored_lines(database, expected)
                # A new boot, its clock an hour behind, and the last boot's newest file has lost itself.
                (journal / f"{file}.journal").unlink()
                boot, offset, ticks, file = BOOT_B, -3600 * SECOND, SECOND, file + 1
        through.lose_answers_to_commit = 0
        async with Daemon(journal, store, database.owner, boot).running():
            await stored_lines(database, expected)
            await asyncio.sleep(0.2)
    assert sorted(lines_in(texts(database))) == sorted(lines_in(expected))
    joined = database.query("SELECT count(*) FROM log_entries WHERE (context->>'lines')::int > 2 AND level = 'ERROR'")
    assert joined > [(5,)]


async def test_a_quiet_journal_is_looked_at_less_often(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_ACTIVE_SECONDS", 0.1)
    append(journal / "a.journal", numbered(1, 3))
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 3)
        await asyncio.sleep(1)
        looks, begun = 0, time.monotonic()
        has_more = JournalReader.has_more

        def counted(reader: JournalReader) -> bool:
            nonlocal looks
            looks += 1
            return has_more(reader)

        monkeypatch.setattr(JournalReader, "has_more", counted)
        await asyncio.sleep(2.5)
        await eventually(lambda: looks >= 5)
        assert looks <= (time.monotonic() - begun) / ingest._QUIET_POLL + 1


@pytest.mark.parametrize("notified", [1, 2, 3])
async def test_a_traceback_that_is_half_read_at_the_end_comes_once_and_whole(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch, notified: int
) -> None:
    monkeypatch.setattr(ingest, "HOLD_INCOMPLETE", 60 * SECOND)
    entries = [
        line(text, SECOND + n, realtime=now(), fields={"PRIORITY": "5"})
        for n, text in enumerate((*TRACEBACK, "INFO:app:after"))
    ]
    await migrate(database.owner, "helm")
    append(journal / "a.journal", entries[:notified])
    for _ in range(2):  # a restart of its own without anything new, too
        async with Daemon(journal, database.store, database.owner).running():
            kept = "SELECT monotonic, pending IS NOT NULL FROM journal_cursor"
            await seen(database, kept, [(SECOND + notified - 1, True)])
            assert texts(database) == []
    append(journal / "a.journal", entries[notified:])
    async with Daemon(journal, database.store, database.owner).running():
        assert await stored(database, 2) == ["\n".join(TRACEBACK), "after"]
        await seen(database, "SELECT pending IS NULL FROM journal_cursor", [(True,)])
    found = "SELECT level, stream, context FROM log_entries WHERE level = 'ERROR'"
    assert database.query(found) == [("ERROR", "stderr", {"lines": 4})]


@pytest.mark.parametrize("before", [1, 4])
@pytest.mark.parametrize(("old", "file"), [(0, "a"), (0, "b"), (60, "a"), (60, "b")])
async def test_a_traceback_that_stops_in_the_middle_is_waited_for(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch, before: int, old: int, file: str
) -> None:
    """As when journald begins a new file after so many of its lines, OLD seconds ago. But not forever."""
    booted, ticks = now() - SECOND, 0
    lines, whole = ("ERROR:app:failed", *TRACEBACK), "\n".join(("failed", *TRACEBACK))
    usual = {name: getattr(ingest, name) for name in ("HOLD_AT_REST", "HOLD_INCOMPLETE")}

    def hold(**given: int) -> None:
        for name, value in given.items():
            monkeypatch.setattr(ingest, name, value)

    def said(*texts: str) -> list[bytes]:
        nonlocal ticks
        entries = []
        for text in texts:
            ticks = now() - booted
            entries.append(line(text, ticks, realtime=now() - old * SECOND))
        return entries

    async def write(name: str, *texts: str) -> None:
        """Until they have been read: this process may stand still between any two lines, and journald as well."""
        hold(**dict.fromkeys(usual, 50 * SECOND))
        await asyncio.to_thread(append, journal / f"{name}.journal", said(*texts))
        await seen(database, "SELECT monotonic FROM journal_cursor", [(ticks,)])

    append(journal / "a.journal", said("1"))
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 1)
        # Only now, since the time that a daemon takes to start counts.
        await write("a", *lines[:before])
        await asyncio.sleep(2 * ingest.HOLD / SECOND)
        assert texts(database) == ["1"]
        await write(file, *lines[before:])
        hold(**usual)
        assert (await stored(database, 2))[-1] == whole
        await write("a", *lines[:4])
        hold(**usual)
        assert (await stored(database, 3))[-1] == whole.rpartition("\n")[0]


@pytest.mark.parametrize("ahead", [0, 3600])
async def test_an_error_at_the_end_waits_only_briefly(database: Database, journal: Path, ahead: int) -> None:
    """Also when the clock was set back since: by the clock, AHEAD seconds are still to pass."""
    append(journal / "a.journal", numbered(1, 5))
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 5)
        error = line("ERROR:app:alone", 2 * SECOND, realtime=now() + ahead * SECOND)
        await asyncio.to_thread(append, journal / "a.journal", [error])
        begun = time.monotonic()
        assert (await stored(database, 6))[-1] == "alone"
        assert time.monotonic() - begun < 5


async def test_a_line_is_stored_at_once_while_lines_come(database: Database, journal: Path) -> None:
    append(journal / "a.journal", numbered(1, 5))
    latency = 1.0
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 5)
        async with await psycopg.AsyncConnection.connect(database.store, autocommit=True) as connection:
            for n in range(6, 106):
                await asyncio.to_thread(append, journal / "a.journal", numbered(n, n))
                written = time.monotonic()
                while True:
                    cursor = await connection.execute("SELECT max(message::int) FROM log_entries")
                    if await cursor.fetchone() == (n,):
                        break
                    await asyncio.sleep(0.001)
                # The best of many, since other things may run beside this; journald's own word comes after 250 ms.
                latency = min(latency, time.monotonic() - written)
                if latency < 0.06:
                    break
    assert latency < 0.06


async def test_a_full_disk_pauses_and_what_came_meanwhile_follows(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(ingest, "_DISK_SECONDS", 0.0)
    full = ["less than 10 % of the disk is free"]
    append(journal / "a.journal", numbered(1, 30))
    daemon = Daemon(journal, database.store, database.owner, full=lambda: full[0])
    async with daemon.running():
        await eventually(lambda: any(said.startswith("waiting: less than 10 %") for said in daemon.said))
        beats = daemon.beats
        await eventually(lambda: daemon.beats > beats)
        assert texts(database) == []
        append(journal / "a.journal", numbered(31, 60))
        full[0] = ""
        assert await stored(database, 60) == numbers(1, 60)
        await eventually(lambda: "waiting" not in daemon.said[-1])
        full[0] = "less than 10 % of the disk is free"
        await eventually(lambda: daemon.said[-1].startswith("waiting: less than 10 %"))
        append(journal / "a.journal", numbered(61, 70))
        await asyncio.sleep(0.2)
        assert texts(database) == numbers(1, 60)
        full[0] = ""
        assert await stored(database, 70) == numbers(1, 70)


async def test_a_damaged_file_is_reported_once_over_restarts(database: Database, journal: Path) -> None:
    damaged = [Truncated("f1", journal / "x.journal", START, START + 5 * SECOND)]
    found = "SELECT context->>'gap', context->>'until' FROM log_entries WHERE service_name = 'helm' ORDER BY id"
    one = ("unreadable", "2023-11-14T22:13:25+00:00")

    def daemon() -> Daemon:
        return Daemon(journal, database.store, database.owner, damaged=lambda: list(damaged))

    async with daemon().running() as before:  # nothing is there with which it could be stored
        await eventually(lambda: before.said)
        await asyncio.to_thread(append, journal / "a.journal", numbered(1, 5))
        await seen(database, found, [one])
        await stored(database, 5)
    append(journal / "a.journal", numbered(6, 9))
    async with daemon().running():
        assert await stored(database, 9) == numbers(1, 9)
    assert database.query(found) == [one]
    damaged.append(Truncated("f2", journal / "y.journal", 0, 0))
    async with daemon().running():
        await seen(database, found, [one, ("unreadable", "1970-01-01T00:00:00+00:00")])
    async with daemon().running():
        append(journal / "a.journal", numbered(10, 12))
        await stored(database, 12)
    assert len(database.query(found)) == 2


@pytest.mark.parametrize("each", [1, 10])
async def test_lines_that_a_walk_passes_by_are_stored_although_it_stops_after_each_commit(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    """Later nobody looks at what is before a stored position."""
    monkeypatch.setattr(ingest, "SLICE_ENTRIES", 40)
    monkeypatch.setattr(ingest, "CHUNK_ROWS", 100)
    monkeypatch.setattr(ingest, "_FIRST_PAUSE", 0.0)
    append_rows, commits = JournalStore.append, 0

    async def stopped_after(*given: Any) -> None:
        nonlocal commits
        await append_rows(*given)
        commits += 1
        raise StoreError("stopped behind a commit")

    monkeypatch.setattr(JournalStore, "append", stopped_after)
    append(journal / "a.journal", [line(str(n), SECOND + n // each * 1000) for n in range(1, 1501)])
    # libsystemd takes a sequence number that is too high for the place of the entry that many behind.
    flip_bit(journal / "a.journal", 530, "seqnum", 8)
    append(journal / "b.journal", [line("1501", SECOND + 1501 * 1000)])
    async with Daemon(journal, database.store, database.owner).running():
        found = await stored(database, 1501)
    assert sorted(map(int, found)) == list(range(1, 1502))
    assert commits > 8
    assert database.query("SELECT 1 FROM log_entries WHERE context ? 'gap'") == []


async def test_steps_of_the_clock_are_reported_once(database: Database, journal: Path) -> None:
    def at(n: int, off: int) -> bytes:
        return line(str(n), SECOND + n * 10, realtime=START + SECOND + n * 10 + off * SECOND)

    append(journal / "a.journal", [at(n, 0) for n in range(1, 21)])
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 20)
    append(journal / "a.journal", [at(n, 3600) for n in range(21, 41)] + [at(n, -60) for n in range(41, 61)])
    for _ in range(2):
        async with Daemon(journal, database.store, database.owner).running():
            assert await stored(database, 60) == numbers(1, 60)
    found = database.query(
        "SELECT (context->>'seconds')::float, level FROM log_entries WHERE context->>'gap' = 'clock' ORDER BY id"
    )
    assert found == [(3600.0, "WARNING"), (-3660.0, "WARNING")]


def microseconds(timestamp: object) -> int:
    assert isinstance(timestamp, datetime)
    return (timestamp - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


async def test_a_damaged_time_makes_no_partition_of_its_own(database: Database, journal: Path) -> None:
    """The row has the time that its neighbours make plausible, and keeps the one that the damaged file has."""
    append(journal / "a.journal", numbered(1, 40))
    for number, bit in ((9, 53), (19, 49), (29, 47)):
        flip_bit(journal / "a.journal", number, "realtime", bit)
    async with Daemon(journal, database.store, database.owner).running():
        assert await stored(database, 40) == numbers(1, 40)
    days = "SELECT DISTINCT timestamp::date::text FROM log_entries WHERE service_name = 'core'"
    assert database.query(days) == [("2023-11-14",)]
    assert database.query("SELECT count(*) FROM log_partitions WHERE extract(year FROM day) = 2023") == [(1,)]
    rows = database.query(
        "SELECT message, (context->'_changed'->>'timestamp')::timestamptz, timestamp FROM log_entries"
        " WHERE context ? '_changed' ORDER BY message"
    )
    found = [(message, microseconds(given) ^ microseconds(stored)) for message, given, stored in rows]
    assert found == [("10", 1 << 53), ("20", 1 << 49), ("30", 1 << 47)]
    assert database.query("SELECT count(*) FROM log_entries WHERE context->>'gap' = 'clock'") == [(0,)]


async def test_posted_entries_come_in_once(database: Database, journal: Path) -> None:
    """What helmd wrote down while the store was away; the same batch may be in the journal twice, or in the store."""

    def written(number: int, request: int, ticks: int) -> bytes:
        row = LogRow(datetime.fromtimestamp(START // SECOND, UTC), "core", "ERROR", f"p{number}", source="http")
        signed = cast(dict[str, bytes], posted_fields(PostedRow(row, str(UUID(int=request))), START + ticks))
        fields = {name: value.decode() for name, value in signed.items()}
        message = fields.pop("MESSAGE")
        return line(message, ticks, fields={**fields, "_SYSTEMD_USER_UNIT": "helmd.service", "_TRANSPORT": "journal"})

    append(journal / "a.journal", [*numbered(1, 3), written(1, 1, 2 * SECOND), written(2, 2, 3 * SECOND)])
    async with Daemon(journal, database.store, database.owner).running():
        assert sorted(await stored(database, 5)) == ["1", "2", "3", "p1", "p2"]
    append(journal / "a.journal", [written(1, 1, 4 * SECOND), written(3, 3, 5 * SECOND), line("4", 6 * SECOND)])
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 7)
        await asyncio.sleep(0.2)
    assert sorted(texts(database)) == ["1", "2", "3", "4", "p1", "p2", "p3"]
    sources = database.query("SELECT source, level FROM log_entries WHERE left(message, 1) = 'p'")
    assert sources == [("http", "ERROR")] * 3


async def test_records_of_actions_come_in_once_and_forged_ones_are_lines(database: Database, journal: Path) -> None:
    def entry(fields: dict[str, Value], ticks: int, unit: str) -> bytes:
        text = {name: value.decode() for name, value in fields.items() if isinstance(value, bytes)}
        message = text.pop("MESSAGE")
        return line(message, ticks, fields={**text, "_SYSTEMD_USER_UNIT": unit, "_TRANSPORT": "journal"})

    done = action_fields(str(UUID(int=1)), START + SECOND)
    forged = {**done, "MESSAGE": b"stop core: done, for root"}
    entries = [
        entry(done, SECOND, "session.scope"),
        entry(done, SECOND + 1, "session.scope"),
        entry(done, SECOND + 2, "hivematrix-codex.service"),
        entry(forged, SECOND + 3, "session.scope"),
    ]
    append(journal / "a.journal", [*entries, line("1", SECOND + 4)])
    async with Daemon(journal, database.store, database.owner).running():
        await eventually(lambda: holds(database, "1"))
    append(journal / "a.journal", [entry(done, SECOND + 5, "session.scope"), line("2", SECOND + 6)])
    async with Daemon(journal, database.store, database.owner).running():
        await eventually(lambda: holds(database, "2"))
    found = database.query(
        "SELECT service_name, source, message FROM log_entries WHERE message LIKE '%% core: done%%' ORDER BY timestamp"
    )
    assert found == [
        ("core", "helm", "restart core: done"),
        ("codex", "journal", "restart core: done"),
        ("helm", "journal", "stop core: done, for root"),
    ]


async def test_a_pattern_that_takes_for_ever_does_not_stop_ingest(
    database: Database, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    formats = read_formats([ConfigSource("formats.toml", RUNAWAY)])
    hostile = "@" + "a" * 60 + "!"
    append(journal / "a.journal", [*numbered(1, 10), line(hostile, 2 * SECOND), line("11", 3 * SECOND)])
    daemon = Daemon(journal, database.store, database.owner, formats=formats)
    async with daemon.running():
        assert await stored(database, 12) == [*numbers(1, 10), hostile, "11"]
        append(journal / "a.journal", [line(hostile, 4 * SECOND), line("@aa$", 5 * SECOND)])
        assert (await stored(database, 14))[12:] == [hostile, "@aa$"]
        await eventually(lambda: "disabled because they take too long: formats.mine" in daemon.said[-1])
    assert daemon.loop.disabled == ["formats.mine"]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [text for text in warnings if "formats.mine" in text] == [
        "formats.mine in formats.toml takes too long; it is not used until the configuration is reloaded"
    ]


async def test_a_pattern_is_bounded_for_the_part_of_a_line_that_a_step_of_the_clock_ends(
    database: Database, journal: Path
) -> None:
    # Seconds, not hours: a test can't be ended meanwhile.
    hostile = "@" + "a" * 25 + "!"
    ahead = START + 3600 * SECOND
    # With one entry alone it would count as damage to that.
    entries = [line("0", SECOND, fields={"_PID": "9"}), line(hostile, SECOND + 1, fields={"_LINE_BREAK": "line-max"})]
    entries += [line(str(n), SECOND + 1 + n, realtime=ahead + n, fields={"_PID": "9"}) for n in range(1, 5)]
    append(journal / "a.journal", entries)
    formats = read_formats([ConfigSource("formats.toml", RUNAWAY)])
    daemon = Daemon(journal, database.store, database.owner, formats=formats)
    async with daemon.running():
        assert await stored(database, 6) == [*numbers(0, 4), hostile]
    assert daemon.loop.disabled == ["formats.mine"]


async def test_what_was_kept_and_can_not_be_read_stops_nothing(database: Database, journal: Path) -> None:
    append(journal / "a.journal", numbered(1, 5))
    async with Daemon(journal, database.store, database.owner).running():
        await stored(database, 5)
    for number, kept in enumerate(("[1]", '{"joining": {"open": [[1, 2]]}}', '{"joining": 5, "told": {"a": 1}}')):
        database.query("UPDATE journal_cursor SET pending = %s::jsonb RETURNING 1", kept)
        append(journal / "a.journal", numbered(6 + number, 6 + number))
        async with Daemon(journal, database.store, database.owner).running():
            assert await stored(database, 6 + number) == numbers(1, 6 + number)


async def test_an_error_before_the_clock_is_set_back_is_not_held(database: Database, journal: Path) -> None:
    """Neither by others' lines that go on, with earlier times than it has."""
    ahead = now() + 3600 * SECOND
    # With one entry alone it would count as damage to that.
    entries = [line("0", SECOND, realtime=ahead - SECOND, fields={"_PID": "9"})]
    entries += [line("ERROR:app:before", 2 * SECOND, realtime=ahead)]
    entries += [line(str(n), 2 * SECOND + n, realtime=ahead - 3600 * SECOND + n, fields={"_PID": "9"}) for n in (1, 2)]
    append(journal / "a.journal", entries)
    async with Daemon(journal, database.store, database.owner).running():
        assert sorted(await stored(database, 4)) == ["0", "1", "2", "before"]
        found = "SELECT (context->>'seconds')::float FROM log_entries WHERE context->>'gap' = 'clock'"
        await seen(database, found, [(-3600.0,)])


async def test_a_long_search_for_the_place_is_no_silence(
    database: Database, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beats go on meanwhile; and who ends the loop does not wait for it."""
    monkeypatch.setattr(ingest, "_HEARTBEAT_SECONDS", 0.01)
    append(journal / "a.journal", numbered(1, 5))
    seek, searching = JournalReader.seek, threading.Event()

    def slowly(reader: JournalReader, positions: dict[str, Position], alive: Callable[[], None]) -> None:
        searching.set()
        while not found.is_set():
            alive()
            time.sleep(0.01)
        seek(reader, positions, alive)

    found = threading.Event()
    monkeypatch.setattr(JournalReader, "seek", slowly)
    daemon = Daemon(journal, database.store, database.owner)
    async with daemon.running():
        await eventually(lambda: searching.is_set() and daemon.beats >= 20)
    searching.clear()
    async with daemon.running():
        await eventually(searching.is_set)
        found.set()
        assert await stored(database, 5) == numbers(1, 5)


async def test_the_first_batches_of_a_backlog_are_small(
    journal: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst takes little memory, and what was stored is not kept while there is nothing new."""
    monkeypatch.setattr(ingest, "CHUNK_ROWS", 80)
    monkeypatch.setattr(ingest, "_FIRST_ROWS", 20)
    stored_rows: list[list[LogRow]] = []
    chunks: list[Any] = []
    store, read = Ingest._store_if_needed, Ingest._read

    async def note_stored(self: Ingest, connection: JournalStore, chunk: Any) -> None:
        stored_rows.append(chunk.rows)
        await store(self, connection, chunk)

    async def note_read(self: Ingest) -> Any:
        chunks.append(await read(self))
        return chunks[-1]

    monkeypatch.setattr(Ingest, "_store_if_needed", note_stored)
    monkeypatch.setattr(Ingest, "_read", note_read)
    append(journal / "a.journal", numbered(1, 400))
    async with Daemon(journal, database.store, database.owner).running():
        assert await stored(database, 400) == numbers(1, 400)
        await eventually(lambda: all(not chunk.rows for chunk in chunks))
    sizes = [len(rows) for rows in stored_rows if rows]
    # A slice has seven entries.
    assert [size // 20 for size in sizes[:4]] == [1, 2, 4, 4]
