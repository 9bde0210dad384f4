"""Rows put into a store by its own writers, for tests that read them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial

from psycopg import sql

from helmd.model.logs.entry import HELM, HTTP, JOURNAL, SYSTEMD, LogRow
from helmd.model.logs.level import LEVELS
from helmd.model.suite.names import unit_of
from helmd.store.ingest.logs import Appended, Appender
from helmd.store.logs import search
from helmd.store.logs.columns import READ_SQL
from helmd.store.logs.entries import StoredEntry
from helmd.store.metrics.metrics import MetricSample, append_samples
from helmd.store.metrics.service_status import StatusRow
from helmd.store.session import Connection

BASE = datetime(2026, 3, 10, tzinfo=UTC)
"""Midnight; random rows are around it."""
find = partial(search.find, seconds=60.0)
"""Its own limit of a second ends a page early on a busy machine."""
CLASSES = {"core": 7, "nexus": 30, "codex": 90, "ledger": 365}
_WORDS = (
    "error",
    "Errors",
    "terror",
    "(error)",
    "time-out",
    "100%",
    "a_b",
    "axb",
    "back\\slash",
    "*?",
    "naïve",
    "x",
    "42",
)


def retention(service: str) -> int:
    return CLASSES.get(service, 90)


async def append(
    connection: Connection, rows: Sequence[LogRow], retention_of: Callable[[str], int] = retention
) -> Appended:
    """Append rows, each time by a new writer, in a transaction of its own."""
    async with connection.transaction():
        return await Appender(retention_of).append(connection, rows)


def random_rows(number: int, seed: int, days: int = 4) -> list[LogRow]:
    """Return rows of several services and days, many at the same time, as a search must distinguish them."""
    chosen = random.Random(seed)
    times = [
        BASE
        + timedelta(days=chosen.randrange(days), seconds=chosen.randrange(86_400), microseconds=chosen.choice((0, 1)))
        for _ in range(number // 3)
    ]
    return [
        LogRow(
            timestamp=chosen.choice(times),
            service_name=(service := chosen.choice(list(CLASSES))),
            level=chosen.choice(LEVELS),
            message=" ".join(chosen.choices(_WORDS, k=chosen.randrange(1, 5))),
            context=chosen.choice((None, {"n": n})),
            trace_id=chosen.choice((None, f"t{chosen.randrange(50)}")),
            user_id=chosen.choice((None, f"u{chosen.randrange(20)}")),
            source=chosen.choice((JOURNAL, JOURNAL, HTTP, HELM, SYSTEMD)),
            stream=chosen.choice((None, "stdout", "stderr")),
            unit=(None, unit_of(service), "helmd.service", unit_of("core"))[n % 4],
            boot_id=(None, "a" * 32, "b" * 32)[n % 3],
        )
        for n in range(number)
    ]


async def everything(connection: Connection) -> list[StoredEntry]:
    """Return all that is stored, the newest first, read as plainly as can be."""
    cursor = await connection.execute(
        sql.SQL("SELECT {} FROM log_entries ORDER BY timestamp DESC, id DESC").format(READ_SQL)
    )
    return [StoredEntry(number, LogRow(*rest)) async for number, *rest in cursor]


async def put_samples(connection: Connection, samples: Sequence[MetricSample]) -> None:
    """Store samples in a transaction of their own."""
    async with connection.transaction():
        await append_samples(connection, samples)


async def read_samples(
    connection: Connection, service: str, start: datetime, end: datetime, name: str | None = None
) -> tuple[MetricSample, ...]:
    """Return one service's samples from START up to but not including END, oldest first."""
    cursor = await connection.execute(
        "SELECT service_name, timestamp, metric_name, metric_value, tags FROM service_metrics"
        " WHERE service_name = %s AND timestamp >= %s AND timestamp < %s"
        " AND (%s::text IS NULL OR metric_name = %s) ORDER BY timestamp, id",
        (service, start, end, name, name),
    )
    return tuple([MetricSample(*row) async for row in cursor])


async def read_statuses(connection: Connection) -> tuple[StatusRow, ...]:
    """Return the states of all services, by name."""
    columns = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(StatusRow))
    cursor = await connection.execute(sql.SQL("SELECT {} FROM service_status ORDER BY service_name").format(columns))
    return tuple([StatusRow(*row) async for row in cursor])
