"""Recording metrics that services post, together with Helm's own."""

from collections.abc import Callable, Sequence

from helmd.model.ingest.metrics import Measurement
from helmd.store.metrics.metrics import MetricSample


def recorded_by(samples: Callable[[Sequence[MetricSample]], None]) -> Callable[[str, Sequence[Measurement]], None]:
    """Return a function that passes a service's measurements to SAMPLES (`Recorder.samples`), which buffers them."""

    def take(service: str, measured: Sequence[Measurement]) -> None:
        samples([MetricSample(service, one.timestamp, one.name, one.value, one.tags) for one in measured])

    return take
