"""A line that a service both prints and posts is kept twice, and the later one says so."""

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from helmd.model.logs.entry import HTTP, JOURNAL, LogRow
from helmd.model.logs.ids import CHANGED, ID_LIMIT
from helmd.store.session import Connection, connect
from tests.store.conftest import Database
from tests.store.stored import BASE, append

MIDNIGHT = BASE + timedelta(days=1)


def line(source: str, seconds: float = 0.0, text: str = "said", service: str = "codex") -> LogRow:
    return LogRow(BASE + timedelta(hours=12, seconds=seconds), service, "INFO", text, source=source)


async def duplicate_of(connection: Connection) -> dict[int, int]:
    cursor = await connection.execute(
        "SELECT id, duplicate_of FROM log_entries WHERE duplicate_of IS NOT NULL ORDER BY id"
    )
    return dict(await cursor.fetchall())


@pytest.mark.parametrize(("first", "second"), [(JOURNAL, HTTP), (HTTP, JOURNAL)])
@pytest.mark.parametrize("apart", [-2.0, 0.0, 2.0])
async def test_the_later_refers_to_the_earlier(connection: Connection, first: str, second: str, apart: float) -> None:
    one = await append(connection, [line(first, text="other"), line(first)])
    other = await append(connection, [line(second, apart)])
    assert (one.duplicates, other.duplicates) == (0, 1)
    assert await duplicate_of(connection) == {other.first_id: one.last_id}


@pytest.mark.parametrize(
    "second",
    [
        line(HTTP, 2.000001),
        line(HTTP, -2.000001),
        line(HTTP, text="Said"),
        line(HTTP, text="said "),
        line(HTTP, service="core"),
        line(JOURNAL),
        line("helm"),
        line("systemd"),
    ],
)
async def test_others_are_lines_of_their_own(connection: Connection, second: LogRow) -> None:
    await append(connection, [line(JOURNAL)])
    await append(connection, [second])
    assert await duplicate_of(connection) == {}


@pytest.mark.parametrize("first", [JOURNAL, HTTP])
async def test_it_is_one_to_one(connection: Connection, first: str) -> None:
    second = HTTP if first == JOURNAL else JOURNAL
    one = await append(connection, [line(first, 0.1 * n) for n in range(3)])
    two = await append(connection, [line(second, 0.1 * n) for n in range(2)])
    three = await append(connection, [line(second, 0.1 * n) for n in range(2)])
    assert (two.duplicates, three.duplicates) == (2, 1)
    marked = await duplicate_of(connection)
    assert len(set(marked.values())) == 3
    assert set(marked.values()) == set(range(one.first_id, one.last_id + 1))
    # What was without a duplicate waits for one.
    assert (await append(connection, [line(first)])).duplicates == 1


async def test_both_in_one_batch(connection: Connection) -> None:
    done = await append(
        connection, [line(HTTP), line(JOURNAL, 1), line(JOURNAL, 1.5), line(HTTP, 1.6), line(HTTP, 1.7)]
    )
    assert await duplicate_of(connection) == {done.first_id + 1: done.first_id, done.first_id + 3: done.first_id + 2}


@pytest.mark.parametrize(("first", "second"), [(JOURNAL, HTTP), (HTTP, JOURNAL)])
@pytest.mark.parametrize("before", [True, False])
async def test_over_midnight(connection: Connection, first: str, second: str, before: bool) -> None:
    times = [MIDNIGHT - timedelta(seconds=0.5), MIDNIGHT + timedelta(seconds=0.5)]
    if not before:
        times.reverse()
    one = await append(connection, [LogRow(times[0], "codex", "INFO", "said", source=first)])
    two = await append(connection, [LogRow(times[1], "codex", "INFO", "said", source=second)])
    assert await duplicate_of(connection) == {two.first_id: one.first_id}
    # A third one finds that the first is taken, on another day than its own.
    assert (await append(connection, [LogRow(times[1], "codex", "INFO", "said", source=second)])).duplicates == 0


async def test_a_writer_that_is_new_knows_those_of_before(connection: Connection, database: Database) -> None:
    one = await append(connection, [line(JOURNAL)])
    again = await connect(database.store, "after a restart")
    two = await append(again, [line(HTTP)])
    await again.close()
    assert await duplicate_of(connection) == {two.first_id: one.first_id}


async def test_looking_for_duplicates_makes_no_partition(connection: Connection, database: Database) -> None:
    """A clock that was set: rows of 1970 and of today in one batch are not looked for on all the days between."""
    strange = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    rows = [LogRow(strange, "codex", "INFO", "said"), line(JOURNAL), line(HTTP, -86_400 * 40), line(HTTP)]
    assert (await append(connection, rows)).duplicates == 1
    assert database.query("SELECT day::text FROM log_partitions ORDER BY day") == [
        ("1970-01-01",),
        ("2026-01-29",),
        ("2026-03-10",),
    ]
    near_midnight = [
        LogRow(MIDNIGHT + timedelta(seconds=86_399), "codex", "INFO", "x", source=s) for s in (HTTP, JOURNAL)
    ]
    await append(connection, near_midnight)
    assert database.query("SELECT count(*) FROM log_partitions") == [(4,)]


async def test_the_same_line_thousands_of_times(connection: Connection) -> None:
    number = 10_000
    await append(connection, [line(HTTP, n / number) for n in range(number)])
    begun = time.monotonic()
    assert (await append(connection, [line(JOURNAL, n / number) for n in range(number)])).duplicates == number
    # Each against each would take a minute.
    assert time.monotonic() - begun < 15


async def test_ids_that_no_index_takes_are_cut_and_kept_whole(connection: Connection, database: Database) -> None:
    """From any source: a batch that is refused for its ids would be refused forever."""
    huge = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(3_000))
    rows = [
        line(source, n * 10, text=str(n))._replace(trace_id=trace, user_id=user, context=context)
        for n, (source, trace, user, context) in enumerate(
            (
                (JOURNAL, huge, huge[::-1], None),
                (HTTP, None, huge, {"a": 1}),
                ("helm", huge, "u", {CHANGED: "their own"}),
                (JOURNAL, "t" * ID_LIMIT, "ü" * 700, {"b": 2}),
            )
        )
    ]
    await append(connection, rows)
    cursor = await connection.execute("SELECT trace_id, user_id, context FROM log_entries ORDER BY timestamp")
    found = await cursor.fetchall()
    short = huge.encode()[: ID_LIMIT - ID_LIMIT % 3].decode()
    reverse = huge[::-1].encode()[: ID_LIMIT - ID_LIMIT % 3].decode()
    assert found == [
        (short, reverse, {CHANGED: {"trace_id": huge, "user_id": huge[::-1]}}),
        (None, short, {"a": 1, CHANGED: {"user_id": huge}}),
        (short, "u", {CHANGED: {"trace_id": huge, CHANGED: "their own"}}),
        ("t" * ID_LIMIT, "ü" * 700, {"b": 2}),
    ]
    # The longest have a place in the index that a day gets when it is over.
    with psycopg.connect(database.owner, autocommit=True) as owner:
        owner.execute("CREATE INDEX ON log_entries_90_20260310 (trace_id)")
