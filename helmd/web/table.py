"""The complete route table."""

from dataclasses import dataclass

from helmd.web.admin_pages import AdminPages, admin_page_routes
from helmd.web.api.audit import Audit
from helmd.web.api.backups import Backups
from helmd.web.api.config import ServiceConfigs
from helmd.web.api.control import ControlHandlers
from helmd.web.api.details import Details
from helmd.web.api.events import Events
from helmd.web.api.firewall import Firewall
from helmd.web.api.ingest import Intake
from helmd.web.api.jobs import JobHandlers
from helmd.web.api.logs import Logs
from helmd.web.api.modules import Modules
from helmd.web.api.security import Security
from helmd.web.api.services import Api
from helmd.web.api.stream import Streams
from helmd.web.api.tokens import Tokens
from helmd.web.api.users import UserHandlers
from helmd.web.backup_routes import backup_routes
from helmd.web.documents import with_documents
from helmd.web.module_routes import module_routes
from helmd.web.pages.assets import Assets
from helmd.web.pages.audit import AuditTrailPage
from helmd.web.pages.login import LoginPages
from helmd.web.pages.logs import LogsPage
from helmd.web.pages.overview import OverviewPage
from helmd.web.pages.probe import ProbePage
from helmd.web.pages.service import ServicePage
from helmd.web.pages.users import UsersPage
from helmd.web.route import Route
from helmd.web.routes import (
    audit_routes,
    config_routes,
    detail_routes,
    event_routes,
    job_routes,
    log_routes,
    login_routes,
    page_routes,
    probe_routes,
    routes,
    token_routes,
)
from helmd.web.security_routes import security_routes
from helmd.web.service_pages import log_pages, service_pages
from helmd.web.user_routes import user_routes


@dataclass(frozen=True, slots=True)
class Handlers:
    """The handlers of all routes."""

    api: Api
    intake: Intake
    logs: Logs
    streams: Streams
    details: Details
    events: Events
    tokens: Tokens
    audit: Audit
    security: Security
    control: ControlHandlers
    jobs: JobHandlers
    configs: ServiceConfigs
    firewall: Firewall
    users: UserHandlers
    backups: Backups
    modules: Modules
    login: LoginPages
    overview: OverviewPage
    service_page: ServicePage
    users_page: UsersPage
    audit_page: AuditTrailPage
    logs_page: LogsPage
    assets: Assets
    probe: ProbePage
    admin: AdminPages


def described_table(handlers: Handlers) -> tuple[Route, ...]:
    """Return the routes that the OpenAPI document describes, and those of the document itself."""
    return with_documents(
        (
            *routes(handlers.api, handlers.intake),
            *log_routes(handlers.logs, handlers.streams),
            *detail_routes(handlers.details),
            *event_routes(handlers.events),
            *token_routes(handlers.tokens),
            *audit_routes(handlers.audit),
            *security_routes(handlers.security, handlers.firewall),
            *job_routes(handlers.control, handlers.jobs),
            *config_routes(handlers.configs),
            *user_routes(handlers.users),
            *backup_routes(handlers.backups),
            *module_routes(handlers.modules),
            *login_routes(handlers.login),
        )
    )


def whole_table(handlers: Handlers) -> tuple[Route, ...]:
    """Return all routes of helmd."""
    return (
        *described_table(handlers),
        *page_routes(handlers.overview, handlers.login, handlers.assets),
        *admin_page_routes(handlers.admin),
        *service_pages(handlers.service_page, handlers.users_page, handlers.audit_page),
        *log_pages(handlers.logs_page),
        *probe_routes(handlers.probe),
    )
