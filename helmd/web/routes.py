"""The route table: every path that helmd answers, who may call it, and what it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from helmd.web.api.ingest import Intake
from helmd.web.api.logs import Logs
from helmd.web.api.services import Api
from helmd.web.api.stream import Streams
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Access, Role
from helmd.web.http.problems import Handler

PREFIX = "/helm"
"""Everything is also found under this prefix, for proxies that do not strip it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path. ``role`` is the least that a user must be.

    ``services`` and ``anonymous`` are as in `Access`. ``confined`` says that the handler shows only what is of the
    services in ``request["identity"].services``: what asks for BILLING must.
    """

    method: str
    path: str
    handler: Handler
    role: Role
    summary: str
    services: bool = False
    anonymous: bool = False
    confined: bool = False

    @property
    def fault(self) -> str | None:
        """Why nobody may be let in here, as the end of a sentence, or None."""
        if not isinstance(self.role, Role):
            return "has no role"
        if self.confined != (self.role is Role.BILLING):
            return "is open to billing without being confined, or confined without being open to billing"
        return None


def routes(api: Api, intake: Intake) -> tuple[Route, ...]:
    """The table."""
    return (
        Route("GET", "/health", api.health, Role.PUBLIC, "How Helm itself is"),
        Route("GET", "/api/services/status", api.statuses, Role.CLIENT, "The status of every service"),
        Route("GET", "/api/services/{name}/status", api.status, Role.CLIENT, "The status of one service"),
        Route(
            "POST",
            "/api/logs/ingest",
            intake.logs,
            Role.TECHNICIAN,
            "Log entries into the store",
            services=True,
            anonymous=True,
        ),
        Route(
            "POST",
            "/api/metrics/ingest",
            intake.metrics,
            Role.TECHNICIAN,
            "Measurements into the store",
            services=True,
            anonymous=True,
        ),
    )


def log_routes(logs: Logs, streams: Streams) -> tuple[Route, ...]:
    """The part of the table where log entries are read."""

    def get(path: str, handler: Handler, summary: str) -> Route:
        return Route("GET", path, handler, Role.BILLING, summary, confined=True)

    return (
        get("/api/logs", logs.list, "Log entries, the newest first"),
        get("/api/logs/histogram", logs.histogram, "How many log entries there were when, by level"),
        get("/api/logs/export", logs.export, "All log entries that are asked for, as NDJSON or CSV"),
        get("/api/logs/stream", streams.events, "New log entries as server-sent events"),
        get("/api/logs/ws", streams.socket, "New log entries over a WebSocket"),
        get(r"/api/logs/{id:[0-9]+}", logs.entry, "One log entry"),
        Route("GET", "/api/dashboard/status", logs.dashboard, Role.CLIENT, "Every service's status and log counts"),
    )


def install(application: web.Application, table: Sequence[Route], callers: Callers) -> None:
    """Adds the routes of TABLE, guarded. Raises ValueError for one that doesn't say whose it is, or is there twice."""
    known: set[tuple[str, str]] = set()
    for route in table:
        if fault := route.fault:
            raise ValueError(f"the route {route.method} {route.path} {fault}")
        if (route.method, route.path) in known:
            raise ValueError(f"the route {route.method} {route.path} is there twice")
        known.add((route.method, route.path))
        guarded = _guarded(route, callers)
        for path in (route.path, PREFIX + route.path):
            application.router.add_route(route.method, path, guarded)
            if route.method == "GET":
                application.router.add_route("HEAD", path, guarded)


def _guarded(route: Route, callers: Callers) -> Handler:
    access = Access(route.role, services=route.services, anonymous=route.anonymous)

    async def handle(request: web.Request) -> web.StreamResponse:
        request["identity"] = await callers.authorize(request, access)
        # For what takes long: raises once the token has expired or its session has ended.
        request["recheck"] = partial(callers.authorize, request, access)
        return await route.handler(request)

    return handle
