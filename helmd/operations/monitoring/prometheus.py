"""The state of all services for Prometheus, in its text format (version 0.0.4)."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from helmd.model.units.health import DEGRADED, HEALTHY
from helmd.model.units.status import Status

_MIB = 1 << 20


class _Statuses(Collector):
    """Makes metrics of STATUSES."""

    def __init__(self, statuses: Mapping[str, Status]) -> None:
        self._statuses = statuses

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
        for name, status in self._statuses.items():
            up.add_metric([name], float(status.status == "running"))
            healthy.add_metric([name], float(status.health in (HEALTHY, DEGRADED)))
            restarts.add_metric([name], status.restarts)
            if status.cpu_percent is not None:
                cpu.add_metric([name], status.cpu_percent)
            if status.memory_mb is not None:
                memory.add_metric([name], status.memory_mb * _MIB)
            if status.started_at is not None:
                started.add_metric([name], status.started_at.timestamp())
        yield from (up, healthy, cpu, memory, started, restarts)


def prometheus_text(statuses: Mapping[str, Status]) -> bytes:
    """The metrics of services with these STATUSES."""
    registry = CollectorRegistry()
    registry.register(_Statuses(statuses))
    return generate_latest(registry)
