"""The page on which log entries are read: what is stored, and what comes, in one view. Its script asks the API."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from helmd.model.errors import UnknownServiceError
from helmd.model.suite.names import HELM_SERVICE
from helmd.model.suite.service import Registry
from helmd.web.auth.roles import Identity, Role
from helmd.web.pages.rendering import Renderer


@dataclass(frozen=True, slots=True)
class LogsContext:
    """What the template knows; everything else its script gets from the API."""

    service: str
    """The one service that the page is about; empty for all."""
    services: tuple[str, ...]
    """Services whose entries the reader may see, as far as they are configured; for completion."""
    has_views: bool


class LogsPage:
    """The handler. SUITE gives the services that are configured."""

    def __init__(self, suite: Callable[[], Registry], renderer: Renderer) -> None:
        self._suite = suite
        self._renderer = renderer

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /logs and GET /service/{name}/logs"""
        identity: Identity = request["identity"]
        services = readable_services(identity, self._suite())
        service = request.match_info.get("name", "")
        if service and service not in services:
            raise UnknownServiceError(f"there is no service {service!r} whose log you may read")
        context = LogsContext(service, services, identity.may(Role.TECHNICIAN))
        return self._renderer.show(request, "logs.html", context)


def readable_services(identity: Identity, suite: Registry) -> tuple[str, ...]:
    """Return the configured services, and Helm, as far as IDENTITY may read their entries."""
    return tuple(sorted(name for name in {*suite.names, HELM_SERVICE} if identity.sees_logs_of(name)))
