"""Routes about modules and their dependencies."""

from http import HTTPStatus

from helmd.model.api.apps import AppsReply
from helmd.model.api.jobs import JobAcceptedReply
from helmd.model.api.modules import (
    CheckModulesBody,
    HoldModuleBody,
    InstallModuleBody,
    ModuleBody,
    ModulePlanQuery,
    ModulePlanReply,
    ModulesReply,
    PlanModuleBody,
    RemoveModuleBody,
    RollbackModuleBody,
    UpdateModuleBody,
)
from helmd.web.api.modules import Modules
from helmd.web.auth.roles import Role
from helmd.web.reply import Reply
from helmd.web.route import Route


def module_routes(modules: Modules) -> tuple[Route, ...]:
    """Return the routes."""
    # Not the path of installations, whose Allow header would list GET and DELETE.
    alone = "/api/modules/{name:(?!install$)[^/]+}"
    one, accepted = "/api/modules/{name}", Reply(JobAcceptedReply, HTTPStatus.ACCEPTED)
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
            reply=accepted,
        ),
        Route("GET", alone, modules.one, Role.ADMIN, "One module", reply=Reply(ModuleBody)),
        Route(
            "POST",
            f"{one}/update",
            modules.update,
            Role.ADMIN,
            "Updates a module, as a job that is rolled back if it fails",
            recent_login=True,
            request=UpdateModuleBody,
            reply=accepted,
        ),
        Route(
            "GET",
            f"{one}/plan",
            modules.plan,
            Role.ADMIN,
            "What is known of the update of a module",
            query=ModulePlanQuery,
            reply=Reply(ModulePlanReply),
        ),
        Route(
            "POST",
            f"{one}/plan",
            modules.make_plan,
            Role.ADMIN,
            "Fetches a module's repository and plans its update, as a job",
            recent_login=True,
            request=PlanModuleBody,
            reply=accepted,
        ),
        Route(
            "POST",
            "/api/module-checks",
            modules.check,
            Role.ADMIN,
            "Looks for updates of modules, as a job",
            recent_login=True,
            request=CheckModulesBody,
            reply=accepted,
        ),
        Route(
            "POST",
            f"{one}/rollback",
            modules.rollback,
            Role.ADMIN,
            "Goes back to the version of a module that served before, as a job",
            recent_login=True,
            request=RollbackModuleBody,
            reply=accepted,
        ),
        Route(
            "POST",
            f"{one}/hold",
            modules.hold,
            Role.ADMIN,
            "Has updates leave a module alone, or not any more",
            recent_login=True,
            request=HoldModuleBody,
            reply=Reply(ModuleBody),
        ),
        Route(
            "DELETE",
            alone,
            modules.remove,
            Role.ADMIN,
            "Removes a module, as a job",
            recent_login=True,
            request=RemoveModuleBody,
            reply=accepted,
        ),
    )
