"""Writing samples of metrics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from helmd.store.session import Connection

_COPY = "COPY service_metrics (service_name, timestamp, metric_name, metric_value, tags) FROM STDIN"


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One row of ``service_metrics``; the fields are its columns, the unit depends on the metric."""

    service_name: str
    timestamp: datetime
    metric_name: str
    metric_value: float
    tags: Mapping[str, str] | None = None


async def append_samples(connection: Connection, samples: Sequence[MetricSample]) -> None:
    """Store samples within the caller's transaction; a trigger adds them to the roll-ups. Raises psycopg.Error."""
    async with connection.cursor() as cursor:
        days = sorted({sample.timestamp.astimezone(UTC).date() for sample in samples})
        await cursor.execute("SELECT make_metric_partition(day) FROM unnest(%s::date[]) AS days (day)", (days,))
        async with cursor.copy(_COPY) as copy:
            for sample in samples:
                tags = tags_text(sample) if sample.tags is not None else None
                await copy.write_row(
                    (sample.service_name, sample.timestamp, sample.metric_name, sample.metric_value, tags)
                )


def tags_text(sample: MetricSample) -> str:
    """Return the tags of a sample as JSON."""
    return json.dumps(dict(sample.tags or {}), ensure_ascii=False)
