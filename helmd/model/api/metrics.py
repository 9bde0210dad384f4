"""Parameters and reply of ``GET /api/metrics/{name}``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described

MOST_SAMPLES = 20_000
"""Most measurements in one reply."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A measurement, or the mean of some."""

    id: int | None = field(metadata=described("unique; null for a mean", example=4711))
    service_name: str = field(metadata=described("the service", example="core"))
    timestamp: datetime = field(metadata=described("when it was taken; of a mean, when its span begins"))
    metric_name: str = field(metadata=described("the metric", example="memory_mb"))
    metric_value: float = field(metadata=described("its value", example=61.3))
    tags: Mapping[str, str] | None = field(metadata=described("text by name", example={"queue": "mail"}))
    minimum: float | None = field(default=None, metadata=described("of a mean: the least value", omitted=True))
    maximum: float | None = field(default=None, metadata=described("of a mean: the greatest value", omitted=True))


@dataclass(frozen=True, slots=True)
class MetricsReply:
    """Measurements of a service."""

    service_name: str = field(metadata=described("the service", example="core"))
    start_time: datetime = field(metadata=described("from this time on"))
    end_time: datetime = field(metadata=described("before this time"))
    metrics: tuple[Sample, ...] = field(metadata=described("the newest first"))
    truncated: bool | None = field(
        default=None,
        metadata=described(f"true where there are more than {MOST_SAMPLES:,}; ask with step", omitted=True),
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
        metadata=described("this metric alone", omitted=True, pattern=r"^[^\u0000]*$", example="memory_mb"),
    )
    step: int | None = field(
        default=None,
        metadata=described(
            "means over so many seconds instead of measurements", omitted=True, minimum=1, maximum=31622400
        ),
    )
