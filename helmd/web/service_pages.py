"""Routes of the pages of services, users and the audit trail."""

from helmd.web.auth.roles import Role
from helmd.web.pages.audit import AuditTrailPage
from helmd.web.pages.logs import LogsPage
from helmd.web.pages.service import ServicePage
from helmd.web.pages.users import UsersPage
from helmd.web.reply import HTML
from helmd.web.route import Route


def service_pages(service: ServicePage, users: UsersPage, audit: AuditTrailPage) -> tuple[Route, ...]:
    """Return all of them; the OpenAPI document does not have them."""
    return (
        Route("GET", "/service/{name}", service.show, Role.TECHNICIAN, "The page of one service", reply=HTML),
        Route("GET", "/users", users.show, Role.ADMIN, "The page of users", reply=HTML),
        Route("GET", "/audit", audit.show, Role.ADMIN, "The page of the audit trail", reply=HTML),
    )


def log_pages(logs: LogsPage) -> tuple[Route, ...]:
    """Return the pages of log entries, which show those that the caller may read."""
    return tuple(
        Route("GET", path, logs.show, Role.BILLING, summary, confined=True, reply=HTML)
        for path, summary in (
            ("/logs", "The page of log entries"),
            ("/service/{name}/logs", "The same page for one service"),
        )
    )
