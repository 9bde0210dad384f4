"""The route table: every path that helmd answers, who may call it, and what it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import web

from helmd.model.api.audit import AuditFilterQuery, AuditPage
from helmd.model.api.details import (
    ProbeReply,
    ProcessesReply,
    ServicesReply,
    TimelineQuery,
    TimelineReply,
    UnitReply,
)
from helmd.model.api.events import EventsQuery
from helmd.model.api.health import HealthReply
from helmd.model.api.host import HostReply
from helmd.model.api.ingest import (
    IngestReply,
    PostedEntries,
    PostedMeasurements,
    SinglePostedEntry,
    SinglePostedMeasurement,
)
from helmd.model.api.jobs import (
    ActionsBody,
    ControlBody,
    ControlReply,
    JobAcceptedReply,
    JobListReply,
    JobReply,
    PlanReply,
    RestartReply,
)
from helmd.model.api.login import LoginLink, OpenedLink
from helmd.model.api.logs import (
    HistogramQuery,
    HistogramReply,
    LogEntry,
    LogExportQuery,
    LogPage,
    LogPageQuery,
    LogStreamQuery,
)
from helmd.model.api.me import MeReply
from helmd.model.api.metrics import MetricsQuery, MetricsReply
from helmd.model.api.services import DashboardReply, StatusByName
from helmd.model.api.tokens import CreatedToken, NewTokenRequest, TokenList
from helmd.model.errors import DeniedError, HelmError
from helmd.model.suite.names import SERVICE_NAME
from helmd.model.units.status import Status
from helmd.web.api.audit import Audit
from helmd.web.api.control import ControlHandlers
from helmd.web.api.details import Details
from helmd.web.api.events import Events
from helmd.web.api.ingest import Intake
from helmd.web.api.jobs import JobHandlers
from helmd.web.api.logs import Logs
from helmd.web.api.services import Api
from helmd.web.api.stream import Streams
from helmd.web.api.tokens import Tokens
from helmd.web.auth.audit import AuditTrail, Record
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Access, Identity, PeerRule, Role
from helmd.web.http.negotiation import check_acceptable
from helmd.web.http.problems import PREFIX, Handler, RequestRefusedError
from helmd.web.pages.assets import Assets
from helmd.web.pages.login import LoginPages
from helmd.web.pages.overview import OverviewPage
from helmd.web.reply import EVENTS, EXPORT, FILES, HTML, NO_CONTENT, PROMETHEUS, REDIRECT, WEBSOCKET, Reply

_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path. ``role`` is the least that a user must be.

    ``services``, ``anonymous`` and ``recent_login`` are as in `Access`. ``confined`` says that the handler shows only
    what is of the services in ``request["identity"].services``: what asks for BILLING must.
    """

    method: str
    path: str
    handler: Handler
    role: Role
    summary: str
    services: bool = False
    anonymous: bool = False
    confined: bool = False
    peer: PeerRule = PeerRule.DEFAULT
    """Whose request is taken: ANY or CHECKED. By default any program's that reads, but only a checked one's that
    changes something.
    """
    recent_login: bool = False
    query: type | None = None
    """The parameters, as a dataclass."""
    request: Any = None
    """The type of the body; None where there is none."""
    reply: Reply | None = None

    @property
    def checked(self) -> bool:
        """Whether the program that sends the request must be one that may change things."""
        return self.peer is PeerRule.CHECKED or (self.peer is PeerRule.DEFAULT and self.method not in _READING)

    @property
    def audited(self) -> bool:
        """Whether requests are recorded in the audit trail: those that change something, ingest aside."""
        return self.checked or (self.method not in _READING and not self.services)

    @property
    def access(self) -> Access:
        """Who may use it."""
        return Access(self.role, self.services, self.anonymous, self.checked, self.recent_login)

    @property
    def fault(self) -> str | None:
        """Why nobody may be let in here, as the end of a sentence, or None."""
        if not isinstance(self.role, Role):
            return "has no role"
        if self.confined != (self.role is Role.BILLING):
            return "is open to billing without being confined, or confined without being open to billing"
        if not isinstance(self.peer, PeerRule):
            return "has no rule for its peer"
        if self.checked and self.role is Role.PUBLIC:
            return "takes requests without a credential, so no peer can be checked: its rule must be ANY"
        if self.recent_login and not self.checked:
            return "asks for a recent login, but not for a checked peer"
        return None


