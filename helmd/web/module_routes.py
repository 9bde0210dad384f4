"""The part of the route table about modules, and about what they depend on."""

from helmd.model.api.apps import AppsReply
from helmd.web.api.modules import Modules
from helmd.web.auth.roles import Role
from helmd.web.reply import Reply
from helmd.web.route import Route


def module_routes(modules: Modules) -> tuple[Route, ...]:
    """Return the routes."""
    return (
        Route(
            "GET",
            "/api/apps",
            modules.apps,
            Role.TECHNICIAN,
            "What of this machine the suite depends on",
            reply=Reply(AppsReply),
        ),
    )
