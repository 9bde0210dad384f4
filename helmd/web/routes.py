"""The route table: every path that helmd answers, who may call it, and what it is for."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from helmd.web.api import Api
from helmd.web.identity import authorize
from helmd.web.problems import Handler
from helmd.web.roles import Role

PREFIX = "/helm"
"""Everything is also found under this prefix, for proxies that do not strip it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path. ``role`` is the least its caller must be."""

    method: str
    path: str
    handler: Handler
    role: Role
    summary: str


def routes(api: Api) -> tuple[Route, ...]:
    """The table."""
    return (
        Route("GET", "/health", api.health, Role.PUBLIC, "How Helm itself is"),
        Route("GET", "/api/services/status", api.statuses, Role.CLIENT, "The status of every service"),
        Route("GET", "/api/services/{name}/status", api.status, Role.CLIENT, "The status of one service"),
    )


def install(application: web.Application, table: Sequence[Route]) -> None:
    """Adds the routes of TABLE, guarded. Raises ValueError for a route that says nobody's role, or is there twice."""
    known: set[tuple[str, str]] = set()
    for route in table:
        if not isinstance(route.role, Role):
            raise ValueError(f"the route {route.method} {route.path} has no role")
        if (route.method, route.path) in known:
            raise ValueError(f"the route {route.method} {route.path} is there twice")
        known.add((route.method, route.path))
        for path in (route.path, PREFIX + route.path):
            application.router.add_route(route.method, path, _guarded(route))
            if route.method == "GET":
                application.router.add_route("HEAD", path, _guarded(route))


def _guarded(route: Route) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        request["identity"] = authorize(request, route.role)
        return await route.handler(request)

    return handle