def routes(api: Api, intake: Intake) -> tuple[Route, ...]:
    """The table."""
    return (
        Route(
            "GET",
            "/health",
            api.health,
            Role.PUBLIC,
            "How Helm itself is",
            reply=Reply(HealthReply, also={HTTPStatus.SERVICE_UNAVAILABLE: HealthReply}),
        ),
        Route(
            "GET",
            "/api/services/status",
            api.statuses,
            Role.CLIENT,
            "The status of every service",
            reply=Reply(StatusByName),
        ),
        Route(
            "GET",
            "/api/services/{name}/status",
            api.status,
            Role.CLIENT,
            "The status of one service",
            reply=Reply(Status),
        ),
        Route(
            "POST",
            "/api/logs/ingest",
            intake.logs,
            Role.TECHNICIAN,
            "Log entries into the store",
            services=True,
            anonymous=True,
            peer=PeerRule.ANY,
            request=PostedEntries | SinglePostedEntry,
            reply=Reply(IngestReply),
        ),
        Route(
            "POST",
            "/api/metrics/ingest",
            intake.metrics,
            Role.TECHNICIAN,
            "Measurements into the store",
            services=True,
            anonymous=True,
            peer=PeerRule.ANY,
            request=PostedMeasurements | SinglePostedMeasurement,
            reply=Reply(IngestReply),
        ),
    )


def log_routes(logs: Logs, streams: Streams) -> tuple[Route, ...]:
    """The part of the table where log entries are read."""

    def get(path: str, handler: Handler, summary: str, reply: Reply, query: type | None = None) -> Route:
        return Route("GET", path, handler, Role.BILLING, summary, confined=True, query=query, reply=reply)

    return (
        get("/api/logs", logs.list, "Log entries, the newest first", Reply(LogPage), LogPageQuery),
        get(
            "/api/logs/histogram",
            logs.histogram,
            "How many log entries there were when, by level",
            Reply(HistogramReply),
            HistogramQuery,
        ),
        get(
            "/api/logs/export",
            logs.export,
            "All log entries that are asked for, as NDJSON or CSV",
            EXPORT,
            LogExportQuery,
        ),
        get("/api/logs/stream", streams.events, "New log entries as server-sent events", EVENTS, LogStreamQuery),
        get("/api/logs/ws", streams.socket, "New log entries over a WebSocket", WEBSOCKET, LogStreamQuery),
        get(r"/api/logs/{id:[0-9]+}", logs.entry, "One log entry", Reply(LogEntry)),
        Route(
            "GET",
            "/api/dashboard/status",
            logs.dashboard,
            Role.CLIENT,
            "Every service's status and log counts",
            reply=Reply(DashboardReply),
        ),
    )


def detail_routes(details: Details) -> tuple[Route, ...]:
    """The part of the table about one service each, the machine and the caller."""

    def get(path: str, handler: Handler, role: Role, summary: str, reply: Reply, query: type | None = None) -> Route:
        return Route("GET", path, handler, role, summary, query=query, reply=reply)

    one, metrics = "/api/services/{name}", "/api/metrics/{name}"
    see = Role.TECHNICIAN
    return (
        get("/api/me", details.me, Role.CLIENT, "Who the caller is", Reply(MeReply)),
        get("/api/services", details.services, Role.CLIENT, "The services of the suite", Reply(ServicesReply)),
        get(f"{one}/unit", details.unit, see, "The systemd unit of a service", Reply(UnitReply)),
        get(f"{one}/probes", details.probes, see, "How its health is found out", Reply(ProbeReply)),
        get(f"{one}/processes", details.processes, see, "Its processes", Reply(ProcessesReply)),
        get(f"{one}/timeline", details.timeline, see, "What happened to it", Reply(TimelineReply), TimelineQuery),
        get(metrics, details.metrics, see, "Measurements of a service", Reply(MetricsReply), MetricsQuery),
        get("/api/host", details.host, see, "The machine", Reply(HostReply)),
        get("/metrics/prometheus", details.prometheus, see, "The state of all services for Prometheus", PROMETHEUS),
    )


