"""Routes of pages for administrators: metrics, security, modules, jobs."""

from dataclasses import dataclass

from helmd.web.auth.roles import Role
from helmd.web.pages.jobs import JobPages
from helmd.web.pages.metrics import MetricsPage
from helmd.web.pages.modules import ModulePages
from helmd.web.pages.security import SecurityPage
from helmd.web.reply import HTML
from helmd.web.route import Route


@dataclass(frozen=True, slots=True)
class AdminPages:
    """The handlers of these routes."""

    metrics: MetricsPage
    security: SecurityPage
    modules: ModulePages
    jobs: JobPages


def admin_page_routes(pages: AdminPages) -> tuple[Route, ...]:
    """Return the routes."""
    return (
        Route("GET", "/metrics", pages.metrics.show, Role.TECHNICIAN, "The page of charts", reply=HTML),
        Route("GET", "/security", pages.security.show, Role.ADMIN, "The page about security", reply=HTML),
        Route("GET", "/modules", pages.modules.modules, Role.ADMIN, "The page of modules", reply=HTML),
        Route("GET", "/apps", pages.modules.apps, Role.ADMIN, "The page of what they depend on", reply=HTML),
        Route("GET", "/jobs", pages.jobs.list, Role.ADMIN, "The page of jobs and backups", reply=HTML),
        Route("GET", "/jobs/{id}", pages.jobs.job, Role.ADMIN, "The page of one job", reply=HTML),
    )
