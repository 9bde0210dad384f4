"""Days expire in a real store: logs with their counts, metrics, posted batches; whatever the clock says."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg import AsyncConnection

from helmd.model.errors import StoreError
from helmd.model.logs.entry import LogRow
from helmd.model.logs.parsing.journal_fields import gap_row
from helmd.model.logs.parsing.position import Gap, Missing
from helmd.model.logs.retention import HOLD_SECONDS, METRIC_DAYS, Partition
from helmd.operations.diagnostics.store import _findings
from helmd.store.ingest import requests
from helmd.store.ingest.requests import KEPT_HOURS, PostedStore, RefusedError, Request, drop_old_requests
from helmd.store.maintenance.expiry import drop_partitions, expire, retention_warnings
from helmd.store.metrics.metrics import MetricSample
from helmd.store.metrics.service_status import StatusRow, put_statuses
from helmd.store.session import Connection
from tests.store.conftest import Database
from tests.store.stored import append, everything, put_samples, read_samples, read_statuses

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
FAR, LONG_AGO = datetime(2038, 1, 19, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("long_rounds")


def row(at: datetime, message: str = "line") -> LogRow:
    return LogRow(at, "codex", "INFO", message)


async def days(connection: Connection, number: int, last: datetime = NOW) -> None:
    """A line for each of NUMBER days, the oldest first, and a measurement for each of the last 30."""
    for n in range(number - 1, -1, -1):
        await append(connection, [row(last - n * DAY)])
        if n < 30:
            await put_samples(connection, [MetricSample("codex", last - n * DAY, "cpu_percent", float(n))])


async def begun_long_ago(owner: Connection) -> None:
    """As if helmd had run for the time that the partitions show."""
    await owner.execute("UPDATE store_upkeep SET seconds = seconds + %s", (100 * 86_400,))


async def run(owner: Connection, clock: datetime, hours: int) -> list[str]:
    dropped: list[str] = []
    for hour in range(hours):
        dropped += (await expire(owner, clock, 3600 if hour or hours > 1 else 0)).dropped
    return dropped


@pytest.mark.parametrize("wrong", [FAR, LONG_AGO])
async def test_a_wrong_clock_empties_nothing(connection: Connection, owner: Connection, wrong: datetime) -> None:
    await days(connection, 12)
    await append(connection, [row(wrong, "written meanwhile")])
    await put_samples(connection, [MetricSample("codex", wrong, "cpu_percent", 1.0)])
    assert await run(owner, wrong, 23) == []
    said = await retention_warnings(owner, wrong)
    assert ("days ahead of the time by which days expire" if wrong == FAR else "Helm was built") in said[0]
    # Set right again, and entries come.
    await append(connection, [row(NOW)] * 1000)
    assert await run(owner, NOW, 30) == []
    assert len(await everything(connection)) == 1013
    assert len(await read_samples(connection, "codex", LONG_AGO, FAR + DAY)) == 13
    assert await retention_warnings(owner, NOW) == []


async def test_a_clock_before_what_was_stored_is_said(connection: Connection, owner: Connection) -> None:
    await days(connection, 3)
    assert "is behind the newest" in (await retention_warnings(owner, LONG_AGO))[1]
    assert "is behind the newest" in (await expire(owner, LONG_AGO, 0)).warnings[1]


async def test_what_is_past_its_time_goes(connection: Connection, owner: Connection, database: Database) -> None:
    await days(connection, 95)
    await begun_long_ago(owner)
    dropped = await run(owner, NOW, 26)
    logs = [name for name in dropped if name.startswith("log_entries")]
    assert logs == [f"log_entries_90_{NOW - n * DAY:%Y%m%d}" for n in (94, 93, 92, 91)]
    assert len([name for name in dropped if name.startswith("service_metrics")]) == 3
    assert any("metrics kept for 14 days" in said for said in await retention_warnings(owner, NOW))
    await run(owner, NOW, 24 * 20)
    kept = await read_samples(connection, "codex", NOW - 200 * DAY, NOW + DAY)
    assert len(kept) == METRIC_DAYS + 1
    assert len(await everything(connection)) == 91
    assert database.query("SELECT sum(entries) FROM log_counts_hour") == [(91,)]
    assert await retention_warnings(owner, NOW) == []


async def test_running_time_continues_after_a_restart(connection: Connection, owner: Connection) -> None:
    await days(connection, 92)
    await begun_long_ago(owner)
    await expire(owner, NOW, 0)
    half = HOLD_SECONDS / 2 + 1
    assert (await expire(owner, NOW, half)).dropped == []
    assert len((await expire(owner, NOW, half)).dropped) > 1


async def test_posted_batches_are_remembered_whatever_the_clock(
    connection: Connection, owner: Connection, database: Database
) -> None:
    """The database's clock can't be set here: what counts is that its times are not asked."""
    posted = await PostedStore.open(database.store, lambda _: 90)
    request = Request(str(uuid4()), "codex", "key", 1)
    assert await posted.append([request], [[row(NOW)]]) == [1]
    owner_sql = "UPDATE ingest_requests SET received_at = '1990-01-01' RETURNING 1"
    database.query(owner_sql)
    await drop_old_requests(owner)
    assert database.query("SELECT count(*) FROM ingest_requests") == [(1,)]
    await expire(owner, NOW, KEPT_HOURS * 3600)
    await drop_old_requests(owner)
    assert database.query("SELECT count(*) FROM ingest_requests") == [(1,)]
    await expire(owner, NOW, 60)
    await drop_old_requests(owner)
    assert database.query("SELECT count(*) FROM ingest_requests") == [(0,)]
    await posted.close()


async def test_a_batch_whose_record_expires_while_it_is_sent_again_is_stored_by_a_retry(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(str(uuid4()), "codex", "key", 1)
    await append_posted(database, request)
    execute = AsyncConnection.execute

    async def expiring(self: AsyncConnection[Any], statement: Any, *values: Any, **options: Any) -> Any:
        if statement is requests._KNOWN:
            database.query("DELETE FROM ingest_requests RETURNING 1")
        return await execute(self, statement, *values, **options)

    with monkeypatch.context() as patched:
        patched.setattr(AsyncConnection, "execute", expiring)
        with pytest.raises(StoreError, match="expired") as raised:
            await append_posted(database, request)
    assert not isinstance(raised.value, RefusedError)
    assert await append_posted(database, request) == [1]
    assert database.query("SELECT count(*) FROM log_entries") == [(2,)]


async def append_posted(database: Database, request: Request) -> list[int]:
    posted = await PostedStore.open(database.store, lambda _: 90)
    try:
        return await posted.append([request], [[row(NOW)]])
    finally:
        await posted.close()


async def test_a_state_written_by_a_clock_ahead_is_replaced(connection: Connection) -> None:
    await put_statuses(connection, [StatusRow("core", "running", FAR)])
    await put_statuses(connection, [StatusRow("core", "stopped", NOW)])
    assert [status.status for status in await read_statuses(connection)] == ["stopped"]
    await put_statuses(connection, [StatusRow("core", "error", NOW - DAY)])
    assert [status.status for status in await read_statuses(connection)] == ["stopped"]


async def test_an_entry_for_a_partition_that_was_dropped_is_not_refused(
    connection: Connection, owner: Connection, database: Database
) -> None:
    """A writer remembers which partitions there are. What it then can't store is tried again, not given up."""
    posted = await PostedStore.open(database.store, lambda _: 90)
    for _ in range(2):
        await posted.append([Request(str(uuid4()), "codex", None, 1)], [[row(NOW)]])
    day = NOW.date()
    await drop_partitions(owner, [Partition(f"log_entries_90_{day:%Y%m%d}", 90, day, 0)])
    with pytest.raises(StoreError) as raised:
        await posted.append([Request(str(uuid4()), "codex", None, 1)], [[row(NOW)]])
    assert not isinstance(raised.value, RefusedError)
    again = await PostedStore.open(database.store, lambda _: 90)
    assert await again.append([Request(str(uuid4()), "codex", None, 1)], [[row(NOW)]]) == [1]
    await again.close()


