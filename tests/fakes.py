"""Fakes of what handlers ask for (`helmd/web/api/sources.py`), for tests that are about something else."""

from collections.abc import Iterable, Sequence

from helmd.model.errors import UnknownServiceError
from helmd.model.ingest.metrics import Measurement
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.ingest.token_bucket import Rates
from helmd.model.suite.service import Registry
from helmd.model.units.status import Observed, Status, service_status
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.logs.posted import PostedLogs
from helmd.operations.monitoring.health_report import HealthSummary
from helmd.store.ingest.requests import PostedStore
from helmd.web.api.ingest import Intake


class Statuses:
    """Services of no registry, running or not."""

    def __init__(self, **running: bool) -> None:
        self._running = running

    def set(self, name: str, running: bool | None) -> None:
        """Another state of a service; with None there is none of that name."""
        self._running = {other: state for other, state in self._running.items() if other != name}
        if running is not None:
            self._running[name] = running

    def statuses(self) -> dict[str, Status]:
        return {name: self.status(name) for name in self._running}

    def status(self, name: str) -> Status:
        if name not in self._running:
            raise UnknownServiceError(f"there is no service '{name}'")
        return service_status(self._observed(name), 0.0)

    def observed(self, name: str) -> Observed | None:
        return self._observed(name) if name in self._running else None

    def registry(self) -> Registry:
        return Registry({})

    def _observed(self, name: str) -> Observed:
        state = "active" if self._running[name] else "inactive"
        return Observed(name, None, UnitFacts(f"hivematrix-{name}.service", "loaded", state))


class NoHealth:
    """Fails the test that asks for Helm's health."""

    async def report(self) -> HealthSummary:
        raise AssertionError("nothing in this test asks for /health")


async def _no_store() -> PostedStore:
    raise AssertionError("nothing in this test posts")


class _NoMetrics:
    async def post(self, service: str, measured: Sequence[Measurement], key: str | None, size: int) -> int:
        raise AssertionError("nothing in this test posts")


def _no_journal(rows: Iterable[PostedRow]) -> None:
    raise AssertionError("nothing in this test posts")


def unused_intake() -> Intake:
    """Return the handlers of posted entries, for tests that need their routes only."""
    return Intake(PostedLogs(_no_store, _no_journal), _NoMetrics(), Rates(1.0, 1.0), lambda service: 90)
