"""Protocols of what handlers need of helmd; implemented by `Monitor` and `HealthReport`, in tests by fakes."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from helmd.model.units.status import Observed, Status
from helmd.operations.identity.user_index import UserIndex
from helmd.operations.identity.users import Confirm, Users
from helmd.operations.monitoring.health_report import HealthSummary

Result = TypeVar("Result")


class StatusSource(Protocol):
    """The status of services."""

    def statuses(self) -> dict[str, Status]:
        """Return the status of all services by name."""

    def status(self, name: str) -> Status:
        """Return the status of a service. Raises UnknownServiceError."""


class ObservedSource(StatusSource, Protocol):
    """The observed state of services; implemented by `Monitor`."""

    def observed(self, name: str) -> Observed | None:
        """Return the observed state of a service, or None for an unknown one."""


class Run(Protocol):
    """Calls a function that blocks in a thread of a pool of its own (`helmd.health.thread_pool.ThreadPool.run`)."""

    def __call__(self, function: Callable[[], Result]) -> Awaitable[Result]: ...


class UserSource(Protocol):
    """Yields the users for one operation; blocks (`helmd.operations.identity.user_access.UserAccess`)."""

    index: UserIndex

    def users(self, confirm: Confirm) -> Users: ...


class HealthSource(Protocol):
    """Helm's own health."""

    async def report(self) -> HealthSummary:
        """Return the newest report."""
