"""Keycloak as far as a login goes: real keys and a real server, whose answers a test can change."""

import base64
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.unit.core_stand_in import KID, jwk, private_key, signed

ISSUER = "https://desk.example.org/keycloak/realms/hivematrix"


class KeycloakStandIn:
    """Answers for a realm. Codes are given by `log_in`, as a browser would get them; ``ended`` are ended sessions."""

    def __init__(self) -> None:
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {}
        """What ID tokens say besides, or instead."""
        self.ended: set[str] = set()
        self.logged_out: list[str] = []
        self.refreshed = 0
        self.token_reply: web.Response | None = None
        self.down = False
        self.url = ""

    def log_in(self, login_url: str, code: str = "a-code") -> str:
        """Return what Keycloak does for a user who has logged in: the query that it sends the browser back with."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(login_url).query).items()}
        self.codes[code] = query
        return f"state={query['state']}&session_state=s1&iss={ISSUER}&code={code}"

    async def discovery(self, request: web.Request) -> web.Response:
        self._check()
        login = f"{ISSUER}/protocol/openid-connect/auth"
        return web.json_response({"issuer": ISSUER, "authorization_endpoint": login})

    async def certs(self, request: web.Request) -> web.Response:
        self._check()
        return web.json_response({"keys": [jwk(private_key())]})

    async def token(self, request: web.Request) -> web.Response:
        self._check()
        if self.token_reply is not None:
            return self.token_reply
        form = await request.post()
        assert form["client_id"] == "helm" and "client_secret" not in form
        nonce = None
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(str(form["code"]), None)
            if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
                return _refused("Code not valid")
            digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
                return _refused("PKCE verification failed: Code mismatch")
            nonce = asked["nonce"]
        elif form["refresh_token"] in self.ended:
            return _refused("Session not active")
        else:
            self.refreshed += 1
        tokens = {
            "access_token": "an-access-token",
            "refresh_token": "refresh",
            "token_type": "Bearer",
            "scope": "openid",
        }
        return web.json_response({**tokens, "id_token": self.id_token(nonce)})

    async def logout(self, request: web.Request) -> web.Response:
        self._check()
        self.logged_out.append(str((await request.post())["refresh_token"]))
        return web.Response(status=204)

    def id_token(self, nonce: str | None) -> str:
        now = int(time.time())
        said = {"iss": ISSUER, "aud": "helm", "azp": "helm", "sub": "u1", "sid": "s1", "iat": now, "exp": now + 60}
        said |= {"auth_time": now - 5, "groups": ["admins"]} | ({"nonce": nonce} if nonce else {}) | self.claims
        return signed({name: value for name, value in said.items() if value is not None})

    def _check(self) -> None:
        if self.down:
            raise web.HTTPInternalServerError


def logout_token(key: Any = None, **claims: Any) -> str:
    """Return a logout token; a claim that is None is left out."""
    now = int(time.time())
    said = {"iss": ISSUER, "aud": "helm", "iat": now, "exp": now + 60, "jti": "j1", "sub": "u1", "sid": "s1"}
    said |= {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}} | claims
    return signed({name: value for name, value in said.items() if value is not None}, key, kid=KID)


def _refused(why: str) -> web.Response:
    return web.json_response({"error": "invalid_grant", "error_description": why}, status=400)


@asynccontextmanager
async def keycloak_standing_in() -> AsyncIterator[KeycloakStandIn]:
    keycloak = KeycloakStandIn()
    application = web.Application()
    realm = "/realms/hivematrix"
    application.router.add_get(f"{realm}/.well-known/openid-configuration", keycloak.discovery)
    application.router.add_get(f"{realm}/protocol/openid-connect/certs", keycloak.certs)
    application.router.add_post(f"{realm}/protocol/openid-connect/token", keycloak.token)
    application.router.add_post(f"{realm}/protocol/openid-connect/logout", keycloak.logout)
    server = TestServer(application)
    await server.start_server()
    keycloak.url = str(server.make_url("")).rstrip("/")
    try:
        yield keycloak
    finally:
        await server.close()
