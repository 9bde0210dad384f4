"""The history of all services in the last hours and days, for the overview. Read on demand, then cached."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from helmd.model.errors import StoreError
from helmd.model.metrics.summaries import DayShare, MinuteValues
from helmd.operations.logs.reader import LogReader
from helmd.store.metrics.summaries import day_shares, increases, last_of_levels, minute_values
from helmd.store.session import Pool

DAYS = 90
SPARK = timedelta(hours=1)
HEALTH_METRIC = "health"
"""The metric: 1 while a service is healthy, 0.5 while degraded, 0 while failing; no sample while it is stopped."""
_ERRORS = ("ERROR", "CRITICAL")
_KEPT_SECONDS, _FRESH_SECONDS, _WAIT_SECONDS, _READ_SECONDS = 20.0, 90.0, 1.5, 4.0
_PAST_SECONDS = 3600.0
"""Interval in seconds in which past days are read again."""
_DAY = timedelta(days=1)
_NO_VALUES = MinuteValues((), ())


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """The recent history of one service."""

    levels: Mapping[str, int] = field(default_factory=dict)
    """Log entries of the last 24 hours by level."""
    last_error: datetime | None = None
    """Time of its last error, to the minute; if that is long ago, to the hour."""
    restarts: int = 0
    """Automatic restarts in the last 24 hours."""
    cpu: MinuteValues = _NO_VALUES
    memory: MinuteValues = _NO_VALUES
    """Percent of a processor, and MiB, by minute of the last hour."""
    days: Mapping[date, DayShare] = field(default_factory=dict)
    """Its health by UTC day."""
    last_trouble: datetime | None = None
    """When it was last not healthy, to five minutes; None if unknown."""


class ServiceHistory:
    """Reads on connections of POOL; READER counts log entries."""

    def __init__(self, pool: Pool, reader: LogReader) -> None:
        self._pool = pool
        self._reader = reader
        self._found: Mapping[str, ServiceRecord] = {}
        self._days: dict[tuple[str, date], DayShare] = {}
        self._read_at = self._past_at = -_PAST_SECONDS
        self._reading: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why the data is outdated, as a sentence; empty if it is not."""

    async def records(self) -> Mapping[str, ServiceRecord]:
        """Return the histories by service: cached ones while fresh enough; slow queries are left to the next call."""
        age = time.monotonic() - self._read_at
        if self._reading is None and age >= _KEPT_SECONDS:
            self._reading = asyncio.create_task(self._read())
        if self._reading is not None and age >= _FRESH_SECONDS:
            await asyncio.wait([self._reading], timeout=_WAIT_SECONDS)
        return self._found

    async def _read(self) -> None:
        try:
            self._found = await self._collect(datetime.now(UTC))
            self.trouble = ""
        except StoreError as error:
            self.trouble = error.sentence
        finally:
            self._read_at = time.monotonic()
            self._reading = None

    async def _collect(self, now: datetime) -> Mapping[str, ServiceRecord]:
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        past = time.monotonic() - self._past_at >= _PAST_SECONDS
        first = today - (DAYS - 1) * _DAY
        async with self._pool.connection("reading the history of services", _READ_SECONDS) as connection:
            minutes = await minute_values(connection, ("cpu_percent", "memory_mb"), now - SPARK)
            restarts = await increases(connection, "restarts", now - _DAY)
            errors = await last_of_levels(connection, _ERRORS, first)
            days = await day_shares(connection, HEALTH_METRIC, first if past else today)
        levels = await self._reader.level_counts(now - _DAY)
        if past:
            self._days.clear()
            self._past_at = time.monotonic()
        self._days.update(days)
        names = {*levels, *errors, *restarts, *(name for name, _ in minutes), *(name for name, _ in self._days)}
        return {
            name: ServiceRecord(
                levels.get(name, {}),
                errors.get(name),
                restarts.get(name, 0),
                minutes.get((name, "cpu_percent"), _NO_VALUES),
                minutes.get((name, "memory_mb"), _NO_VALUES),
                {day: share for (service, day), share in self._days.items() if service == name},
                max((share.below for (of, _), share in self._days.items() if of == name and share.below), default=None),
            )
            for name in names
        }
