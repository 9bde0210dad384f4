"""Core as far as tokens go: real keys, and a real server whose answers a test can change."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa

from helmd.web.auth import asking
from tests.fixtures import TOKEN_HEADER, claims
from tests.waiting import WITHIN

KID = TOKEN_HEADER["kid"]


def _timeless(name: str) -> dict[str, Any]:
    """Return the claims of a token but for when it was issued and expires."""
    return {claim: value for claim, value in claims(name).items() if claim not in ("iat", "exp")}


USER = _timeless("technician")
SERVICE = _timeless("service")


@cache
def private_key(name: str = "first", bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the key of that name; made once, since making one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def signed(payload: dict[str, Any], key: Any = None, algorithm: str | None = "RS256", **header: Any) -> str:
    """Return a token with these claims. HEADER's None takes a field away."""
    fields = {"kid": KID, **header}
    given = {name: value for name, value in fields.items() if value is not None}
    token: str = jwt.encode(payload, private_key() if key is None else key, algorithm=algorithm, headers=given)
    return token


def jwk(key: rsa.RSAPrivateKey, kid: str = KID) -> dict[str, Any]:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": public["n"], "e": public["e"]}


class StandIn:
    """Answers for keys and sessions. ``asked`` counts requests by path; ``down`` makes each answer 500."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.keys: list[dict[str, Any]] = [jwk(private_key())]
        self.revoked: set[str] = set()
        self.down = False
        self.failing = 0
        """How many of the next exchanges fail."""
        self.go_on = asyncio.Event()
        """Cleared, requests wait."""
        self.go_on.set()
        self.keys_reply: web.Response | None = None
        self.validate_reply: web.Response | None = None
        self.given: list[str] = []
        """Tokens that an exchange gives, one after the other; it refuses when there are none."""
        self.url = ""

    async def _enter(self, request: web.Request) -> None:
        self.asked[request.path] += 1
        await self.go_on.wait()
        if self.down:
            raise web.HTTPInternalServerError

    async def jwks(self, request: web.Request) -> web.StreamResponse:
        await self._enter(request)
        # An answer is a mapping, and an empty one counts as false.
        return web.json_response({"keys": self.keys}) if self.keys_reply is None else self.keys_reply

    async def validate(self, request: web.Request) -> web.StreamResponse:
        await self._enter(request)
        if self.validate_reply is not None:
            return self.validate_reply
        token = (await request.json())["token"]
        claims = jwt.decode(token, options={"verify_signature": False})
        if "jti" not in claims:
            return web.json_response({"valid": False, "error": "Token has no session ID"}, status=401)
        if claims["jti"] in self.revoked:
            return web.json_response({"valid": False, "error": "the session has ended"}, status=401)
        return web.json_response({"valid": True, "user": {"sub": claims["sub"]}})

    async def exchange(self, request: web.Request) -> web.StreamResponse:
        await self._enter(request)
        assert (await request.json())["access_token"] == "an-access-token"
        if self.failing:
            self.failing -= 1
            return web.json_response({"error": "Keycloak is not reachable"}, status=503)
        if not self.given:
            return web.json_response({"error": "the access token is not valid"}, status=401)
        return web.json_response({"token": self.given.pop(0)})

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        await self._enter(request)
        token = (await request.json())["token"]
        self.revoked.add(jwt.decode(token, options={"verify_signature": False})["jti"])
        return web.json_response({"message": "the session is closed"})


@asynccontextmanager
async def standing_in() -> AsyncIterator[StandIn]:
    """Helmd waits for it as long as a busy machine needs."""
    core, before = StandIn(), asyncio.all_tasks()
    application = web.Application()
    application.router.add_get("/.well-known/jwks.json", core.jwks)
    application.router.add_post("/api/token/validate", core.validate)
    application.router.add_post("/api/token/exchange", core.exchange)
    application.router.add_post("/api/token/revoke", core.revoke)
    server = TestServer(application)
    await server.start_server()
    core.url = str(server.make_url("")).rstrip("/")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asking, "REPLY_SECONDS", WITHIN)
            yield core
    finally:
        core.go_on.set()
        # Answers to those who have gone away are given too, or aiohttp leaves their tasks behind.
        if others := asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=1)
        await server.close()
