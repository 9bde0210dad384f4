"""Rows that PostgreSQL refuses for their content: isolated, stored as text or reported, and passed."""

import random
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from helmd.model.errors import StoreError
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import LogRow
from helmd.model.logs.parsing.position import Position
from helmd.store.ingest.journal import JournalStore
from helmd.store.maintenance.migrate import migrate
from tests.store.conftest import Database
from tests.store.journals import BOOT_A, MACHINE, UID

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POSITION = Position(BOOT_A, "s=1;i=1", 1_767_323_045_000_000, 1, 1, False)

REFUSED = {
    "a day before 1970": {"timestamp": WHEN - timedelta(days=30_000)},
    "a number too large": {"process_id": 1 << 40},
    "NUL in the message": {"message": "nul \0 inside"},
    "half of a surrogate pair": {"message": "\ud800 half"},
    "NUL in the context": {"context": {"a": "\0"}},
    "no such level": {"level": "LOUD"},
    "a context that is not JSON": {"context": {"a": {1, 2}}},
}
"""What no reader of the journal makes, as far as is known."""


def rows(count: int) -> list[LogRow]:
    return [LogRow(WHEN + timedelta(milliseconds=n), "core", "INFO", f"line {n}") for n in range(count)]


async def opened(database: Database) -> JournalStore:
    await migrate(database.owner, "helm")
    return await JournalStore.open(database.store, MACHINE, UID, lambda _: 90)


def lines(database: Database) -> list[str]:
    found = database.query("SELECT message FROM log_entries WHERE message LIKE 'line %%' ORDER BY id")
    return [str(message) for (message,) in found]


@pytest.mark.parametrize("what", REFUSED)
async def test_one_is_stored_as_text_or_reported_and_the_others_as_they_are(database: Database, what: str) -> None:
    store = await opened(database)
    given = rows(1000)
    given[345] = given[345]._replace(**REFUSED[what])  # type: ignore[arg-type]
    await store.append(given, POSITION, None)
    # The connection and the position are usable.
    await store.append(rows(1001)[1000:], POSITION._replace(monotonic=2), POSITION)
    await store.close()
    expected = [f"line {n}" for n in range(1001) if n != 345]
    assert [text for text in lines(database) if text != "line 345"] == expected
    assert database.query("SELECT count(*) FROM log_entries") == [(1001,)]
    kept = database.query(
        "SELECT service_name, context FROM log_entries"
        " WHERE context ? '_unparsed' OR (level = 'WARNING' AND context->>'gap' = 'refused')"
    )
    assert len(kept) == 1, kept
    assert database.query("SELECT monotonic FROM journal_cursor") == [(2,)]
    counted = database.query("SELECT sum(entries) FROM log_counts_hour")
    assert counted == [(1001,)]


async def test_many_at_once_take_seconds_and_none_of_the_others_is_lost(database: Database) -> None:
    store = await opened(database)
    chance = random.Random(11)
    bad = set(chance.sample(range(16_000), 3_000))
    given = [row._replace(message=row.message + "\0") if n in bad else row for n, row in enumerate(rows(16_000))]
    begun = time.monotonic()
    await store.append(given, POSITION, None)
    print(f"3,000 refused rows of 16,000: {time.monotonic() - begun:.1f} s")
    await store.close()
    assert lines(database) == [f"line {n}" + ("\ufffd" if n in bad else "") for n in range(16_000)]


async def test_posted_entries_are_stored_once_beside_a_refused_row(database: Database) -> None:
    store = await opened(database)
    posted = [PostedRow(row, str(UUID(int=n + 1))) for n, row in enumerate(rows(20))]
    bad = LogRow(WHEN, "core", "INFO", "\0")
    await store.append([bad], POSITION, None, posted=posted[:10])
    await store.append([bad], POSITION._replace(monotonic=2), POSITION, posted=posted)
    await store.close()
    assert sorted(lines(database)) == sorted(row.row.message for row in posted)


async def test_a_posted_entry_that_cannot_be_registered_is_reported(database: Database) -> None:
    store = await opened(database)
    posted = [PostedRow(row, str(UUID(int=n + 1))) for n, row in enumerate(rows(8))]
    posted[3] = posted[3]._replace(entries=1 << 40)
    await store.append([], POSITION, None, posted=posted)
    await store.close()
    assert lines(database) == [f"line {n}" for n in range(8) if n != 3]
    reports = database.query("SELECT service_name, level, context->>'count' FROM log_entries WHERE context ? 'gap'")
    assert reports == [("helm", "WARNING", "1")]


async def test_what_is_kept_and_refused_keeps_no_line_out(database: Database) -> None:
    store = await opened(database)
    await store.append(rows(3), POSITION, None, {"joining": "\0"})
    await store.close()
    assert lines(database) == ["line 0", "line 1", "line 2"]
    assert database.query("SELECT pending FROM journal_cursor") == [(None,)]


@pytest.mark.parametrize("state", ["53100", "57P01", "55P03", "40001"])
async def test_a_store_in_trouble_is_not_taken_for_refused_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A full disk, a shutdown, a lock, a conflict: all of it is tried again later."""
    store = await opened(database)

    async def fail(*_: object) -> None:
        raise psycopg.errors.lookup(state)("no")

    monkeypatch.setattr("helmd.store.ingest.logs.Appender.append", fail)
    with pytest.raises(StoreError):
        await store.append(rows(3), POSITION, None)
    await store.close()
    monkeypatch.undo()
    assert lines(database) == []
    assert database.query("SELECT count(*) FROM journal_cursor") == [(0,)]
