"""Reading measurements from the store."""

from collections.abc import Collection
from datetime import UTC, datetime

from helmd.model.api.metrics import MOST_SAMPLES, MetricsReply
from helmd.model.metrics.steps import RAW, Span, automatic, check_points, kept_raw, span, too_many
from helmd.store.metrics.history import newest_points, newest_samples, series_of
from helmd.store.session import Connection, Pool

_SECONDS = 4.0


class MetricHistory:
    """Reads on connections of POOL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(
        self, service: str, start: datetime, end: datetime, names: Collection[str] | None, step: int | None
    ) -> MetricsReply:
        """Return measurements of SERVICE from START up to but not including END; NAMES are some metrics alone.

        With STEP, points of STEP seconds; without it, too, if there are too many measurements or they are not kept any
        more. Raises UsageError for too many points, and StoreError.
        """
        now = datetime.now(UTC)
        wanted = None if step is None else span(start, end, step, now)
        if step is not None and wanted is not None:
            check_points(wanted, step, MOST_SAMPLES)
        async with self._pool.connection("reading metrics", _SECONDS) as connection:
            if step is None and kept_raw(start, now):
                found = await newest_samples(connection, service, Span(start, end, 1, RAW), names, MOST_SAMPLES + 1)
                if len(found) <= MOST_SAMPLES:
                    return MetricsReply(service, start, end, tuple(found))
            return await self._points(connection, service, (start, end), names, step, now)

    async def _points(
        self,
        connection: Connection,
        service: str,
        times: tuple[datetime, datetime],
        names: Collection[str] | None,
        step: int | None,
        now: datetime,
    ) -> MetricsReply:
        series = await series_of(connection, service, names)
        wanted = automatic(*times, len(series), MOST_SAMPLES, now) if step is None else span(*times, step, now)
        found = await newest_points(connection, service, wanted, names, series, MOST_SAMPLES + 1)
        if step is not None and len(found) > MOST_SAMPLES:
            raise too_many(wanted, step, len(series), MOST_SAMPLES)
        more = True if len(found) > MOST_SAMPLES else None
        return MetricsReply(service, wanted.start, wanted.end, tuple(found[:MOST_SAMPLES]), wanted.step, more)
