"""Roll-ups of metrics in a real store: a short peak in a chart of months, gaps, late samples, wrong clocks, expiry."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest

from helmd.model.api.metrics import MOST_SAMPLES
from helmd.model.errors import StoreError
from helmd.model.logs.retention import FIVE_MINUTE_DAYS, METRIC_DAYS, MINUTE_DAYS
from helmd.store.ingest import takeover
from helmd.store.maintenance.expiry import expire, retention_warnings
from helmd.store.maintenance.migrate import migrate, migrations
from helmd.store.metrics.metrics import MetricSample
from helmd.store.session import Connection, connect
from tests.campaign import scaled
from tests.store.conftest import Database
from tests.store.log_server import Served, serving
from tests.store.stored import put_samples, read_samples

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
FAR, LONG_AGO = datetime(2038, 1, 19, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)
MINUTES, FIVE_MINUTES = ("metric_minutes", 60), ("metric_five_minutes", 300)
HALF_A_YEAR = 183

pytestmark = pytest.mark.usefixtures("long_rounds")


def cpu(at: datetime, value: float = 1.0, tags: dict[str, str] | None = None) -> MetricSample:
    return MetricSample("core", at, "cpu_percent", value, tags)


Rolled = dict[tuple[str, str, object, datetime], tuple[int, float, float, float]]


def rolled_up(samples: Iterable[MetricSample], seconds: int) -> Rolled:
    """Return what the roll-ups of SAMPLES have to be, made as plainly as can be."""

    def place(sample: MetricSample) -> tuple[str, str, str, datetime]:
        begins = datetime.fromtimestamp(sample.timestamp.timestamp() // seconds * seconds, UTC)
        return sample.service_name, sample.metric_name, str(dict(sample.tags or {})), begins

    found: Rolled = {}
    for key, group in groupby(sorted(samples, key=place), place):
        values = [sample.metric_value for sample in group]
        found[key] = len(values), sum(values), min(values), max(values)
    return found


def in_the_store(database: Database, table: str) -> Rolled:
    rows: list[Any] = database.query(
        f"SELECT service_name, metric_name, tags, begins, samples, total, minimum, maximum FROM {table}"
        " JOIN metric_series ON metric_series.id = series"
    )
    return {(service, name, str(tags), begins): tuple(rest) for service, name, tags, begins, *rest in rows}


async def generate(connection: Connection, days: int, value: str = "1 + mod(n, 7)", every: int = 15) -> None:
    """What core's processor did each EVERY seconds of the last DAYS, stored day by day."""
    for day in range(days, 0, -1):
        begins = NOW - day * DAY
        async with connection.transaction():
            # Of the two days that this spans.
            await connection.execute(
                "SELECT make_metric_partition(day) FROM unnest(%s::date[]) AS days (day)", ([begins, begins + DAY],)
            )
            await connection.execute(
                "INSERT INTO service_metrics (service_name, timestamp, metric_name, metric_value)"
                f" SELECT 'core', %s + n * interval '1 second', 'cpu_percent', {value}"
                " FROM generate_series(0, 86399, %s) AS n".encode(),
                (begins, every),
            )


async def test_roll_ups_are_right_whatever_the_order(connection: Connection, database: Database) -> None:
    chosen = random.Random(5)
    begins = NOW - 2 * DAY
    samples = [
        MetricSample(
            chosen.choice(("core", "codex")),
            begins + timedelta(seconds=chosen.randrange(3 * 3600), microseconds=chosen.randrange(10**6)),
            chosen.choice(("cpu_percent", "queue")),
            float(chosen.randrange(-1000, 1000)),
            chosen.choice((None, {}, {"queue": "mail"})),
        )
        for _ in range(3000)
    ]
    for first, last in pairwise(sorted({0, 3000, *(chosen.randrange(3000) for _ in range(12))})):
        await put_samples(connection, samples[first:last])
    for table, seconds in (MINUTES, FIVE_MINUTES):
        assert in_the_store(database, table) == rolled_up(samples, seconds)
    # What comes once its day is long over is in them as well.
    late = [cpu(NOW - 13 * DAY, 99.0), cpu(begins, 5000.0)]
    await put_samples(connection, late)
    for table, seconds in (MINUTES, FIVE_MINUTES):
        assert in_the_store(database, table) == rolled_up([*samples, *late], seconds)


