"""Core of the sample suite: issues RS256 tokens for users and services.

Its replies have the shapes and codes of the real Core's: tests/unit/test_suite_contract.py compares them with
tests/fixtures.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
from aiohttp import web
from hivesuite.logs import AccessStyle, configure_logs
from hivesuite.registry import Registry
from hivesuite.server import bearer_token, disk_check, health_reply, json_body, json_reply, make_app, run
from hivesuite.settings import Settings, load_settings
from realm import InvalidAccessTokenError, Realm, RealmUnreachableError
from signing import Signer, load_or_make_key

DEFAULT_PORT = 5000
USER_CLAIMS = ("sub", "name", "email", "preferred_username", "permission_level", "groups")
_log = logging.getLogger("app")
_SERVICE_NAME = re.compile(r"[a-z0-9_-]{1,50}")


class Core:
    """The routes of Core, and its sessions, which are kept in memory."""

    def __init__(self, settings: Settings, signer: Signer) -> None:
        self._settings = settings
        self._signer = signer
        self._registry = Registry(settings.directory / "services.json")
        self._sessions: dict[str, int] = {}
        self._realm: Realm | None = None

    def app(self) -> web.Application:
        app = make_app()
        app.cleanup_ctx.append(self._connections)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/.well-known/jwks.json", self._jwks),
                web.post("/service-token", self._service_token),
                web.post("/api/token/exchange", self._exchange),
                web.post("/api/token/validate", self._validate),
                web.post("/api/token/revoke", self._revoke),
            ]
        )
        return app

    async def _connections(self, app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            self._realm = Realm(session, self._keycloak_url(), self._settings.text("KEYCLOAK_REALM", "hivematrix"))
            yield

    def _keycloak_url(self) -> str:
        """Where Keycloak is asked about users: like the real Core, through the gateway if its URL is known."""
        if gateway := self._settings.text("NEXUS_SERVICE_URL"):
            return f"{gateway.rstrip('/')}/keycloak"
        return self._settings.text("KEYCLOAK_SERVER_URL") or self._registry.url("keycloak", "http://127.0.0.1:8080")

    async def _health(self, request: web.Request) -> web.Response:
        checks = {"disk": disk_check()}
        if self._settings.flag("CORE_DEGRADED"):
            checks["redis"] = {"status": "degraded", "error": "Redis is not available; sessions are in memory"}
        return health_reply("core", checks)

    async def _jwks(self, request: web.Request) -> web.Response:
        return json_reply(self._signer.jwks())

    async def _service_token(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        caller, target = body.get("calling_service"), body.get("target_service")
        if not caller or not target:
            return json_reply({"error": "both calling_service and target_service must be given"}, 400)
        known = self._registry.urls()
        for field, name in (("calling_service", caller), ("target_service", target)):
            if not isinstance(name, str) or not _SERVICE_NAME.fullmatch(name):
                return json_reply({"error": f"{field} is not a service name"}, 400)
            if name not in known:
                return json_reply({"error": f"{field} is not in services.json"}, 400)
        return json_reply({"token": self._signer.service_token(str(caller), str(target))})

    async def _exchange(self, request: web.Request) -> web.Response:
        access_token = (await json_body(request)).get("access_token") or bearer_token(request)
        if not access_token:
            return json_reply({"error": "access_token is required"}, 400)
        assert self._realm is not None
        try:
            user = await self._realm.userinfo(access_token)
        except InvalidAccessTokenError:
            return json_reply({"error": "the access token is not valid"}, 401)
        except RealmUnreachableError as error:
            _log.warning("%s", error)
            return json_reply({"error": "Keycloak is not reachable"}, 503)
        token, session, expires = self._signer.user_token(user)
        self._open_session(session, expires)
        _log.info("session opened for %s", user.preferred_username)
        return json_reply({"token": token})

    def _open_session(self, session: str, expires: int) -> None:
        now = self._signer.now()
        self._sessions = {jti: end for jti, end in self._sessions.items() if end > now}
        self._sessions[session] = expires

    async def _validate(self, request: web.Request) -> web.Response:
        token = (await json_body(request)).get("token") or bearer_token(request)
        if not token:
            return json_reply({"error": "token is required", "valid": False}, 400)
        try:
            claims = self._signer.claims(token)
        except jwt.InvalidTokenError as error:
            return json_reply({"error": f"the token is not valid: {error}", "valid": False}, 401)
        if not claims.get("jti"):
            return json_reply({"error": "the token has no session", "valid": False}, 401)
        if claims["jti"] not in self._sessions:
            return json_reply({"error": "the session has ended", "valid": False}, 401)
        user: dict[str, Any] = {name: claims.get(name) for name in USER_CLAIMS}
        return json_reply({"user": user, "valid": True})

    async def _revoke(self, request: web.Request) -> web.Response:
        token = (await json_body(request)).get("token") or bearer_token(request)
        if not token:
            return json_reply({"error": "token is required"}, 400)
        try:
            claims = self._signer.claims(token)
        except jwt.InvalidTokenError as error:
            return json_reply({"error": f"the token is not valid: {error}"}, 401)
        if not claims.get("jti"):
            return json_reply({"error": "the token has no session"}, 400)
        self._sessions.pop(claims["jti"], None)
        return json_reply({"message": "the session is closed"})


if __name__ == "__main__":
    settings = load_settings("core", DEFAULT_PORT)
    configure_logs(settings.mode)
    key = load_or_make_key(settings.directory / "keys" / "jwt_private.pem")
    print("Sample Core: sessions are kept in memory", flush=True)
    run(Core(settings, Signer(key)).app(), settings, AccessStyle.LOGGING)
