"""What handlers ask the rest of helmd for. `Monitor` and `HealthReport` provide it, in tests also fakes."""

from typing import Protocol

from helmd.model.units.status import Status
from helmd.operations.monitoring.health_report import HealthSummary


class StatusSource(Protocol):
    """The status of services."""

    def statuses(self) -> dict[str, Status]:
        """Of every service, by name."""

    def status(self, name: str) -> Status:
        """Of one. Raises UnknownServiceError."""


class HealthSource(Protocol):
    """Helm's own health."""

    async def report(self) -> HealthSummary:
        """The newest report."""