async def test_what_failed_is_in_no_roll_up(connection: Connection, database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with connection.transaction():
            await put_samples(connection, [cpu(NOW)])
            raise ZeroDivisionError
    assert in_the_store(database, "metric_minutes") == {}


async def test_values_that_no_sum_can_have_do_no_harm(connection: Connection, database: Database) -> None:
    """Helm itself stores none such; another program, or an older Helm, may have."""
    await put_samples(
        connection, [cpu(NOW, value) for value in (1.7e308, 1.7e308, float("inf"), float("nan"), 5e-324, 2.0)]
    )
    ((samples, total, least, greatest),) = in_the_store(database, "metric_minutes").values()
    assert (samples, total, least, greatest) == (2, 2.0, 5e-324, 2.0)


async def test_helms_role_cannot_change_them(connection: Connection) -> None:
    await put_samples(connection, [cpu(NOW)])
    for statement in (
        "UPDATE metric_minutes SET maximum = 0",
        "DELETE FROM metric_five_minutes",
        "DELETE FROM metric_series",
    ):
        with pytest.raises(Exception, match="permission denied"):
            await connection.execute(statement.encode())


async def served_metrics(served: Served, **given: str) -> dict[str, Any]:
    status, body = await served.get("/api/metrics/core", "technician", **given)
    assert status == 200, body
    found: dict[str, Any] = body
    return found


async def test_a_peak_of_15_seconds_in_a_chart_of_6_months(
    connection: Connection, tmp_path: Path, database: Database
) -> None:
    every = scaled(15, 60)
    await generate(connection, HALF_A_YEAR, every=every)
    peak, gap = NOW - 100 * DAY, (NOW - 50 * DAY, NOW - 47 * DAY)
    await put_samples(connection, [cpu(peak, 387.5)])
    # A gap: its roll-ups are as if Helm had been off.
    for table in ("metric_minutes", "metric_five_minutes"):
        database.query(f"DELETE FROM {table} WHERE begins >= %s AND begins < %s RETURNING 1", *gap)
    async with serving(database.store, tmp_path) as served:
        since = (NOW - HALF_A_YEAR * DAY).isoformat()
        body = await served_metrics(served, start_time=since)
        points = body["metrics"]
        assert body["step"] == 21_600 and len(points) == len({point["timestamp"] for point in points}) < 1000
        (highest,) = [point for point in points if point["maximum"] > 7]
        assert highest["maximum"] == 387.5
        begins = datetime.fromisoformat(highest["timestamp"])
        assert begins <= peak < begins + timedelta(seconds=body["step"])
        assert highest["metric_value"] < 6, "the mean does not show it"
        assert {point["minimum"] for point in points} == {1.0}
        times = [datetime.fromisoformat(point["timestamp"]) for point in points]
        assert not [time for time in times if gap[0] <= time and time + timedelta(seconds=21_600) <= gap[1]]
        widest = max(newer - older for newer, older in pairwise(times))
        assert timedelta(days=2.5) <= widest <= timedelta(days=3.5)
        # The same measurements, whichever roll-up they are read from.
        counts = [point["count"] for point in points if point["timestamp"] > (NOW - 46 * DAY).isoformat()]
        assert counts[1:-1] == [21_600 // every] * (len(counts) - 2)
        narrow = {"start_time": (peak - DAY).isoformat(), "end_time": (peak + DAY).isoformat()}
        body = await served_metrics(served, **narrow, step="60")
        assert body["step"] == 300, "minutes of that time are not kept"
        assert max(point["maximum"] for point in body["metrics"]) == 387.5
        # More than can be shown is refused, with what can be.
        status, refused = await served.get("/api/metrics/core", start_time=since, step="300")
        assert (status, refused["code"]) == (400, "usage") and "ask for a step of 900 seconds" in refused["detail"]
        assert len((await served_metrics(served, start_time=since, step="900"))["metrics"]) <= MOST_SAMPLES


async def test_every_source_has_the_same_to_say(connection: Connection, tmp_path: Path, database: Database) -> None:
    await generate(connection, 15, "n / 86400.0")
    async with serving(database.store, tmp_path) as served:
        day = {
            "start_time": (NOW - 2 * DAY).isoformat(),
            "end_time": (NOW - DAY).isoformat(),
            "metric_name": "cpu_percent",
        }
        raw = (await served_metrics(served, **day))["metrics"]
        assert len(raw) == 5760 and all(sample["id"] for sample in raw)
        for step in (45, 60, 120, 300, 1000, 3600):
            body = await served_metrics(served, **day, step=str(step))
            assert body["step"] == step
            inner = [
                (datetime.fromisoformat(point["timestamp"]), point["metric_value"], point["minimum"], point["maximum"])
                for point in body["metrics"][1:-1]
            ]
            for begins, mean, least, greatest in inner[:5]:
                values = [
                    sample["metric_value"]
                    for sample in raw
                    if timedelta() <= datetime.fromisoformat(sample["timestamp"]) - begins < timedelta(seconds=step)
                ]
                assert (least, greatest) == (min(values), max(values))
                assert mean == pytest.approx(sum(values) / len(values))
        # More measurements than a reply can have become points by themselves.
        body = await served_metrics(served, start_time=(NOW - 13 * DAY).isoformat())
        assert body["step"] == 1800 and sum(point["count"] for point in body["metrics"]) >= 13 * 5760


async def expiring(owner: Connection, clock: datetime, days: int) -> list[str]:
    dropped: list[str] = []
    for day in range(days):
        dropped += (await expire(owner, clock + day * DAY, 86_401)).dropped
    return dropped


def leaves(database: Database, table: str) -> list[str]:
    found = database.query("SELECT leaf FROM metric_partitions WHERE leaf LIKE %s ORDER BY leaf", f"{table}_________")
    return [str(leaf) for (leaf,) in found]


async def test_each_kind_expires_in_its_time(connection: Connection, owner: Connection, database: Database) -> None:
    first = NOW - 420 * DAY
    for day in range(0, 421, 4):
        await put_samples(connection, [cpu(first + day * DAY, 1.0, {"day": "old"} if day < 9 else None)])
    assert len(leaves(database, "metric_five_minutes")) == 61
    await owner.execute("UPDATE store_upkeep SET seconds = seconds + %s", (500 * 86_400,))
    # The clock runs on meanwhile, but nothing is stored: what is kept is counted back from the newest.
    dropped = await expiring(owner, NOW, 60)
    assert len(await read_samples(connection, "core", first, NOW + DAY)) == METRIC_DAYS // 4 + 1
    assert len(in_the_store(database, "metric_minutes")) == MINUTE_DAYS // 4 + 1
    oldest = min(key[3] for key in in_the_store(database, "metric_five_minutes"))
    assert timedelta(days=FIVE_MINUTE_DAYS - 4) <= NOW - oldest <= timedelta(days=FIVE_MINUTE_DAYS + 8)
    assert any(name.startswith("metric_five_minutes_") for name in dropped)
    assert database.query("SELECT tags FROM metric_series") == [({},)], "a series that nothing is left of is forgotten"
    # The oldest go first.
    raw = [name for name in dropped if name.startswith("service_metrics_")]
    assert raw == sorted(raw)
    assert await retention_warnings(owner, NOW + DAY) == []


@pytest.mark.parametrize("wrong", [FAR, LONG_AGO])
async def test_a_wrong_clock_empties_nothing(
    connection: Connection, owner: Connection, database: Database, wrong: datetime
) -> None:
    for day in range(12, 0, -1):
        await put_samples(connection, [cpu(NOW - day * DAY)])
    await owner.execute("UPDATE store_upkeep SET seconds = seconds + %s", (500 * 86_400,))
    for hour in range(12):
        await put_samples(connection, [cpu(wrong + hour * timedelta(hours=1), 7.0)])
        assert (await expire(owner, wrong + hour * timedelta(hours=1), 3600)).dropped == []
    await put_samples(connection, [cpu(NOW)] * 1001)
    assert await expiring(owner, NOW, 2) == []
    for table in ("metric_minutes", "metric_five_minutes"):
        assert len([key for key in in_the_store(database, table) if abs(key[3] - NOW) < 20 * DAY]) == 13
        assert sum(row[0] for row in in_the_store(database, table).values()) == 12 + 12 + 1001


async def test_a_clock_that_goes_back_counts_both_times(connection: Connection, database: Database) -> None:
    """The hour is measured a second time: its points have all of it."""
    hour = NOW.replace(minute=0, second=0) - timedelta(hours=3)
    twice = [cpu(hour + timedelta(seconds=15 * n), float(n)) for n in range(240)]
    await put_samples(connection, twice)
    await put_samples(connection, [sample for sample in twice if sample.timestamp >= hour + timedelta(minutes=30)])
    counts = [row[0] for _, row in sorted(in_the_store(database, "metric_five_minutes").items())]
    assert counts == [20] * 6 + [40] * 6


async def test_two_writers_do_not_wait_for_one_another(connection: Connection, database: Database) -> None:
    names = [f"m{n}" for n in range(40)]
    other = await connect(database.store, "other")

    async def write(connection: Connection, order: Sequence[str]) -> None:
        for n in range(20):
            await put_samples(connection, [MetricSample("core", NOW, name, float(n)) for name in order])

    try:
        await asyncio.gather(write(connection, names), write(other, names[::-1]))
    finally:
        await other.close()
    assert {row[0] for row in in_the_store(database, "metric_minutes").values()} == {40}


async def test_what_was_there_before_is_rolled_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the migration, but by maintenance, which is interrupted while others store more."""
    await migrate(database.owner, "helm", migrations()[:5])
    before = [
        MetricSample("core", NOW - n * timedelta(minutes=7), f"m{n % 2}", float(n), {"a": "b"} if n % 3 else None)
        for n in range(2000)
    ]
    connection = await connect(database.store, "writer")
    await put_samples(connection, before)
    old = database.query("SELECT leaf, begun, begun_up FROM metric_partitions ORDER BY leaf")
    rows = database.query("SELECT * FROM service_metrics ORDER BY id")
    await migrate(database.owner, "helm")
    assert database.query("SELECT * FROM service_metrics ORDER BY id") == rows
    assert (
        database.query("SELECT leaf, begun, begun_up FROM metric_partitions WHERE retention = 14 ORDER BY leaf") == old
    )
    after = [cpu(NOW + timedelta(seconds=1), 3.0), *before[:1]]
    await put_samples(connection, after)
    for table, seconds in (MINUTES, FIVE_MINUTES):
        assert in_the_store(database, table) == rolled_up(after, seconds)
    batches = 0
    roll_up = takeover._roll_up_batch

    async def interrupted(owner: Connection, size: int) -> bool:
        nonlocal batches
        batches += 1
        after.append(cpu(NOW - batches * timedelta(minutes=5), batches))
        await put_samples(connection, after[-1:])
        if batches in (2, 7):
            await owner.close()
        return await roll_up(owner, size)

    monkeypatch.setattr(takeover, "_roll_up_batch", interrupted)
    monkeypatch.setattr(takeover, "_PAUSE", 0)
    for ends_well in (False, False, True):
        owner = await connect(database.owner, "maintenance")
        with nullcontext() if ends_well else pytest.raises(StoreError):
            await takeover.take_over(owner, lambda _: 90, lambda _: None, 10)
        await owner.close()
    for table, seconds in (MINUTES, FIVE_MINUTES):
        assert in_the_store(database, table) == rolled_up([*before, *after], seconds)
    assert database.query("SELECT finished, taken FROM store_takeovers WHERE source = 'service_metrics'") == [
        (True, 2000)
    ]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'service_metrics_id'::regclass"
    assert database.query(valid) == [(True,)]
    first = database.query("SELECT min(begun) FROM metric_partitions GROUP BY retention")
    assert len(set(first)) == 1, "they are as old as the measurements that they are made of"
    kept = database.query("SELECT DISTINCT retention FROM metric_partitions ORDER BY 1")
    assert kept == [(METRIC_DAYS,), (MINUTE_DAYS,), (FIVE_MINUTE_DAYS + 6,)]
    await connection.close()
