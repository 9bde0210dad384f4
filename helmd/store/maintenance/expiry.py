"""Dropping the days whose time is over. What that means is `helmd.model.logs.retention`'s to say."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from psycopg import sql

from helmd.model.errors import StoreError
from helmd.model.logs.retention import (
    AHEAD_DAYS,
    METRIC_DAYS,
    Held,
    Partition,
    clock_warnings,
    days_by_arrival,
    decide,
    followed,
    is_to_be_dropped,
    warnings,
)
from helmd.store.session import Connection, store_errors, unlimited

_RECENT = 1_000
"""Entries among which the newest is looked for: those that came last, whatever their dates."""
BUILT = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
"""When Helm was built, or this file was written: no right clock is before it."""
_LONGEST_ROUND = 600.0
"""Seconds that count as running time at once, at most."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A table whose days expire: ``registry`` lists its partitions, ``retention`` is SQL for a partition's class."""

    table: str
    registry: str
    retention: str
    what: str


LOGS = _Kind("log_entries", "log_partitions", "retention", "log entries")
METRICS = _Kind("service_metrics", "metric_partitions", f"{METRIC_DAYS}::smallint", "metrics")


class Round(NamedTuple):
    """What a round of `expire` did: partitions that were dropped, and why others were not, as sentences."""

    dropped: list[str]
    warnings: list[str]


async def expire(connection: Connection, now: datetime, elapsed: float, synchronized: bool = False) -> Round:
    """Drops what has expired; ELAPSED are the seconds since the last round. SYNCHRONIZED: the clock is.

    Needs the owner's rights.

    A partition that somebody is reading is left for the next time, said by a StoreError once the others are dropped.
    """
    with store_errors("what has expired can't be looked up"):
        seconds = round(min(max(elapsed, 0.0), _LONGEST_ROUND))
        follower = followed(await _clock(connection), seconds, now, synchronized)
        cursor = await connection.execute(
            "UPDATE store_upkeep SET seconds = seconds + %s, clock = %s RETURNING seconds", (seconds, follower)
        )
        found = await cursor.fetchone()
        assert found is not None
        running = int(found[0])
        newest = await newest_entry(connection)
    dropped: list[str] = []
    said = clock_warnings(now, follower, BUILT)
    failed: StoreError | None = None
    for kind in (LOGS, METRICS):
        with store_errors("what has expired can't be looked up"):
            partitions = await _partitions(connection, kind, now, running)
            expiry = decide(partitions, now, follower if newest is None else min(follower, newest), running)
            for name, at in expiry.expired_at.items():
                registry = sql.Identifier(kind.registry)
                await connection.execute(
                    sql.SQL("UPDATE {} SET expired_at = %s WHERE leaf = %s").format(registry), (at, name)
                )
        said += warnings(expiry.held, kind.what, now, newest if kind is LOGS else None)
        try:
            dropped += await drop_partitions(connection, expiry.drop, kind)
        except StoreError as error:
            if connection.broken or connection.closed:
                raise
            failed = failed or error
    if failed is not None:
        raise failed
    return Round(dropped, said)


async def retention_warnings(connection: Connection, now: datetime) -> list[str]:
    """What retention does not do and why, as sentences. Raises StoreError."""
    with store_errors("how retention stands can't be read"):
        said = clock_warnings(now, await _clock(connection), BUILT)
        newest = await newest_entry(connection)
        for kind in (LOGS, METRICS):
            cursor = await connection.execute(
                sql.SQL("SELECT {}, count(expired_at), count(*) FROM {} GROUP BY 1 ORDER BY 1").format(
                    sql.SQL(kind.retention), sql.Identifier(kind.registry)
                )
            )
            held = [Held(*row) async for row in cursor]
            held = [each for each in held if each.expired > each.at_once]
            said += warnings(held, kind.what, now, newest if kind is LOGS else None)
    return said


async def _clock(connection: Connection) -> datetime:
    """The time by which days expire, as it was at the last round."""
    cursor = await connection.execute("SELECT clock FROM store_upkeep")
    found = await cursor.fetchone()
    assert found is not None
    time: datetime = found[0]
    return time


