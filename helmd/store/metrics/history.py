"""Measurements of a service over time, for those who ask."""

from collections.abc import Sequence
from datetime import datetime

from helmd.model.api.metrics import Sample
from helmd.store.session import Connection, store_errors

_WHERE = (
    " FROM service_metrics WHERE service_name = %s AND timestamp >= %s AND timestamp < %s"
    " AND (%s::text IS NULL OR metric_name = %s)"
)
_SAMPLES = f"SELECT id, timestamp, metric_name, metric_value, tags{_WHERE} ORDER BY timestamp DESC, id DESC LIMIT %s"
_MEANS = (
    "SELECT to_timestamp(floor(extract(epoch FROM timestamp) / %s) * %s) AS begins, metric_name,"  # noqa: S608
    f" avg(metric_value), min(metric_value), max(metric_value){_WHERE}"
    " GROUP BY begins, metric_name ORDER BY begins DESC, metric_name LIMIT %s"
)


async def newest_samples(
    connection: Connection, service: str, start: datetime, end: datetime, name: str | None, limit: int
) -> Sequence[Sample]:
    """The newest LIMIT measurements from START up to but not including END, the newest first. Raises StoreError."""
    with store_errors("metrics can't be read"):
        cursor = await connection.execute(_SAMPLES.encode(), (service, start, end, name, name, limit))
        return [Sample(row[0], service, *row[1:]) async for row in cursor]


async def newest_means(
    connection: Connection, service: str, start: datetime, end: datetime, name: str | None, step: int, limit: int
) -> Sequence[Sample]:
    """The newest LIMIT means over STEP seconds each, over measurements of all tags. Raises StoreError."""
    with store_errors("metrics can't be read"):
        cursor = await connection.execute(_MEANS.encode(), (step, step, service, start, end, name, name, limit))
        return [
            Sample(None, service, begins, metric, mean, None, least, greatest)
            async for begins, metric, mean, least, greatest in cursor
        ]
