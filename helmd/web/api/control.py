"""Starting, stopping and restarting services: each request becomes a job."""

import time
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.jobs import Action, ActionsBody, ControlBody, JobAcceptedReply, PlannedStep, PlanReply
from helmd.model.identity.origin import Origin
from helmd.model.ingest.body import idempotency_key
from helmd.model.jobs.control import check_confirmed, check_controlled, check_mode, control_result, helmctl_words
from helmd.model.jobs.record import Requester
from helmd.model.jobs.replies import ControlFailure
from helmd.model.problems import PROBLEMS
from helmd.model.suite.effects import effect_text
from helmd.model.suite.names import Mode, unit_of
from helmd.model.suite.service import Registry, with_unregistered
from helmd.operations.jobs.engine import JobEngine
from helmd.operations.jobs.states import JobView
from helmd.operations.lifecycle.control import dry_run
from helmd.web.api.sources import StatusSource
from helmd.web.auth.audit import note_change
from helmd.web.auth.roles import Identity
from helmd.web.auth.same_origin import is_proxied
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.connection import ClientConnection
from helmd.web.http.problems import json_response, prefix_of, problem
from helmd.web.http.validation import read_request

PROXY_SECONDS = 20.0
"""Maximum duration in seconds of a request through a proxy: the gateway times out after 30 s without a byte."""


class ControlHandlers:
    """The handlers. MONITOR has all services, REGISTRY returns the configured ones."""

    def __init__(self, engine: JobEngine, monitor: StatusSource, registry: Callable[[], Registry]) -> None:
        self._engine = engine
        self._monitor = monitor
        self._registry = registry

    async def start(self, request: web.Request) -> web.Response:
        """POST /api/services/{name}/start"""
        return await self._control(request, "start")

    async def stop(self, request: web.Request) -> web.Response:
        """POST /api/services/{name}/stop"""
        return await self._control(request, "stop")

    async def restart(self, request: web.Request) -> web.Response:
        """POST /api/services/{name}/restart"""
        return await self._control(request, "restart")

    async def actions(self, request: web.Request) -> web.Response:
        """POST /api/services/actions"""
        body = await read_request(request, ActionsBody)
        check_mode(body)
        everything = "all" in body.services
        names = self._registry().names if everything else body.services
        self._check(request, body.action, names, body.confirm)
        if body.dry_run:
            registry = with_unregistered(self._registry(), names)
            planned = dry_run(registry, names, body.action, True, everything)
            steps = tuple(PlannedStep(*each) for each in planned.items())
            return json_response(PlanReply(steps, effect_text(body.action, tuple(planned), registry)))
        targets = ("all",) if everything else body.services
        return self._accepted(request, await self._submit(request, body.action, targets, body.mode, body.reason))

    async def _control(self, request: web.Request, action: Action) -> web.Response:
        name = request.match_info["name"]
        body = await read_request(request, ControlBody)
        self._check(request, action, (name,), body.confirm)
        view = await self._submit(request, action, (name,), None if action == "stop" else body.mode, body.reason)
        if body.wait:
            view = await run_while_connected(request, self._engine.wait(view, _given_up(request)))
        return await self._result(request, action, name, view) if view.ended else self._accepted(request, view)

    def _check(self, request: web.Request, action: Action, names: tuple[str, ...], confirm: bool) -> None:
        """Raises UnknownServiceError, UsageError and ConfirmationError."""
        check_controlled(names)
        for name in names:
            self._monitor.status(name)
        if _identity(request).via != "socket":
            check_confirmed(action, names, confirm)

    async def _submit(
        self, request: web.Request, action: Action, names: tuple[str, ...], mode: Mode | None, reason: str
    ) -> JobView:
        given = request.headers.get("Idempotency-Key")
        key = None if given is None else (f"{_identity(request).key} {request.path}", idempotency_key(given))
        words = helmctl_words(action, names, mode)
        view = await self._engine.submit(action, names, words, requester_of(request), reason, key)
        note_change(request, reason=reason, detail=f"{action} {view.record.request.target}; {_job(view)}")
        return view

    def _accepted(self, request: web.Request, view: JobView) -> web.Response:
        job = view.reply
        message = f"The {job.kind} of {job.target} goes on as job {job.id}"
        headers = {"Location": f"{prefix_of(request)}/api/jobs/{job.id}"}
        return json_response(JobAcceptedReply(True, message, job), HTTPStatus.ACCEPTED, headers=headers)

    async def _result(self, request: web.Request, action: Action, name: str, view: JobView) -> web.Response:
        pid = None if action == "stop" else await self._engine.main_pid(unit_of(name))
        port = self._monitor.status(name).configured_port
        result = control_result(action, name, view.record, view.verdict, pid, port)
        if not isinstance(result, ControlFailure):
            return json_response(result)
        return problem(
            request,
            PROBLEMS.get(result.code, PROBLEMS["failed"]).status,
            result.code,
            result.detail,
            hint=result.hint or None,
            lines=result.lines or None,
            success=False,
            message=result.detail,
            job=view.record.request.id,
        )


def _job(view: JobView) -> str:
    return f"job {view.record.request.id}"


def requester_of(request: web.Request) -> Requester:
    """Return who sent REQUEST, and from where."""
    origin: Origin = request["origin"]
    return Requester(_identity(request).name, origin.via, origin.address, origin.unit, origin.session)


def _identity(request: web.Request) -> Identity:
    identity: Identity = request["identity"]
    return identity


def _given_up(request: web.Request) -> Callable[[], bool]:
    """Return whether to stop waiting for the end of a job: helmd is stopping, or a proxy would time out soon."""
    proxied = is_proxied(request.headers)
    until = time.monotonic() + PROXY_SECONDS

    def given_up() -> bool:
        connection = request.protocol
        ending = isinstance(connection, ClientConnection) and connection.ends_soon
        return ending or (proxied and time.monotonic() >= until)

    return given_up
