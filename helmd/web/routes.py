"""The route table: every path that helmd serves, with its access rules and purpose."""

from http import HTTPStatus

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
from helmd.model.api.log_facets import FacetsQuery, FacetsReply, PatternsQuery, PatternsReply
from helmd.model.api.log_views import LogView, LogViewList, LogViewRequest
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
from helmd.model.api.service_config import (
    ServiceConfigBody,
    ServiceConfigChanged,
    ServiceConfigQuery,
    ServiceConfigReply,
)
from helmd.model.api.services import DashboardReply, StatusByName
from helmd.model.api.tokens import CreatedToken, NewTokenRequest, TokenList
from helmd.model.identity.injected import PROBE_PATH
from helmd.model.units.status import Status
from helmd.web.api.audit import Audit
from helmd.web.api.config import ServiceConfigs
from helmd.web.api.control import ControlHandlers
from helmd.web.api.details import Details
from helmd.web.api.events import Events
from helmd.web.api.ingest import Intake
from helmd.web.api.jobs import JobHandlers
from helmd.web.api.logs import Logs
from helmd.web.api.services import Api
from helmd.web.api.stream import Streams
from helmd.web.api.tokens import Tokens
from helmd.web.auth.roles import PeerRule, Role
from helmd.web.http.problems import PREFIX, Handler
from helmd.web.pages.assets import Assets
from helmd.web.pages.login import LoginPages
from helmd.web.pages.overview import OverviewPage
from helmd.web.pages.probe import ProbePage
from helmd.web.reply import EVENTS, EXPORT, FILES, HTML, NO_CONTENT, PROMETHEUS, REDIRECT, WEBSOCKET, Reply
from helmd.web.route import Route


def routes(api: Api, intake: Intake) -> tuple[Route, ...]:
    """Return the table."""
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
    """Return the routes for reading log entries."""

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
            "/api/logs/facets",
            logs.facets.facets,
            "How many log entries have which values",
            Reply(FacetsReply),
            FacetsQuery,
        ),
        get(
            "/api/logs/patterns",
            logs.facets.patterns,
            "Log entries by the patterns of their messages",
            Reply(PatternsReply),
            PatternsQuery,
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
            "/api/views",
            logs.views.list,
            Role.TECHNICIAN,
            "Saved views of the log page: one's own and shared ones",
            reply=Reply(LogViewList),
        ),
        Route(
            "POST",
            "/api/views",
            logs.views.save,
            Role.TECHNICIAN,
            "Saves a view",
            request=LogViewRequest,
            reply=Reply(LogView, HTTPStatus.CREATED),
        ),
        Route(
            "DELETE",
            r"/api/views/{id:[0-9]+}",
            logs.views.remove,
            Role.TECHNICIAN,
            "Removes a view of one's own; as an admin, also a shared one",
            reply=NO_CONTENT,
        ),
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
    """Return the routes about one service, the machine and the caller."""

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
    """Return the routes of live events; each topic has its own role."""
    summary = "Live events of several topics in one stream"
    return (Route("GET", "/api/events", events.stream, Role.CLIENT, summary, query=EventsQuery, reply=EVENTS),)


def token_routes(tokens: Tokens) -> tuple[Route, ...]:
    """Return the routes about machine tokens."""
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
    """Return the routes about the audit trail."""
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
    """Return the routes that start and stop services, and show their jobs."""
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


def config_routes(configs: ServiceConfigs) -> tuple[Route, ...]:
    """Return the routes about the settings of services."""
    path = "/api/services/{name}/config"
    return (
        Route(
            "GET",
            path,
            configs.show,
            Role.ADMIN,
            "The settings of a service, as they are written",
            reply=Reply(ServiceConfigReply, also={HTTPStatus.NOT_MODIFIED: None}),
        ),
        Route(
            "PUT",
            path,
            configs.change,
            Role.ADMIN,
            "Change settings of a service",
            recent_login=True,
            conditional=True,
            query=ServiceConfigQuery,
            request=ServiceConfigBody,
            reply=Reply(ServiceConfigChanged, also={HTTPStatus.ACCEPTED: ServiceConfigChanged}),
        ),
    )


def login_routes(login: LoginPages) -> tuple[Route, ...]:
    """Return the routes about one-time links."""
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
    """Return the routes for browsers, which are not in the OpenAPI document."""

    def get(path: str, handler: Handler, summary: str, reply: Reply) -> Route:
        return Route("GET", path, handler, Role.PUBLIC, summary, reply=reply)

    def post(path: str, handler: Handler, summary: str, reply: Reply) -> Route:
        return Route("POST", path, handler, Role.PUBLIC, summary, peer=PeerRule.ANY, reply=reply)

    return (
        Route("GET", "/", overview.show, Role.CLIENT, "The page with all services", reply=HTML),
        get(PREFIX, login.to_home, "Leads to that page", REDIRECT),
        get(
            r"/static/{digest:[0-9a-f]+}/{name:[A-Za-z0-9./-]+}",
            assets.serve,
            "Style sheets, scripts and images of pages",
            FILES,
        ),
        get("/login", login.login, "Leads to the login at Keycloak", REDIRECT),
        get("/login/callback", login.callback, "Where Keycloak sends a browser back to", REDIRECT),
        get("/login/once", login.once, "The page behind a one-time link", HTML),
        post("/login/once", login.open_link, "Opens a session by the secret of a one-time link", Reply(OpenedLink)),
        post("/login/backchannel-logout", login.end, "Takes Keycloak's notice of a logout", Reply(media=())),
        get("/logout", login.logged_out, "What is shown after a logout", HTML),
        post("/logout", login.log_out, "Ends the session here, at Keycloak and at Core", REDIRECT),
    )


def probe_routes(probe: ProbePage) -> tuple[Route, ...]:
    """Return the page that helmd itself requests through the gateway."""
    path, summary = PROBE_PATH.removeprefix(PREFIX), "A page with nothing on it, to see what a proxy adds"
    return (Route("GET", path, probe.show, Role.PUBLIC, summary, reply=HTML),)
