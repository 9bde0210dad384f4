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
        """Of every service, by name."""

    def status(self, name: str) -> Status:
        """Of one. Raises UnknownServiceError."""


class ObservedSource(StatusSource, Protocol):
    """What is known about services. `Monitor` is one."""

    def observed(self, name: str) -> Observed | None:
        """Return everything about one, None for one that is not known."""


class Run(Protocol):
    """Calls a function that blocks in a thread of a pool of its own (`helmd.health.thread_pool.ThreadPool.run`)."""

    def __call__(self, function: Callable[[], Result]) -> Awaitable[Result]: ...


class UserSource(Protocol):
    """Gives the users, for one operation; blocks (`helmd.operations.identity.user_access.UserAccess`)."""

    index: UserIndex

    def users(self, confirm: Confirm) -> Users: ...


class HealthSource(Protocol):
    """Helm's own health."""

    async def report(self) -> HealthSummary:
        """Return the newest report."""
