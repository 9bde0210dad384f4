"""The security audit, and accepted findings."""

import asyncio
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.security import DEFAULT_AUDIT_AGE, AcceptFindingRequest, AuditFinding
from helmd.model.security.acceptance import UnknownFindingError
from helmd.model.security.report import accepted_finding, finding_of
from helmd.operations.security.acceptances import AcceptanceStore
from helmd.operations.security.latest import LatestAudit
from helmd.web.api.log_query import number, parameters
from helmd.web.auth.audit import note_change
from helmd.web.auth.roles import Identity
from helmd.web.http.problems import json_response
from helmd.web.http.validation import read_request

_SEEN_SECONDS = 3600
"""Seconds for which a finding that was shown is accepted without a new audit."""


class Security:
    """The handlers."""

    def __init__(self, audit: LatestAudit, store: AcceptanceStore) -> None:
        self._audit, self._store = audit, store

    async def audit(self, request: web.Request) -> web.Response:
        """GET /api/security/audit"""
        return json_response(
            await self._audit.reply(number(parameters(request), "max_age", DEFAULT_AUDIT_AGE, least=0))
        )

    async def accept(self, request: web.Request) -> web.Response:
        """POST /api/security/findings/{id}/accept"""
        given = await read_request(request, AcceptFindingRequest)
        wanted = request.match_info["id"]
        identity: Identity = request["identity"]
        note_change(request, reason=given.reason, detail=f"finding {wanted} until {given.until.isoformat()}")
        # A finding that is newer than the last audit needs a new one.
        found = await self._found(wanted, _SEEN_SECONDS) or await self._found(wanted, 0)
        if found is None:
            raise UnknownFindingError(f"the audit has no finding {wanted}", hint="GET /api/security/audit lists them.")
        finding = finding_of(found)
        note_change(
            request, reason=given.reason, detail=f"{finding.sentence} ({wanted}) until {given.until.isoformat()}"
        )
        made = await asyncio.to_thread(self._store.accept, finding, given.reason, given.until, identity.name)
        return json_response(accepted_finding(made), HTTPStatus.CREATED)

    async def withdraw(self, request: web.Request) -> web.Response:
        """DELETE /api/security/findings/{id}/accept"""
        wanted = request.match_info["id"]
        note_change(request, detail=f"finding {wanted}")
        ended = await asyncio.to_thread(self._store.withdraw, wanted)
        note_change(request, detail=f"{ended.subject} ({ended.id})")
        return json_response(accepted_finding(ended))

    async def _found(self, wanted: str, max_age: float) -> AuditFinding | None:
        reply = await self._audit.reply(max_age)
        return next((each for each in reply.findings if each.id == wanted), None)
