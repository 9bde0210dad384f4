"""Modules of the suite, and their dependencies on the machine."""

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.jobs import JobAcceptedReply
from helmd.model.api.modules import (
    AvailableModule,
    CheckModulesBody,
    HoldModuleBody,
    InstallModuleBody,
    ModuleBody,
    ModulePlanReply,
    ModulesReply,
    PlanModuleBody,
    RemoveModuleBody,
    RollbackModuleBody,
    UpdateModuleBody,
)
from helmd.model.errors import UnknownServiceError, UsageError
from helmd.model.ingest.body import idempotency_key
from helmd.model.modules.source import git_source_of, module_name, ref_of
from helmd.model.printable import printable
from helmd.model.suite.names import fault_in_name
from helmd.operations.jobs.engine import JobEngine
from helmd.operations.modules.apps import InstalledApps
from helmd.web.api.control import requester_of
from helmd.web.auth.audit import note_change
from helmd.web.auth.roles import Identity
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response, prefix_of
from helmd.web.http.validation import read_request

_ENDINGS = {
    "module-install": "The installation",
    "module-update": "The update",
    "module-plan": "The look for an update",
    "module-rollback": "The rollback",
    "module-remove": "The removal",
}
"""The kinds of jobs, each with the beginning of a sentence about it."""

HoldModule = Callable[[str, bool, str, str], bool]
"""Holds a module or ends the hold (name, held, reason, by); returns whether something changed."""


