"""Requests to Core: its keys, and whether a session is still valid. Replies are not trusted."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import aiohttp
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from helmd.model.errors import HelmError
from helmd.model.printable import printable
from helmd.web.auth.tokens import keys_of

KEYS_PATH = "/.well-known/jwks.json"
VALIDATE_PATH = "/api/token/validate"

_TIMEOUT = aiohttp.ClientTimeout(total=3.0)
_MAX_REPLY = 64 << 10
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class CoreUnreachableError(HelmError):
    """Core does not answer, or its reply is invalid, so a token cannot be checked."""

    code: ClassVar[str] = "core_unreachable"


def core_session() -> aiohttp.ClientSession:
    """The HTTP session for `Core`; the caller closes it. Without cookies and decompression, so replies stay small."""
    return aiohttp.ClientSession(
        timeout=_TIMEOUT,
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
        """Its keys by id; there is at least one. Raises CoreUnreachableError."""
        status, body = await self._ask("GET", KEYS_PATH, None)
        if status != HTTPStatus.OK:
            raise self._unreachable(f"status {status} for {KEYS_PATH}")
        keys = keys_of(body)
        if not keys:
            raise self._unreachable("its key set contains no usable key")
        return keys

    async def lasts(self, token: str) -> bool:
        """Whether the session of a user's TOKEN is still valid. Raises CoreUnreachableError."""
        status, body = await self._ask("POST", VALIDATE_PATH, {"token": token})
        if status in _REFUSED:
            return False
        valid = body.get("valid") if status == HTTPStatus.OK and isinstance(body, dict) else None
        if not isinstance(valid, bool):
            raise self._unreachable(f"status {status} for {VALIDATE_PATH}")
        return valid

    async def _ask(self, method: str, path: str, body: object) -> tuple[int, Any]:
        """The status and the JSON of a reply; None if it is not JSON."""
        try:
            async with self._session.request(method, self.url + path, json=body, allow_redirects=False) as reply:
                text = await _limited(reply)
        except TimeoutError:
            raise self._unreachable(f"no answer within {_TIMEOUT.total:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise self._unreachable(printable(str(problem) or type(problem).__name__, 200)) from None
        if text is None:
            raise self._unreachable(f"reply larger than {_MAX_REPLY >> 10} KiB")
        try:
            return reply.status, json.loads(text)
        except (ValueError, RecursionError):
            return reply.status, None

    def _unreachable(self, why: str) -> CoreUnreachableError:
        return CoreUnreachableError(f"request to Core at {self.url} failed: {why}", hint="See: helmctl status core")


async def _limited(reply: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None if it is too large."""
    text = bytearray()
    async for part in reply.content.iter_any():
        text += part
        if len(text) > _MAX_REPLY:
            return None
    return bytes(text)
