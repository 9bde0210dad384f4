"""Searches return the same as a filter over all rows, with any set of indexes."""

import asyncio
import random
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from helmd.model.errors import UsageError
from helmd.model.logs import index_policy as decisions
from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import TEXT_MODES, LogFilter, PageCursor, page_cursor_of, words_of
from helmd.model.logs.level import LEVELS
from helmd.store.logs import counts, scan_estimate, search
from helmd.store.logs.counts import Histogram, Total, histogram, total
from helmd.store.logs.entries import StoredEntry
from helmd.store.logs.export import export
from helmd.store.logs.search import Page
from helmd.store.maintenance import indexes as sealing
from helmd.store.maintenance.partitions import leaves
from helmd.store.session import Connection, connect
from tests.store.conftest import STALLED, Database
from tests.store.stored import BASE, CLASSES, append, everything, find, random_rows
from tests.waiting import WITHIN

DAY = timedelta(days=1)
TEXTS = (
    "error",
    "ERROR",
    "err",
    "%",
    "_",
    "a_b",
    "\\",
    "100%",
    "(error)",
    "time-out",
    "x",
    "42",
    "ï",
    "no such",
    "er er",
    "*?",
)
EXPRESSIONS = (r"err|time", r"^x", r"\d\d$", r"a.b", r"[*]\?", r"(error) .*\1", "err(or)?s?", "zzz", r"\merror\M")


def is_wanted(wanted: LogFilter, row: LogRow) -> bool:
    """Return a second implementation of the filter."""
    if wanted.sources is None and row.duplicate_of is not None:
        return False
    for chosen, value in (
        (wanted.services, row.service_name),
        (wanted.levels, row.level),
        (wanted.sources, row.source),
        (wanted.streams, row.stream),
    ):
        if chosen is not None and value not in chosen:
            return False
    if (wanted.start is not None and row.timestamp < wanted.start) or (wanted.end and row.timestamp >= wanted.end):
        return False
    if wanted.trace_id not in (None, row.trace_id) or wanted.user_id not in (None, row.user_id):
        return False
    if wanted.text is None:
        return True
    if wanted.mode == "substring":
        return wanted.text.lower() in row.message.lower()
    if wanted.mode == "regex":
        return (
            re.search(wanted.text.replace(r"\m", r"\b").replace(r"\M", r"\b"), row.message, re.IGNORECASE) is not None
        )
    return all(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", row.message, re.IGNORECASE) for word in words_of(wanted.text)
    )


def random_filter(chosen: random.Random) -> LogFilter:
    def some(names: list[str]) -> frozenset[str] | None:
        return frozenset(chosen.sample(names, chosen.randint(1, 2))) if chosen.random() < 0.3 else None

    def instant() -> datetime | None:
        return BASE + timedelta(seconds=chosen.randint(-9_000, 4 * 86_400 + 9_000)) if chosen.random() < 0.3 else None

    mode = chosen.choice(TEXT_MODES)
    text = chosen.choice(EXPRESSIONS if mode == "regex" else TEXTS)
    return LogFilter(
        services=some(list(CLASSES)),
        levels=some(list(LEVELS)),
        start=instant(),
        end=instant(),
        trace_id=f"t{chosen.randrange(60)}" if chosen.random() < 0.15 else None,
        user_id=f"u{chosen.randrange(25)}" if chosen.random() < 0.15 else None,
        text=text if chosen.random() < 0.6 else None,
        mode=mode,
        sources=some(["journal", "http", "helm", "systemd"]),
        streams=some(["stdout", "stderr"]),
    )


async def all_pages(
    connection: Connection, wanted: LogFilter, limit: int, seconds: float = 30.0, *, oldest_first: bool = False
) -> list[StoredEntry]:
    found: list[StoredEntry] = []
    place: PageCursor | None = None
    while True:
        page = await find(connection, wanted, limit, place, seconds=seconds, oldest_first=oldest_first)
        found += page.entries
        assert len(page.entries) <= limit
        if page.next is None:
            return found
        place = page_cursor_of(str(page.next))