class Modules:
    """The handlers. APPS inspects the machine; MODULES, AVAILABLE and PLAN read the disk, HOLD changes a record."""

    def __init__(
        self,
        engine: JobEngine,
        apps: InstalledApps,
        modules: Callable[[], Sequence[ModuleBody]],
        available: Callable[[], Sequence[AvailableModule]],
        hold: HoldModule,
        plan: Callable[[str, str], ModulePlanReply],
    ) -> None:
        self._engine, self._apps = engine, apps
        self._modules, self._available, self._hold, self._plan = modules, available, hold, plan

    async def apps(self, request: web.Request) -> web.Response:
        """GET /api/apps"""
        return json_response(await run_while_connected(request, self._apps.report()))

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/modules"""
        modules = await asyncio.to_thread(self._modules)
        return json_response(ModulesReply(tuple(modules), tuple(await asyncio.to_thread(self._available))))

    async def one(self, request: web.Request) -> web.Response:
        """GET /api/modules/{name}"""
        return json_response(await self._known(request))

    async def install(self, request: web.Request) -> web.Response:
        """POST /api/modules/install"""
        body = await read_request(request, InstallModuleBody)
        name = installed_name(body)
        options = [word for option, value in (("--ref", body.ref), ("--name", body.name)) if value
                   for word in (option, value)]  # fmt: skip
        last = ("--dry-run",) if body.dry_run else ("--yes", "--json")
        words = ("modules", "install", *options, *last, "--", body.source)
        return await self._submitted(request, "module-install", (name,), words, body.reason)

    async def update(self, request: web.Request) -> web.Response:
        """POST /api/modules/{name}/update"""
        body = await read_request(request, UpdateModuleBody)
        name = (await self._known(request)).name
        ref_of(body.ref)
        options: tuple[str, ...] = ("--ref", body.ref) if body.ref else ()
        options += ("--discard-changes",) if body.discard_changes else ()
        options += ("--planned", body.planned) if body.planned else ()
        last = ("--dry-run",) if body.dry_run else ("--yes", "--json")
        words = ("modules", "update", *options, *last, "--", name)
        return await self._submitted(request, "module-update", (name,), words, body.reason)

    async def plan(self, request: web.Request) -> web.Response:
        """GET /api/modules/{name}/plan"""
        name = (await self._known(request)).name
        ref = ref_of(request.query.get("ref", ""))
        return json_response(await asyncio.to_thread(self._plan, name, ref))

    async def make_plan(self, request: web.Request) -> web.Response:
        """POST /api/modules/{name}/plan"""
        body = await read_request(request, PlanModuleBody)
        name = (await self._known(request)).name
        ref_of(body.ref)
        words = ("modules", "update", *(("--ref", body.ref) if body.ref else ()), "--dry-run", "--", name)
        return await self._submitted(request, "module-plan", (name,), words, body.reason)

    async def check(self, request: web.Request) -> web.Response:
        """POST /api/module-checks"""
        body = await read_request(request, CheckModulesBody)
        known = [each.name for each in await asyncio.to_thread(self._modules)]
        for name in body.modules:
            if name not in known:
                raise _not_installed(name)
        names = tuple(name for name in known if name in body.modules or not body.modules)
        if not names:
            raise UsageError("no module was installed from git", hint="Install one: helmctl modules install NAME")
        return await self._submitted(request, "module-plan", names, ("modules", "check", "--", *names), body.reason)

    async def rollback(self, request: web.Request) -> web.Response:
        """POST /api/modules/{name}/rollback"""
        body = await read_request(request, RollbackModuleBody)
        name = (await self._known(request)).name
        how = "--with-data" if body.with_data else "--code-only"
        words = ("modules", "rollback", how, "--yes", "--json", "--", name)
        return await self._submitted(request, "module-rollback", (name,), words, body.reason)

    async def hold(self, request: web.Request) -> web.Response:
        """POST /api/modules/{name}/hold"""
        body = await read_request(request, HoldModuleBody)
        name = (await self._known(request)).name
        note_change(
            request, reason=body.reason, detail=f"module {name}: {'held' if body.held else 'not held any more'}"
        )
        await asyncio.to_thread(self._hold, name, body.held, body.reason, requester_of(request).name)
        return json_response(await self._known(request))

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /api/modules/{name}"""
        body = await read_request(request, RemoveModuleBody)
        name = (await self._known(request)).name
        keep = ("--keep-data",) if body.keep_data else ()
        words = ("modules", "remove", *keep, "--yes", "--", name)
        return await self._submitted(request, "module-remove", (name,), words, body.reason)

    async def _known(self, request: web.Request) -> ModuleBody:
        """Return the module that the path names. Raises UnknownServiceError."""
        name = request.match_info["name"]
        found = next((each for each in await asyncio.to_thread(self._modules) if each.name == name), None)
        if found is None:
            raise _not_installed(name)
        return found

    async def _submitted(
        self, request: web.Request, kind: str, names: tuple[str, ...], words: Sequence[str], reason: str
    ) -> web.Response:
        """Begin a job that does what helmctl's arguments WORDS say."""
        identity: Identity = request["identity"]
        given = request.headers.get("Idempotency-Key")
        key = None if given is None else (f"{identity.key} {request.path}", idempotency_key(given))
        view = await self._engine.submit(kind, names, tuple(words), requester_of(request), reason, key)
        job = view.reply
        note_change(request, reason=reason, detail=f"module {', '.join(names)}; job {job.id}")
        headers = {"Location": f"{prefix_of(request)}/api/jobs/{job.id}"}
        reply = JobAcceptedReply(True, f"{_ENDINGS[kind]} goes on as job {job.id}", job)
        return json_response(reply, HTTPStatus.ACCEPTED, headers=headers)


def _not_installed(name: str) -> UnknownServiceError:
    return UnknownServiceError(
        f"there is no module '{printable(name, 60)}' that was installed from git", hint="See: helmctl modules list"
    )


def installed_name(body: InstallModuleBody) -> str:
    """Return the name of the service that would be installed.

    Raises UsageError for what can't be installed by any setting.
    """
    ref_of(body.ref)
    if "/" in body.source or ":" in body.source:
        return module_name(git_source_of(body.source, files=True), body.name)
    name = body.name or body.source
    if fault := fault_in_name(name):
        raise UsageError(f"source: '{name[:60]}' can't be a module: {fault}")
    return name