async def newest_entry(connection: Connection) -> datetime | None:
    """The latest time among the entries that came last; None when there is no entry. Raises psycopg's errors.

    Entries that came earlier may be dated ahead of these, by a clock that was wrong then.
    """
    cursor = await connection.execute(
        "SELECT max(timestamp) FROM log_entries WHERE id > (SELECT max(id) FROM log_entries) - %s", (_RECENT,)
    )
    found = await cursor.fetchone()
    return found[0] if found else None


async def drop_partitions(connection: Connection, partitions: Iterable[Partition], kind: _Kind = LOGS) -> list[str]:
    """Drops PARTITIONS, and what is counted of log entries in them; their names. Raises StoreError as `expire`."""
    dropped = []
    kept: StoreError | None = None
    pending = await _pending(connection)
    # PostgreSQL detaches one at a time of each class: first the one where it was broken off.
    for partition in sorted(partitions, key=lambda each: each.name not in pending):
        try:
            with store_errors(f"the expired partition {partition.name} can't be dropped"):
                await _drop(connection, partition, kind)
        except StoreError as error:
            if connection.broken or connection.closed:
                raise
            kept = kept or error
        else:
            dropped.append(partition.name)
    if kept is not None:
        raise kept
    return dropped


async def _partitions(connection: Connection, kind: _Kind, now: datetime, running: int) -> list[Partition]:
    cursor = await connection.execute(
        sql.SQL("SELECT leaf, {}, day, begun, begun_up, expired_at FROM {}").format(
            sql.SQL(kind.retention), sql.Identifier(kind.registry)
        )
    )
    found = [Partition(*row) async for row in cursor]
    days = days_by_arrival(found, now.date())
    ahead = now.date() + timedelta(days=AHEAD_DAYS)
    partitions = []
    for each in found:
        if each.day > ahead:
            each = replace(each, empty=await _is_empty(connection, each))
        elif days[each.name] != each.day or is_to_be_dropped(each, now.date(), running):
            each = replace(each, begun=max(each.begun, await _highest_id(connection, each)))
        partitions.append(each)
    return partitions


async def _highest_id(connection: Connection, partition: Partition) -> int:
    statement = sql.SQL("SELECT coalesce(max(id), 0) FROM {}").format(sql.Identifier(partition.name))
    found = await (await connection.execute(statement)).fetchone()
    return int(found[0]) if found else 0


async def _is_empty(connection: Connection, partition: Partition) -> bool:
    cursor = await connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(partition.name)))
    return await cursor.fetchone() is None


async def _pending(connection: Connection) -> set[str]:
    with store_errors("the log store can't be kept up"):
        cursor = await connection.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending")
        return {name async for (name,) in cursor}


async def _drop(connection: Connection, partition: Partition, kind: _Kind) -> None:
    parent = f"{kind.table}_{partition.retention}" if kind is LOGS else kind.table
    await _detach(connection, partition.name, parent)
    async with connection.transaction():
        await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(partition.name)))
        await connection.execute(
            sql.SQL("DELETE FROM {} WHERE leaf = %s").format(sql.Identifier(kind.registry)), (partition.name,)
        )
        for table in ("log_counts_minute", "log_counts_hour") if kind is LOGS else ():
            await connection.execute(
                sql.SQL("DELETE FROM {} WHERE retention = %s AND slot >= %s AND slot < %s + interval '1 day'").format(
                    sql.Identifier(table)
                ),
                (partition.retention, _midnight(partition.day), _midnight(partition.day)),
            )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def _detach(connection: Connection, name: str, parent: str) -> None:
    cursor = await connection.execute(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass(%s)", (name,)
    )
    attached = await cursor.fetchone()
    if attached is None:
        return
    if not attached[0]:
        # Once begun it keeps all others of its class from being detached until this day's last reader is gone.
        async with connection.transaction():
            lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT")
            await connection.execute(lock.format(sql.Identifier(name)))
    statement = sql.SQL("ALTER TABLE {} DETACH PARTITION {} " + ("FINALIZE" if attached[0] else "CONCURRENTLY"))
    async with unlimited(connection):
        await connection.execute(statement.format(sql.Identifier(parent), sql.Identifier(name)))
