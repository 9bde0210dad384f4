"""What is known of services besides their states, for a scrape by Prometheus."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from helmd.store.metrics.metrics import MetricSample


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """What is known of services besides their states: the seconds that the last health check took, the log lines since
    helmd started, and the newest sample of each series that services post.
    """

    response_seconds: Mapping[str, float] = field(default_factory=dict)
    log_lines: Mapping[str, int] = field(default_factory=dict)
    custom: Iterable[MetricSample] = ()