async def index_some(database: Database, monkeypatch: pytest.MonkeyPatch, rows: list[LogRow]) -> None:
    """Seal one day; index ranges of the other days, and leave the rest without index."""
    monkeypatch.setattr(decisions, "MAX_UNINDEXED", 100)
    monkeypatch.setattr(sealing, "MAX_UNINDEXED", 100)
    writer = await connect(database.store, "writer")
    owner = await sealing.connect_as_owner(database.owner)
    assert owner is not None
    step = len(rows) // 4
    for begin in range(0, len(rows), step):
        await append(writer, rows[begin : begin + step])
        if begin < 3 * step:
            await sealing.index_text(owner, BASE)
    assert await sealing.seal(owner, BASE + DAY + timedelta(hours=2), lambda *_: True, True)
    await owner.close()
    await writer.close()


@pytest.mark.parametrize("common", [1, 10_000], ids=["by index", "looked through"])
async def test_every_filter_returns_its_matches_page_by_page(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch, common: int
) -> None:
    monkeypatch.setattr(scan_estimate, "MIN_CHUNK", 50)
    monkeypatch.setattr(scan_estimate, "MAX_CHUNK", 100)
    monkeypatch.setattr(scan_estimate, "COMMON_CHUNKS", common)
    await index_some(database, monkeypatch, random_rows(3_000, seed=common))
    stored = await everything(connection)
    assert len(stored) == 3_000
    assert {sealed for (sealed,) in database.query("SELECT sealed FROM log_partitions")} == {True, False}
    assert database.query("SELECT max(cardinality(text_bounds)) > 1 FROM log_partitions") == [(True,)]
    chosen = random.Random(common)
    hits = 0
    for _ in range(120):
        wanted = random_filter(chosen)
        expected = [entry for entry in stored if is_wanted(wanted, entry.row)]
        hits += bool(expected)
        assert await all_pages(connection, wanted, chosen.choice((1 + len(expected) // 5, 1_000))) == expected, wanted
        reverse = await all_pages(connection, wanted, 1 + len(expected) // 3, oldest_first=True)
        assert reverse == expected[::-1], wanted
        assert (await total(connection, wanted, 30.0)).entries == len(expected), wanted
        offset = chosen.randrange(len(expected) + 2)
        page = await find(connection, wanted, 7, offset=offset, seconds=WITHIN)
        assert list(page.entries) == expected[offset : offset + 7], wanted
        monkeypatch.setattr(search, "_DEEP_OFFSET", -1)
        if offset:
            assert (await find(connection, wanted, 7, offset=offset, seconds=WITHIN)) == page, wanted
        monkeypatch.setattr(search, "_DEEP_OFFSET", 2_000)
    assert hits > 60


async def test_entries_with_the_same_time_are_paged_by_id(connection: Connection) -> None:
    await append(connection, [LogRow(BASE, service, "INFO", f"line {n}") for n in range(60) for service in CLASSES])
    for limit in (1, 7, 240):
        found = await all_pages(connection, LogFilter(), limit)
        assert [entry.id for entry in found] == sorted((entry.id for entry in found), reverse=True)
        assert len(found) == 240


async def test_empty_future_days_are_skipped(connection: Connection) -> None:
    ahead = datetime.now(UTC).replace(hour=12) + 2 * DAY
    await connection.execute("SELECT make_log_partition(90::smallint, %s)", ((ahead - DAY).date(),))
    await append(
        connection, [LogRow(ahead, "codex", "INFO", "to come"), LogRow(ahead - 4 * DAY, "codex", "INFO", "was")]
    )
    assert [entry.row.message for entry in await all_pages(connection, LogFilter(), 5)] == ["to come", "was"]


async def test_a_search_is_continued_after_the_time_limit(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_estimate, "MIN_CHUNK", 20)
    monkeypatch.setattr(scan_estimate, "MAX_CHUNK", 20)
    await append(connection, random_rows(2_000, seed=5))
    stored = await everything(connection)
    for wanted in (
        LogFilter(text="err"),
        LogFilter(text="zzzz"),
        LogFilter(text="x"),
        LogFilter(levels=frozenset({"DEBUG"})),
    ):
        found: list[StoredEntry] = []
        place: PageCursor | None = None
        ended_early = 0
        while True:
            page = await find(connection, wanted, 50, place, seconds=0.01)
            found += page.entries
            if page.searched_to is not None:
                ended_early += 1
                assert page.next is not None
                assert page.next.timestamp == page.searched_to
            if page.next is None:
                break
            place = page_cursor_of(str(page.next))
        assert found == [entry for entry in stored if is_wanted(wanted, entry.row)]


async def test_a_time_limit_of_zero_is_reported_and_can_be_continued(connection: Connection) -> None:
    await append(connection, random_rows(30, seed=1))
    page = await find(connection, LogFilter(), 10, seconds=0.0)
    assert page.entries == ()
    assert page.next is not None
    assert page.searched_to == page.next.timestamp
    again = await find(connection, LogFilter(), 100, page_cursor_of(str(page.next)))
    assert len(again.entries) == 30
    for offset in (1, 5_000):
        with pytest.raises(UsageError, match="offset"):
            await find(connection, LogFilter(), 10, offset=offset, seconds=0.0)


async def test_invalid_and_slow_expressions(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_SAMPLE_SECONDS", 0.2)
    await append(connection, [LogRow(BASE, "codex", "INFO", "x" * 301 + "y") for _ in range(50)])
    for bad in ("(", "[a", "*a", r"a{2,1}", "(a{1,255}){1,255}"):
        for asked in (
            find(connection, LogFilter(text=bad, mode="regex"), 5),
            total(connection, LogFilter(text=bad, mode="regex"), 1.0),
        ):
            with pytest.raises(UsageError, match="q: invalid regular expression"):
                await asked
    runaway = LogFilter(text=r"^(x*)(x*)(x*)(x+)\1\2\3\4y$", mode="regex")
    begun = time.monotonic()
    with pytest.raises(UsageError, match="takes too long"):
        await find(connection, runaway, 5, seconds=0.3)
    assert (await total(connection, runaway, 0.3)).estimate
    assert time.monotonic() - begun < STALLED / 2
    # The connection is as good as before.
    assert len((await find(connection, LogFilter(), 100)).entries) == 50


async def test_dropping_a_partition_does_not_fail_a_reader(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(connection, random_rows(400, seed=3))
    listed = leaves
    victims = [str(name) for (name,) in database.query("SELECT leaf FROM log_partitions ORDER BY leaf")]
    armed = False

    async def and_drop(*given: object) -> object:
        nonlocal armed
        found = await listed(*given)  # type: ignore[arg-type]
        if armed:
            armed, name = False, victims.pop()
            database.query(
                f"WITH gone AS (DELETE FROM log_partitions WHERE leaf = '{name}' RETURNING 1) SELECT 1 FROM gone"
            )
            with psycopg.connect(database.owner, autocommit=True) as owner:
                owner.execute(f"DROP TABLE {name}".encode())
        return found

    for module in ("search", "counts", "export"):
        monkeypatch.setattr(f"helmd.store.logs.{module}.leaves", and_drop)
    text = LogFilter(text="err")

    async def matching(wanted: LogFilter) -> list[StoredEntry]:
        return [entry for entry in await everything(connection) if is_wanted(wanted, entry.row)]

    async def exported() -> int:
        return sum([chunk.count(b"\n") async for chunk in export(connection, LogFilter(), "ndjson")])

    async def once(asked: object) -> object:
        nonlocal armed
        armed = True
        answer = await asked  # type: ignore[misc]
        assert not armed
        return answer

    page = await once(find(connection, LogFilter(), 1_000))
    assert isinstance(page, Page)
    assert list(page.entries) == await matching(LogFilter())
    found = await once(find(connection, text, 1_000))
    assert isinstance(found, Page)
    assert list(found.entries) == await matching(text)
    number = await once(total(connection, text, 5.0))
    assert number == replace(await total(connection, text, 5.0), entries=len(await matching(text)))
    counted = await once(histogram(connection, text, BASE, BASE + 4 * DAY, DAY))
    assert isinstance(counted, Histogram)
    sums = sum(sum(bucket.levels.values()) for bucket in counted.buckets)
    assert sums == len(await matching(text))
    assert await once(exported()) == len(await matching(LogFilter()))


async def test_rows_stored_meanwhile_do_not_change_pages(connection: Connection, database: Database) -> None:
    await append(connection, random_rows(600, seed=9))
    before = await everything(connection)
    writer = await connect(database.store, "writer")
    stopped = asyncio.Event()

    async def write() -> None:
        n = 0
        while not stopped.is_set():
            n += 1
            await append(writer, [LogRow(BASE + 5 * DAY + timedelta(seconds=n), "codex", "INFO", f"error {n}")])

    writing = asyncio.create_task(write())
    page = await find(connection, LogFilter(text="err"), 5)
    while len(page.entries) < 5 or page.entries[0].row.timestamp < BASE + 5 * DAY:
        page = await find(connection, LogFilter(text="err"), 5)
    assert page.next is not None
    found, place = list(page.entries), page.next
    while place is not None:
        page = await find(connection, LogFilter(text="err"), 50, place)
        found += page.entries
        place = page.next  # type: ignore[assignment]
    stopped.set()
    await writing
    await writer.close()
    assert found[-len([e for e in before if "err" in e.row.message.lower()]) :] == [
        entry for entry in before if "err" in entry.row.message.lower()
    ]
    assert len({entry.id for entry in found}) == len(found)


async def test_a_trace_on_an_open_day_is_found_without_a_sequential_scan(
    connection: Connection, database: Database
) -> None:
    """There it has an index by ranges of pages alone, from which the planner expects nearly all rows."""
    chosen = random.Random(9)
    traces = [f"{chosen.randrange(16**12):012x}" for _ in range(7_000)]
    rows = [
        LogRow(BASE + timedelta(seconds=n), "codex", "INFO", "x" * 200, trace_id=traces[n // 3]) for n in range(20_000)
    ]
    await append(connection, rows)
    owner = await connect(database.owner, "owner")
    await owner.execute("VACUUM ANALYZE log_entries")
    await owner.close()
    wanted = LogFilter(trace_id=traces[4_000])
    stored = [entry.row for entry in await everything(connection) if is_wanted(wanted, entry.row)]

    async def sequential_scans() -> int:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        cursor = await connection.execute(
            "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname ~ '^log_entries_'"
        )
        return int((await cursor.fetchone() or (0,))[0])

    before = await sequential_scans()
    page = await find(connection, wanted, 100)
    assert [entry.row for entry in page.entries] == stored
    assert await total(connection, wanted, WITHIN) == Total(len(stored)) == Total(3)
    assert await sequential_scans() == before


async def test_plans_of_searches_over_many_days_are_kept(connection: Connection) -> None:
    await append(connection, random_rows(500, seed=2))
    stored = await everything(connection)
    for wanted in (LogFilter(user_id="u3"), LogFilter(user_id="u4"), LogFilter(user_id="u5")):
        page = await find(connection, wanted, 100)
        assert list(page.entries) == [entry for entry in stored if is_wanted(wanted, entry.row)]
    cursor = await connection.execute(
        "SELECT max(generic_plans), sum(custom_plans) FROM pg_prepared_statements WHERE statement LIKE '%user_id%'"
    )
    assert await cursor.fetchone() == (3, 0)


async def test_searches_over_a_year_have_enough_locks(connection: Connection, database: Database) -> None:
    """With the lock table size of Helm's cluster; planning locks each index of each partition."""
    # Making 500 partitions may take longer than a statement of the daemons may.
    await connection.execute("SET statement_timeout = 0")
    for kept in (7, 30, 90, 365):
        await connection.execute(
            "SELECT count(make_log_partition(%s::smallint, %s::date - n)) FROM generate_series(0, %s) AS n",
            (kept, BASE, kept),
        )
    others = [await connect(database.store, "reader") for _ in range(3)]
    searches = [find(each, LogFilter(text=f"zqx{n}jkv"), 100) for n, each in enumerate(others)]
    assert await asyncio.gather(*searches) == [Page(())] * 3
    for each in others:
        await each.close()
