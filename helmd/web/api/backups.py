"""Listing backups, and making one as a job. They are restored by helmctl, and archives are not served."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.backups import BackupList, BackupRequest
from helmd.model.api.jobs import JobAcceptedReply
from helmd.model.ingest.body import idempotency_key
from helmd.operations.jobs.engine import JobEngine
from helmd.web.api.control import requester_of
from helmd.web.auth.audit import note_change
from helmd.web.auth.roles import Identity
from helmd.web.http.problems import json_response, prefix_of
from helmd.web.http.validation import read_request

KIND = "backup"


class Backups:
    """The handlers. LISTED reads the directory of backups."""

    def __init__(self, engine: JobEngine, listed: Callable[[], BackupList]) -> None:
        self._engine = engine
        self._listed = listed

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/backups"""
        return json_response(await asyncio.to_thread(self._listed))

    async def create(self, request: web.Request) -> web.Response:
        """POST /api/backups"""
        body = await read_request(request, BackupRequest)
        identity: Identity = request["identity"]
        given = request.headers.get("Idempotency-Key")
        key = None if given is None else (f"{identity.key} {request.path}", idempotency_key(given))
        words = ("backup", "create", "--json")
        view = await self._engine.submit(KIND, ("suite",), words, requester_of(request), body.reason, key)
        job = view.reply
        note_change(request, reason=body.reason, detail=f"backup; job {job.id}")
        headers = {"Location": f"{prefix_of(request)}/api/jobs/{job.id}"}
        reply = JobAcceptedReply(True, f"The backup goes on as job {job.id}", job)
        return json_response(reply, HTTPStatus.ACCEPTED, headers=headers)
