"""Modules of the suite, and what of the machine they depend on."""

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.jobs import JobAcceptedReply
from helmd.model.api.modules import AvailableModule, InstallModuleBody, ModuleBody, ModulesReply
from helmd.model.errors import UsageError
from helmd.model.ingest.body import idempotency_key
from helmd.model.modules.source import git_source_of, module_name, ref_of
from helmd.model.suite.names import fault_in_name
from helmd.operations.jobs.engine import JobEngine
from helmd.operations.modules.apps import InstalledApps
from helmd.web.api.control import requester_of
from helmd.web.auth.audit import note_change
from helmd.web.auth.roles import Identity
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response, prefix_of
from helmd.web.http.validation import read_request

_KIND = "module-install"


class Modules:
    """The handlers. APPS looks at the machine; MODULES and AVAILABLE read the disk."""

    def __init__(
        self,
        engine: JobEngine,
        apps: InstalledApps,
        modules: Callable[[], Sequence[ModuleBody]],
        available: Callable[[], Sequence[AvailableModule]],
    ) -> None:
        self._engine, self._apps = engine, apps
        self._modules, self._available = modules, available

    async def apps(self, request: web.Request) -> web.Response:
        """GET /api/apps"""
        return json_response(await run_while_connected(request, self._apps.report()))

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/modules"""
        modules = await asyncio.to_thread(self._modules)
        return json_response(ModulesReply(tuple(modules), tuple(await asyncio.to_thread(self._available))))

    async def install(self, request: web.Request) -> web.Response:
        """POST /api/modules/install"""
        body = await read_request(request, InstallModuleBody)
        name = installed_name(body)
        options = [word for option, value in (("--ref", body.ref), ("--name", body.name)) if value
                   for word in (option, value)]  # fmt: skip
        last = ("--dry-run",) if body.dry_run else ("--yes", "--json")
        words = ("modules", "install", *options, *last, "--", body.source)
        identity: Identity = request["identity"]
        given = request.headers.get("Idempotency-Key")
        key = None if given is None else (f"{identity.key} {request.path}", idempotency_key(given))
        view = await self._engine.submit(_KIND, (name,), words, requester_of(request), body.reason, key)
        job = view.reply
        note_change(request, reason=body.reason, detail=f"module {name}; job {job.id}")
        headers = {"Location": f"{prefix_of(request)}/api/jobs/{job.id}"}
        reply = JobAcceptedReply(True, f"The installation goes on as job {job.id}", job)
        return json_response(reply, HTTPStatus.ACCEPTED, headers=headers)


def installed_name(body: InstallModuleBody) -> str:
    """The name of the service that would be installed. Raises UsageError for what can't be installed by any setting."""
    ref_of(body.ref)
    if "/" in body.source or ":" in body.source:
        return module_name(git_source_of(body.source, files=True), body.name)
    name = body.name or body.source
    if fault := fault_in_name(name):
        raise UsageError(f"source: '{name[:60]}' can't be a module: {fault}")
    return name
