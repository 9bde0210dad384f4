"""The state of all services for Prometheus, in its text format (version 0.0.4)."""

import re
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from helmd.model.units.health import DEGRADED, HEALTHY
from helmd.model.units.status import Status
from helmd.operations.monitoring.service_figures import ServiceFigures

_MIB = 1 << 20
MOST_LABEL = 128
"""Maximum length of a label's name and value, to which tags are truncated."""
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")
_NO_FIGURES = ServiceFigures()


class _Statuses(Collector):
    """Makes metrics of STATUSES and FIGURES."""

    def __init__(self, statuses: Mapping[str, Status], figures: ServiceFigures) -> None:
        self._statuses, self._figures = statuses, figures

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("helm_service_up", "1 where the service runs", labels=["service"])
        healthy = GaugeMetricFamily(
            "helm_service_healthy", "1 where the service is healthy or degraded", labels=["service"]
        )
        cpu = GaugeMetricFamily("helm_service_cpu_percent", "Percent of one processor", labels=["service"])
        memory = GaugeMetricFamily("helm_service_memory_bytes", "Memory of all processes", labels=["service"])
        started = GaugeMetricFamily(
            "helm_service_start_time_seconds", "Start of the main process since the epoch", labels=["service"]
        )
        restarts = CounterMetricFamily("helm_service_restarts", "Automatic restarts of the unit", labels=["service"])
        response = GaugeMetricFamily(
            "helm_service_response_seconds", "Seconds that the last health check took", labels=["service"]
        )
        lines = CounterMetricFamily(
            "helm_service_log_lines", "Log lines stored since helmd started, without health checks", labels=["service"]
        )
        for name, status in self._statuses.items():
            if (seconds := self._figures.response_seconds.get(name)) is not None:
                response.add_metric([name], seconds)
            if (count := self._figures.log_lines.get(name)) is not None:
                lines.add_metric([name], count)
            up.add_metric([name], float(status.status == "running"))
            healthy.add_metric([name], float(status.health in (HEALTHY, DEGRADED)))
            restarts.add_metric([name], status.restarts)
            if status.cpu_percent is not None:
                cpu.add_metric([name], status.cpu_percent)
            if status.memory_mb is not None:
                memory.add_metric([name], status.memory_mb * _MIB)
            if status.started_at is not None:
                started.add_metric([name], status.started_at.timestamp())
        yield from (up, healthy, cpu, memory, started, restarts, response, lines, self._custom())

    def _custom(self) -> Metric:
        """Return the metrics posted by services, as one family, since their names follow other rules and their
        tags differ.
        """
        family = GaugeMetricFamily("helm_custom_metric", "Newest value of a metric that a service posted")
        # Truncated names and values may become equal, but each series may only occur once.
        values: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in self._figures.custom:
            tags = sorted((sample.tags or {}).items())
            labels = {f"tag_{_NOT_IN_LABELS.sub('_', key)[:MOST_LABEL]}": value[:MOST_LABEL] for key, value in tags}
            own = {"service": sample.service_name, "metric": sample.metric_name}
            values[tuple(sorted({**labels, **own}.items()))] = sample.metric_value
        for labelled, value in values.items():
            family.add_sample("helm_custom_metric", dict(labelled), value)
        return family


def prometheus_text(statuses: Mapping[str, Status], figures: ServiceFigures = _NO_FIGURES) -> bytes:
    """Return the metrics of services with these STATUSES and FIGURES."""
    registry = CollectorRegistry()
    registry.register(_Statuses(statuses, figures))
    return generate_latest(registry)
