"""The page of charts: what services used over time. Its points come from ``GET /api/metrics/{name}``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from helmd.model.units.status import Status
from helmd.web.api.sources import StatusSource
from helmd.web.pages.overview import STATES, Tone
from helmd.web.pages.rendering import Renderer

_CHOSEN = 4
"""How many services are shown until the reader chooses some."""
_WELL = frozenset({"healthy", "running", "succeeded", "scheduled"})
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class MetricRange:
    """A time until now that can be chosen; ``seconds`` long."""

    name: str
    label: str
    title: str
    seconds: int


RANGES = (
    MetricRange("15m", "15 min", "The last 15 minutes", 15 * _MINUTE),
    MetricRange("1h", "1 h", "The last hour", _HOUR),
    MetricRange("6h", "6 h", "The last 6 hours", 6 * _HOUR),
    MetricRange("24h", "24 h", "The last 24 hours", _DAY),
    MetricRange("7d", "7 d", "The last 7 days", 7 * _DAY),
    MetricRange("30d", "30 d", "The last 30 days", 30 * _DAY),
    MetricRange("90d", "90 d", "The last 90 days", 90 * _DAY),
    MetricRange("13mo", "13 months", "The last 13 months", 396 * _DAY),
)
DEFAULT_RANGE = "1h"


@dataclass(frozen=True, slots=True)
class MetricService:
    """A service that can be chosen. ``note`` is its state, where it is not well."""

    name: str
    tone: Tone
    note: str


@dataclass(frozen=True, slots=True)
class MetricsContext:
    """What the template is given. ``interval`` is how often metrics are taken, in seconds."""

    services: Sequence[MetricService]
    chosen: Sequence[str]
    interval: float
    ranges: Sequence[MetricRange] = RANGES
    default_range: str = DEFAULT_RANGE
    skeleton: Sequence[str] = ("CPU", "Memory", "Response time", "Log rate")


class MetricsPage:
    """The handler. INTERVAL returns how often metrics are taken, in seconds."""

    def __init__(self, monitor: StatusSource, interval: Callable[[], float], renderer: Renderer) -> None:
        self._monitor = monitor
        self._interval = interval
        self._renderer = renderer

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /metrics"""
        context = metrics_context(self._monitor.statuses(), self._interval())
        return self._renderer.show(request, "metrics.html", context)


def metrics_context(statuses: Mapping[str, Status], interval: float) -> MetricsContext:
    """Return the services by name; chosen are those that use the CPU most now."""
    services = [
        MetricService(
            name, STATES.get(status.state, STATES["unknown"])[0], "" if status.state in _WELL else status.state
        )
        for name, status in sorted(statuses.items())
    ]
    by_use = sorted(statuses.values(), key=lambda each: (-(each.cpu_percent or 0.0), each.service_name))
    running = [each.service_name for each in by_use if each.cpu_percent is not None]
    chosen = running[:_CHOSEN] or [each.name for each in services[:_CHOSEN]]
    return MetricsContext(services, chosen, interval)
