"""Figures of services besides their states, for Prometheus."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from helmd.store.metrics.metrics import MetricSample


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """Figures of services: the duration of the last health check in seconds, the number of log lines since helmd
    started, and the newest sample of each posted series.
    """

    response_seconds: Mapping[str, float] = field(default_factory=dict)
    log_lines: Mapping[str, int] = field(default_factory=dict)
    custom: Iterable[MetricSample] = ()