async def test_doctor_reads_gaps_and_what_is_held(
    connection: Connection, owner: Connection, database: Database
) -> None:
    assert await _findings(database.store, NOW) == []
    second = int(NOW.timestamp()) * 1_000_000
    await append(
        connection,
        [
            gap_row(Gap(second - 10**6, second, Missing.UNREADABLE, 48), "host"),
            gap_row(Gap(second - 10**6, second, Missing.LOST), "host"),
            gap_row(Gap(second - 30 * 86_400 * 10**6, second - 29 * 86_400 * 10**6, Missing.LOST, 7), "host"),
        ],
    )
    said = [finding.sentence for finding in await _findings(database.store, NOW)]
    assert len(said) == 2
    assert any("at most 48 lines are missing" in each and "damaged" in each for each in said)
    await days(connection, 12)
    await append(connection, [row(FAR)])
    await expire(owner, FAR, 0)
    said = [finding.sentence for finding in await _findings(database.store, FAR)]
    assert any("days ahead of the time by which days expire" in each for each in said)


async def test_a_clock_ahead_is_said_at_once(connection: Connection, owner: Connection) -> None:
    assert (await expire(owner, NOW, 0)).warnings == []
    assert "not synchronized" in (await expire(owner, NOW + 30 * DAY, 15)).warnings[0]
    assert (await expire(owner, NOW + 15 * timedelta(seconds=1), 15)).warnings == []
    assert (await expire(owner, NOW + 30 * DAY, 15, synchronized=True)).warnings == []


