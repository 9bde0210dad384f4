"""Dropping expired partitions. `helmd.model.logs.retention` decides which these are."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from psycopg import sql

from helmd.model.errors import StoreError
from helmd.model.logs.retention import (
    AHEAD_DAYS,
    FIVE_MINUTE_DAYS,
    Held,
    Partition,
    clock_warnings,
    days_by_arrival,
    decide,
    followed,
    is_to_be_dropped,
    warnings,
)
from helmd.store.session import LOCK_CLASS, ROLL_UP_LOCK, Connection, store_errors, unlimited

_RECENT = 1_000
"""Number of entries, those inserted last, among which the newest timestamp is taken."""
BUILT = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
"""Modification time of this file, from the build or installation: a clock that is earlier is wrong."""
_LONGEST_ROUND = 600.0
"""Most seconds that one round adds to the running time."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A table with partitions that expire. ``registry`` is the table that lists these, ``what`` a noun for its rows."""

    table: str
    registry: str
    what: str


LOGS = _Kind("log_entries", "log_partitions", "log entries")
METRICS = _Kind("service_metrics", "metric_partitions", "metrics")


class Round(NamedTuple):
    """The result of `expire`: the partitions dropped, and why others were not, as sentences."""

    dropped: list[str]
    warnings: list[str]


async def expire(connection: Connection, now: datetime, elapsed: float, synchronized: bool = False) -> Round:
    """Drop expired partitions, as the owner of the tables.

    ELAPSED is the number of seconds since the last round, SYNCHRONIZED says whether the clock is (timedatectl(1)). A
    partition that is being read is left to the next round; a StoreError reports it once the others are dropped.
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
    dropped: list[str] = []
    said = clock_warnings(now, follower, BUILT)
    failed: StoreError | None = None
    for kind in (LOGS, METRICS):
        with store_errors("what has expired can't be looked up"):
            newest = await _newest(connection, kind)
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
    """Return why expired partitions are kept, as sentences. Raises StoreError."""
    with store_errors("how retention stands can't be read"):
        said = clock_warnings(now, await _clock(connection), BUILT)
        for kind in (LOGS, METRICS):
            cursor = await connection.execute(
                sql.SQL("SELECT retention, count(expired_at), count(*) FROM {} GROUP BY 1 ORDER BY 1").format(
                    sql.Identifier(kind.registry)
                )
            )
            held = [Held(*row) async for row in cursor]
            held = [each for each in held if each.expired > each.at_once]
            said += warnings(held, kind.what, now, await newest_entry(connection) if kind is LOGS else None)
    return said


async def _clock(connection: Connection) -> datetime:
    """Return the time that expiry is measured by, as of the last round."""
    cursor = await connection.execute("SELECT clock FROM store_upkeep")
    found = await cursor.fetchone()
    assert found is not None
    time: datetime = found[0]
    return time


async def newest_entry(connection: Connection) -> datetime | None:
    """Return the latest timestamp among the entries inserted last, or None if there are none. Raises psycopg.Error.

    Entries inserted earlier may have a later timestamp, if the clock was wrong then.
    """
    return await _newest(connection, LOGS)


async def _newest(connection: Connection, kind: _Kind) -> datetime | None:
    cursor = await connection.execute(
        sql.SQL("SELECT max(timestamp) FROM {0} WHERE id > (SELECT max(id) FROM {0}) - %s").format(
            sql.Identifier(kind.table)
        ),
        (_RECENT,),
    )
    found = await cursor.fetchone()
    return found[0] if found else None


async def drop_partitions(connection: Connection, partitions: Iterable[Partition], kind: _Kind = LOGS) -> list[str]:
    """Drop PARTITIONS and the counts of their log entries; return their names. Raises StoreError as `expire` does."""
    dropped = []
    kept: StoreError | None = None
    pending = await _pending(connection)
    # Only one partition of a table can be pending detach (ALTER TABLE), so an interrupted one comes first.
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
        sql.SQL("SELECT leaf, retention, day, begun, begun_up, expired_at FROM {}").format(
            sql.Identifier(kind.registry)
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
    with store_errors("the log store can't be maintained"):
        cursor = await connection.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending")
        return {name async for (name,) in cursor}


async def _drop(connection: Connection, partition: Partition, kind: _Kind) -> None:
    await _detach(connection, partition.name)
    async with connection.transaction():
        await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(partition.name)))
        await connection.execute(
            sql.SQL("DELETE FROM {} WHERE leaf = %s").format(sql.Identifier(kind.registry)), (partition.name,)
        )
        if kind is METRICS and partition.retention > FIVE_MINUTE_DAYS:
            await _forget_series(connection)
        for table in ("log_counts_minute", "log_counts_hour") if kind is LOGS else ():
            await connection.execute(
                sql.SQL("DELETE FROM {} WHERE retention = %s AND slot >= %s AND slot < %s + interval '1 day'").format(
                    sql.Identifier(table)
                ),
                (partition.retention, _midnight(partition.day), _midnight(partition.day)),
            )


async def _forget_series(connection: Connection) -> None:
    """Delete series without roll-ups. Writers are locked out, since they may be about to refer to one."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, ROLL_UP_LOCK))
    await connection.execute(
        "DELETE FROM metric_series WHERE NOT EXISTS (SELECT FROM metric_five_minutes WHERE series = metric_series.id)"
        " AND NOT EXISTS (SELECT FROM metric_minutes WHERE series = metric_series.id)"
    )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def _detach(connection: Connection, name: str) -> None:
    cursor = await connection.execute(
        "SELECT inhdetachpending, relname FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent"
        " WHERE inhrelid = to_regclass(%s)",
        (name,),
    )
    attached = await cursor.fetchone()
    if attached is None:
        return
    pending, parent = attached
    if not pending:
        # A pending detach blocks that of the table's other partitions until the last reader of this one has finished.
        async with connection.transaction():
            lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT")
            await connection.execute(lock.format(sql.Identifier(name)))
    statement = sql.SQL("ALTER TABLE {} DETACH PARTITION {} " + ("FINALIZE" if pending else "CONCURRENTLY"))
    async with unlimited(connection):
        await connection.execute(statement.format(sql.Identifier(parent), sql.Identifier(name)))