def event_routes(events: Events) -> tuple[Route, ...]:
    """The part of the table about live events of several kinds; each topic has a role of its own."""
    summary = "Live events of several topics in one stream"
    return (Route("GET", "/api/events", events.stream, Role.CLIENT, summary, query=EventsQuery, reply=EVENTS),)


def token_routes(tokens: Tokens) -> tuple[Route, ...]:
    """The part of the table about machine tokens."""
    path = "/api/tokens"
    return (
        Route(
            "GET", path, tokens.list, Role.ADMIN, "The machine tokens, without their secrets", reply=Reply(TokenList)
        ),
        Route(
            "POST",
            path,
            tokens.create,
            Role.ADMIN,
            "A new machine token",
            recent_login=True,
            request=NewTokenRequest,
            reply=Reply(CreatedToken, HTTPStatus.CREATED),
        ),
        Route(
            "DELETE",
            f"{path}/{{id}}",
            tokens.revoke,
            Role.ADMIN,
            "Revokes a machine token",
            recent_login=True,
            reply=NO_CONTENT,
        ),
    )


def audit_routes(audit: Audit) -> tuple[Route, ...]:
    """The part of the table about who changed what."""
    return (
        Route(
            "GET",
            "/api/audit",
            audit.list,
            Role.ADMIN,
            "Who changed what, or tried to",
            query=AuditFilterQuery,
            reply=Reply(AuditPage),
        ),
    )


def job_routes(control: ControlHandlers, jobs: JobHandlers) -> tuple[Route, ...]:
    """The part of the table that starts and stops services, and shows the jobs that do it."""
    accepted = {HTTPStatus.ACCEPTED: JobAcceptedReply}

    def post(path: str, handler: Handler, summary: str, reply: type, body: type = ControlBody) -> Route:
        return Route("POST", path, handler, Role.ADMIN, summary, request=body, reply=Reply(reply, also=accepted))

    def get(path: str, handler: Handler, summary: str, reply: Reply) -> Route:
        return Route("GET", path, handler, Role.ADMIN, summary, reply=reply)

    service = "/api/services/{name}"
    cancelled = Reply(JobReply)
    return (
        post(f"{service}/start", control.start, "Start a service and what it needs", ControlReply),
        post(f"{service}/stop", control.stop, "Stop a service", ControlReply),
        post(f"{service}/restart", control.restart, "Restart a service", RestartReply),
        post("/api/services/actions", control.actions, "Start, stop or restart several", PlanReply, ActionsBody),
        get("/api/jobs", jobs.list, "Jobs, the newest first", Reply(JobListReply)),
        get("/api/jobs/{id}", jobs.job, "One job", Reply(JobReply)),
        get("/api/jobs/{id}/log", jobs.log, "The log of a job as server-sent events", EVENTS),
        Route("POST", "/api/jobs/{id}/cancel", jobs.cancel, Role.ADMIN, "Cancel a job", reply=cancelled),
    )


def login_routes(login: LoginPages) -> tuple[Route, ...]:
    """The part of the table about one-time links."""
    return (
        Route(
            "POST",
            "/api/login-links",
            login.make_link,
            Role.ADMIN,
            "Makes a one-time link; over the unix socket alone",
            reply=Reply(LoginLink, HTTPStatus.CREATED),
        ),
    )