async def test_a_clock_ahead_for_days_ages_no_entry_faster_than_running_time(
    connection: Connection, owner: Connection
) -> None:
    """New entries come with its dates meanwhile; and before there was a limit, a tenth of the days went each day."""
    await days(connection, 60)
    await begun_long_ago(owner)
    dropped: list[str] = []
    for hour in range(24 * 7):
        at = FAR + hour * timedelta(hours=1)
        await append(connection, [row(at, "new")])
        dropped += (await expire(owner, at, 3600)).dropped
    assert [name for name in dropped if name.startswith("log_entries")] == []
    for _ in range(48):
        await append(connection, [row(NOW + 7 * DAY)] * 25)
        dropped += (await expire(owner, NOW + 7 * DAY, 3600, synchronized=True)).dropped
    assert [name for name in dropped if name.startswith("log_entries")] == []
    assert len([each for each in await everything(connection) if each.row.message == "line"]) == 60 + 48 * 25


async def test_entries_written_before_the_clock_was_set_right_are_kept(
    connection: Connection, owner: Connection
) -> None:
    """A first boot in 1970, or with a clock that is behind by a retention: the clock is then synchronized."""
    for hours in range(3):
        await append(connection, [row(LONG_AGO + hours * timedelta(hours=1), "first")])
        await append(connection, [row(NOW - 100 * DAY + hours * timedelta(hours=1), "behind")])
        await expire(owner, LONG_AGO, 3600)
    await append(connection, [row(NOW, "right")])
    for hours in range(24 * 20):
        done = await expire(owner, NOW + hours * timedelta(hours=1), 3600, synchronized=True)
        assert [name for name in done.dropped if name.startswith("log")] == []
    kept = sorted(each.row.message for each in await everything(connection))
    assert kept == ["behind"] * 3 + ["first"] * 3 + ["right"]


async def test_boots_at_the_same_old_date_keep_its_day(connection: Connection, owner: Connection) -> None:
    """The clock has no battery: each boot begins in 1970, so that entries of many weeks are of one day."""
    begun = NOW - 130 * DAY
    for day in range(0, 131, 2):
        at = begun + day * DAY
        await append(connection, [row(at, f"day {day}")])
        if day and day % 10 == 0:
            await append(connection, [row(LONG_AGO, f"boot {day}")])
            await expire(owner, LONG_AGO, 3600)
        await expire(owner, at, 2 * 23 * 3600, synchronized=True)
        await expire(owner, at, 3600, synchronized=True)
    kept = {each.row.message for each in await everything(connection)}
    assert {f"boot {day}" for day in range(50, 131, 10)} <= kept
    assert {f"day {day}" for day in range(44, 131, 2)} <= kept
    assert "day 20" not in kept
