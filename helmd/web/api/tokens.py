"""Listing, creating and revoking machine tokens."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.tokens import NewTokenRequest, TokenList
from helmd.model.identity.machine_token import new_token_of
from helmd.operations.identity.tokens import TokenStore
from helmd.web.auth.audit import note_change
from helmd.web.auth.roles import Identity
from helmd.web.http.problems import json_response
from helmd.web.http.validation import read_request


class Tokens:
    """The handlers."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/tokens"""
        tokens, uses = self._store.tokens(), self._store.last_uses()
        now = datetime.now(UTC)
        return json_response(TokenList(tuple(token.body(uses.get(token.id), now) for token in tokens)))

    async def create(self, request: web.Request) -> web.Response:
        """POST /api/tokens"""
        given = await read_request(request, NewTokenRequest)
        reason, lasting = given.reason, {} if given.expires_in is None else {"expires_in": given.expires_in}
        wanted = new_token_of(given.name, given.role, given.services, **lasting)
        identity: Identity = request["identity"]
        note_change(request, reason=reason, detail=str(wanted))
        token, secret = await asyncio.to_thread(self._store.create, wanted, identity.name)
        note_change(request, reason=reason, detail=f"{wanted}, id {token.id}")
        body = token.created(secret, datetime.now(UTC))
        return json_response(body, HTTPStatus.CREATED, headers={"Location": f"/api/tokens/{token.id}"})

    async def revoke(self, request: web.Request) -> web.Response:
        """DELETE /api/tokens/{id}"""
        wanted = request.match_info["id"]
        note_change(request, detail=f"token {wanted}")
        token = await asyncio.to_thread(self._store.revoke, wanted)
        note_change(request, detail=f"token {token.name}, id {token.id}")
        return web.Response(status=HTTPStatus.NO_CONTENT)
