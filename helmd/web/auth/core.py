"""Requests to Core: its keys, tokens for users, and validity of sessions. Responses are not trusted."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import aiohttp
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from helmd.model.errors import HelmError
from helmd.web.auth.asking import LOGIN_SECONDS, NoReplyError, ask_json
from helmd.web.auth.tokens import keys_of

KEYS_PATH = "/.well-known/jwks.json"
VALIDATE_PATH = "/api/token/validate"
EXCHANGE_PATH = "/api/token/exchange"
REVOKE_PATH = "/api/token/revoke"

_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class CoreUnreachableError(HelmError):
    """Core does not answer, or its reply is invalid, so a token cannot be checked."""

    code: ClassVar[str] = "core_unreachable"


def core_session(connector: aiohttp.BaseConnector | None = None) -> aiohttp.ClientSession:
    """Return the HTTP session for requests to Core and Keycloak, over connections of CONNECTOR; the caller closes it.

    Without cookies and decompression, so replies stay small.
    """
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "helmd"},
    )


class Core:
    """Core at URL."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url.rstrip("/")

    async def keys(self) -> Mapping[str, RSAPublicKey]:
        """Return its keys by id; there is at least one. Raises CoreUnreachableError."""
        status, body = await self._ask("GET", KEYS_PATH, None)
        if status != HTTPStatus.OK:
            raise self._unreachable(f"status {status} for {KEYS_PATH}")
        keys = keys_of(body)
        if not keys:
            raise self._unreachable("its key set contains no usable key")
        return keys

    async def lasts(self, token: str) -> bool:
        """Return whether the session of a user's TOKEN is still valid. Raises CoreUnreachableError."""
        status, body = await self._ask("POST", VALIDATE_PATH, {"token": token})
        if status in _REFUSED:
            return False
        valid = body.get("valid") if status == HTTPStatus.OK and isinstance(body, dict) else None
        if not isinstance(valid, bool):
            raise self._unreachable(f"status {status} for {VALIDATE_PATH}")
        return valid

    async def exchange(self, access_token: str, seconds: float = LOGIN_SECONDS) -> str | None:
        """Return a token of Core for the user of an ACCESS_TOKEN of Keycloak, or None if Core does not accept that.

        The timeout is SECONDS. Raises CoreUnreachableError.
        """
        status, body = await self._ask("POST", EXCHANGE_PATH, {"access_token": access_token}, seconds)
        if status in _REFUSED:
            return None
        token = body.get("token") if status == HTTPStatus.OK and isinstance(body, dict) else None
        if not isinstance(token, str):
            raise self._unreachable(f"status {status} for {EXCHANGE_PATH}")
        return token

    async def revoke(self, token: str) -> None:
        """End the session of a user's TOKEN. Raises CoreUnreachableError."""
        await self._ask("POST", REVOKE_PATH, {"token": token})

    async def _ask(self, method: str, path: str, body: object, seconds: float | None = None) -> tuple[int, Any]:
        try:
            return await ask_json(self._session, method, self.url + path, seconds=seconds, json=body)
        except NoReplyError as error:
            raise self._unreachable(str(error)) from None

    def _unreachable(self, why: str) -> CoreUnreachableError:
        return CoreUnreachableError(f"request to Core at {self.url} failed: {why}", hint="See: helmctl status core")
