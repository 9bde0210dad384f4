"""Counts by rollups and by scans equal those of counting each row."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter
from helmd.model.logs.level import LEVELS
from helmd.store.logs import counts
from helmd.store.logs.counts import Total, histogram, level_counts, total
from helmd.store.logs.entries import StoredEntry
from helmd.store.session import Connection
from tests.store.conftest import Database
from tests.store.stored import BASE, CLASSES, append, everything, random_rows

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def stored(connection: Connection) -> list[StoredEntry]:
    """Store rows in two batches, as rollups are incremented; without duplicates."""
    await append(connection, random_rows(1_500, seed=1))
    await append(connection, random_rows(1_500, seed=2))
    return [entry for entry in await everything(connection) if entry.row.duplicate_of is None]


def odd_time(chosen: random.Random) -> datetime:
    """Times at or near the edge of a minute, hour or day, or anywhere."""
    instant = BASE + timedelta(seconds=chosen.randrange(-3_600, 4 * 86_400 + 3_600))
    step = chosen.choice((MINUTE, HOUR, DAY, timedelta(microseconds=1)))
    return counts._floor(instant, step) + timedelta(microseconds=chosen.choice((-1, 0, 1)))


async def test_totals_of_arbitrary_ranges(connection: Connection, stored: list[StoredEntry]) -> None:
    chosen = random.Random(7)
    for _ in range(300):
        start = odd_time(chosen) if chosen.random() < 0.8 else None
        end = odd_time(chosen) if chosen.random() < 0.8 else None
        if start is not None and chosen.random() < 0.4:
            # Within a minute, an hour, nothing, or the wrong way round.
            end = start + timedelta(seconds=chosen.choice((-5, 0, 7, 59, 60, 61, 3_599, 3_600)))
        services = frozenset(chosen.sample(sorted(CLASSES), 2)) if chosen.random() < 0.5 else None
        levels = frozenset(chosen.sample(LEVELS, 2)) if chosen.random() < 0.5 else None
        wanted = LogFilter(services=services, levels=levels, start=start, end=end)
        expected = sum(
            (start is None or entry.row.timestamp >= start)
            and (end is None or entry.row.timestamp < end)
            and (services is None or entry.row.service_name in services)
            and (levels is None or entry.row.level in levels)
            for entry in stored
        )
        assert await total(connection, wanted, 10.0) == Total(expected), wanted


@pytest.mark.parametrize("hour", [22, 23])
async def test_totals_from_the_last_hours_of_the_year_9999_on(
    connection: Connection, stored: list[StoredEntry], hour: int
) -> None:
    """Python has no time to which they could be rounded up."""
    start = datetime(9999, 12, 31, hour, 59, 59, 500_000, tzinfo=UTC)
    assert await total(connection, LogFilter(start=start), 10.0) == Total(0)
    assert await total(connection, LogFilter(end=start), 10.0) == Total(len(stored))


@pytest.mark.parametrize("text", [None, "err"])
@pytest.mark.parametrize("step", [MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY])
async def test_a_histogram_has_every_entry_in_its_bucket(
    connection: Connection, stored: list[StoredEntry], step: timedelta, text: str | None
) -> None:
    start, end = BASE + timedelta(hours=5, seconds=7), BASE + timedelta(days=2, hours=3, seconds=1)
    found = await histogram(connection, LogFilter(text=text), start, end, step, seconds=60.0)
    assert found.counted_back_to is None
    first, last = found.buckets[0].start, found.buckets[-1].start + step
    assert first <= start < first + step
    assert last - step < end <= last
    assert [bucket.start for bucket in found.buckets] == [first + n * step for n in range((last - first) // step)]
    expected = Counter(
        (counts._floor(entry.row.timestamp, step), entry.row.level)
        for entry in stored
        if first <= entry.row.timestamp < last and (text is None or text in entry.row.message.lower())
    )
    assert {(b.start, level): n for b in found.buckets for level, n in b.levels.items()} == expected
    asked = LogFilter(text=text, start=first, end=last)
    assert (await total(connection, asked, 10.0)).entries == expected.total()


async def test_a_histogram_of_nothing(connection: Connection, stored: list[StoredEntry]) -> None:
    for text in (None, "err"):
        assert (await histogram(connection, LogFilter(text=text), BASE + HOUR, BASE, MINUTE)).buckets == ()
        assert (await histogram(connection, LogFilter(text=text), BASE, BASE, MINUTE)).buckets == ()


async def test_levels_since_a_minute(connection: Connection, stored: list[StoredEntry]) -> None:
    for since in (BASE, BASE + timedelta(days=1, hours=3, minutes=5), BASE + 100 * DAY):
        found = await level_counts(connection, since + timedelta(seconds=59))
        expected = Counter((e.row.service_name, e.row.level) for e in stored if e.row.timestamp >= since)
        assert {(service, level): n for service, levels in found.items() for level, n in levels.items()} == expected


async def test_large_totals_are_estimated(
    connection: Connection, stored: list[StoredEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "EXACT_UP_TO", 200)
    expected = sum("err" in entry.row.message.lower() for entry in stored)
    found = await total(connection, LogFilter(text="err"), 10.0)
    assert found.estimate
    assert 0.7 * expected < found.entries < 1.3 * expected
    assert await total(connection, LogFilter(), 10.0) == Total(len(stored))


async def test_a_total_is_estimated_from_the_newest_entries_on_timeout(
    connection: Connection, stored: list[StoredEntry]
) -> None:
    found = await total(connection, LogFilter(text="err"), 0.0)
    expected = sum("err" in entry.row.message.lower() for entry in stored)
    assert found.estimate
    assert 0.7 * expected < found.entries < 1.3 * expected
    assert (await total(connection, LogFilter(text="absent"), 0.0)) == Total(0, True)


async def test_common_matches_are_counted_if_there_are_few_rows(
    connection: Connection, stored: list[StoredEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sum("err" in entry.row.message.lower() for entry in stored)
    assert await total(connection, LogFilter(text="err"), 10.0, expensive=True) == Total(expected)
    monkeypatch.setattr(counts, "_FEW_ENTRIES", 100)
    found = await total(connection, LogFilter(text="err"), 10.0, expensive=True)
    assert found.estimate
    assert 0.7 * expected < found.entries < 1.3 * expected


async def test_a_duplicate_counts_only_if_its_source_is_requested(connection: Connection) -> None:
    await append(connection, [LogRow(BASE, "codex", "INFO", "said")])
    await append(connection, [LogRow(BASE, "codex", "INFO", "said", source="http")])
    assert await total(connection, LogFilter(), 1.0) == Total(1)
    assert await total(connection, LogFilter(text="said"), 1.0) == Total(1)
    assert await total(connection, LogFilter(sources=frozenset({"http"})), 1.0) == Total(1)
    assert await total(connection, LogFilter(sources=frozenset({"http", "journal"})), 1.0) == Total(2)
    assert await level_counts(connection, BASE) == {"codex": {"INFO": 1}}


async def test_counts_of_minutes_fill_their_pages(connection: Connection, database: Database) -> None:
    times = [BASE + number * MINUTE for number in range(100)]
    services = [f"service{number}" for number in range(7)]
    rows = [LogRow(time, service, level, "line") for time in times for service in services for level in LEVELS]
    await append(connection, rows)
    for _ in range(5):
        await append(connection, rows[-35:])
    measured = "SELECT count(*), sum(entries), pg_relation_size('log_counts_minute') / count(*) FROM log_counts_minute"
    ((found, entries, size),) = database.query(measured)
    assert (found, entries) == (3_500, 3_500 + 5 * 35)
    # 68 with PostgreSQL's head; 100 where a third of each page is left free.
    assert isinstance(size, int) and 60 < size < 85