def page_routes(overview: OverviewPage, login: LoginPages, assets: Assets) -> tuple[Route, ...]:
    """The part of the table that is for browsers; the OpenAPI document does not have it."""

    def get(path: str, handler: Handler, summary: str, reply: Reply) -> Route:
        return Route("GET", path, handler, Role.PUBLIC, summary, reply=reply)

    def post(path: str, handler: Handler, summary: str, reply: Reply) -> Route:
        return Route("POST", path, handler, Role.PUBLIC, summary, peer=PeerRule.ANY, reply=reply)

    return (
        Route("GET", "/", overview.show, Role.CLIENT, "The page with all services", reply=HTML),
        get(PREFIX, login.to_home, "Leads to that page", REDIRECT),
        get("/static/{name}", assets.serve, "Style sheets, scripts and images of pages", FILES),
        get("/login", login.login, "Leads to the login at Keycloak", REDIRECT),
        get("/login/callback", login.callback, "Where Keycloak sends a browser back to", REDIRECT),
        get("/login/once", login.once, "The page behind a one-time link", HTML),
        post("/login/once", login.open_link, "Opens a session by the secret of a one-time link", Reply(OpenedLink)),
        post("/login/backchannel-logout", login.end, "Takes Keycloak's notice of a logout", Reply(media=())),
        get("/logout", login.logged_out, "What is shown after a logout", HTML),
        post("/logout", login.log_out, "Ends the session here, at Keycloak and at Core", REDIRECT),
    )


def install(application: web.Application, table: Sequence[Route], callers: Callers, record: Record) -> None:
    """Adds the routes of TABLE, guarded. Raises ValueError for one that doesn't say whose it is, or is there twice.

    RECORD gets every request that changes something, or was to.
    """
    trail = AuditTrail(record, callers)
    known: set[tuple[str, str]] = set()
    for route in table:
        if fault := route.fault:
            raise ValueError(f"the route {route.method} {route.path} {fault}")
        if (route.method, route.path) in known:
            raise ValueError(f"the route {route.method} {route.path} is there twice")
        known.add((route.method, route.path))
        guarded = _guarded(route, callers, trail)
        if route.audited:
            guarded = _recorded(route, guarded, trail)
        for path in (route.path, PREFIX + route.path):
            application.router.add_route(route.method, path, guarded)
            if route.method == "GET":
                application.router.add_route("HEAD", path, guarded)


def _guarded(route: Route, callers: Callers, trail: AuditTrail) -> Handler:
    access = route.access

    async def handle(request: web.Request) -> web.StreamResponse:
        request["route"] = route
        identity = await callers.authorize(request, access)
        _check_confined(route, identity, request.match_info.get("name"))
        request["identity"] = identity
        if route.audited:
            request["origin"] = trail.origin(request, identity)
        # For what takes long: raises once the token has expired or its session has ended.
        request["recheck"] = partial(callers.authorize, request, access)
        if route.reply is not None:
            check_acceptable(request, route.reply.media)
        return await route.handler(request)

    return handle


def _check_confined(route: Route, caller: Identity | None, service: str | None) -> None:
    """Raises DeniedError for a CALLER who is confined to some services, unless the route is, or is about one of them.

    What a service posts, its handler looks at; what any user may see is the state of services.
    """
    if caller is None or caller.services is None or route.confined or route.services:
        return
    if route.role not in (Role.PUBLIC, Role.CLIENT) and service not in caller.services:
        raise DeniedError(f"{caller.name} is confined to some services, and this is not about one of them")


def _recorded(route: Route, handler: Handler, trail: AuditTrail) -> Handler:
    """HANDLER, with a record of each request in the audit trail."""
    action = f"{route.method} {route.path}"

    async def handle(request: web.Request) -> web.StreamResponse:
        error: HelmError | None = None
        status = 0
        try:
            response = await handler(request)
            status = response.status
        except HelmError as raised:
            error = raised
            raise
        except RequestRefusedError as refused:
            status = refused.status
            raise
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            service = request.match_info.get("name", "")
            trail.request(request, action, service if SERVICE_NAME.match(service) else "", error, status)
        return response

    return handle
