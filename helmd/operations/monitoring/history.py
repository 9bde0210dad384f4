"""Measurements for those who ask, from the store."""

from datetime import datetime

from helmd.model.api.metrics import MOST_SAMPLES, MetricsReply
from helmd.store.metrics.history import newest_means, newest_samples
from helmd.store.session import Pool

_SECONDS = 2.0


class MetricHistory:
    """On connections of POOL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(
        self, service: str, start: datetime, end: datetime, name: str | None, step: int | None
    ) -> MetricsReply:
        """Measurements of SERVICE, or their means over STEP seconds; NAME is one metric. Raises StoreError."""
        async with self._pool.connection("reading metrics", _SECONDS) as connection:
            if step is None:
                found = await newest_samples(connection, service, start, end, name, MOST_SAMPLES + 1)
            else:
                found = await newest_means(connection, service, start, end, name, step, MOST_SAMPLES + 1)
        more = True if len(found) > MOST_SAMPLES else None
        return MetricsReply(service, start, end, tuple(found[:MOST_SAMPLES]), more)
