"""Parameters and reply of ``GET /api/metrics/{name}``, and which roll-ups answer them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described

MOST_SAMPLES = 20_000
"""Most measurements or points in one reply."""
LONGEST_STEP = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Sample:
    """A measurement, or a point: what is made of all measurements of a series within a step."""

    id: int | None = field(metadata=described("unique; null for a point", example=4711))
    service_name: str = field(metadata=described("the service", example="core"))
    timestamp: datetime = field(metadata=described("when it was taken; of a point, when its step begins"))
    metric_name: str = field(metadata=described("the metric", example="memory_mb"))
    metric_value: float = field(metadata=described("its value; of a point, the mean", example=61.3))
    tags: Mapping[str, str] | None = field(metadata=described("text by name", example={"queue": "mail"}))
    minimum: float | None = field(default=None, metadata=described("of a point: the least value", omitted=True))
    maximum: float | None = field(default=None, metadata=described("of a point: the greatest value", omitted=True))
    count: int | None = field(default=None, metadata=described("of a point: how many measurements", omitted=True))


@dataclass(frozen=True, slots=True)
class MetricsReply:
    """Measurements of a service."""

    service_name: str = field(metadata=described("the service", example="core"))
    start_time: datetime = field(metadata=described("from this time on; of points, when the first step begins"))
    end_time: datetime = field(metadata=described("before this time; of points, when the last step ends"))
    metrics: tuple[Sample, ...] = field(
        metadata=described("the newest first; there is no point where nothing was measured")
    )
    step: int | None = field(default=None, metadata=described("of points: seconds from one to the next", omitted=True))
    truncated: bool | None = field(
        default=None, metadata=described(f"true where there are more than {MOST_SAMPLES:,}", omitted=True)
    )


@dataclass(frozen=True, slots=True)
class MetricsQuery:
    """Which measurements."""

    start_time: datetime | None = field(
        default=None, metadata=described("from this time on; by default the hour before end_time", omitted=True)
    )
    end_time: datetime | None = field(
        default=None, metadata=described("before this time; by default now", omitted=True)
    )
    metric_name: str | None = field(
        default=None,
        metadata=described("these metrics alone, separated by commas", omitted=True, example="memory_mb"),
    )
    step: int | None = field(
        default=None,
        metadata=described(
            "a point for each so many seconds instead of measurements, rounded up to what is kept of that time",
            omitted=True,
            minimum=1,
            maximum=LONGEST_STEP,
        ),
    )
