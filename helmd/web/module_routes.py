"""The part of the route table about modules, and about what they depend on."""

from http import HTTPStatus

from helmd.model.api.apps import AppsReply
from helmd.model.api.jobs import JobAcceptedReply
from helmd.model.api.modules import InstallModuleBody, ModulesReply
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
        Route("GET", "/api/modules", modules.list, Role.ADMIN, "The modules of the suite", reply=Reply(ModulesReply)),
        Route(
            "POST",
            "/api/modules/install",
            modules.install,
            Role.ADMIN,
            "Installs a module from git, as a job",
            recent_login=True,
            request=InstallModuleBody,
            reply=Reply(JobAcceptedReply, HTTPStatus.ACCEPTED),
        ),
    )
