"""Core, asked for its keys and whether a session still lasts. Whatever answers there is not trusted to be Core."""

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
    """Core doesn't answer, or not as Core does, and without it nobody can tell whether a token is good."""

    code: ClassVar[str] = "core_unreachable"


def core_session() -> aiohttp.ClientSession:
    """What `Core` is reached through; the caller closes it. No cookies; nothing is unpacked, so replies stay small."""
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
            raise self._unreachable(f"it answers {status} for its keys")
        keys = keys_of(body)
        if not keys:
            raise self._unreachable("its key set holds no key that can be used")
        return keys

    async def lasts(self, token: str) -> bool:
        """Whether the session of a user's TOKEN still lasts. Raises CoreUnreachableError when it does not say so."""
        status, body = await self._ask("POST", VALIDATE_PATH, {"token": token})
        if status in _REFUSED:
            return False
        valid = body.get("valid") if status == HTTPStatus.OK and isinstance(body, dict) else None
        if not isinstance(valid, bool):
            raise self._unreachable(f"it answers {status} when asked about a token")
        return valid

    async def _ask(self, method: str, path: str, body: object) -> tuple[int, Any]:
        """The status and the JSON of a reply; None for what is no JSON."""
        try:
            async with self._session.request(method, self.url + path, json=body, allow_redirects=False) as reply:
                text = await _limited(reply)
        except TimeoutError:
            raise self._unreachable(f"no answer within {_TIMEOUT.total:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise self._unreachable(printable(str(problem) or type(problem).__name__, 200)) from None
        if text is None:
            raise self._unreachable(f"its reply is larger than {_MAX_REPLY >> 10} KiB")
        try:
            return reply.status, json.loads(text)
        except (ValueError, RecursionError):
            return reply.status, None

    def _unreachable(self, why: str) -> CoreUnreachableError:
        return CoreUnreachableError(f"Core at {self.url} can't be asked: {why}", hint="See: helmctl status core")


async def _limited(reply: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None when it is too large to be one of Core's."""
    text = bytearray()
    async for part in reply.content.iter_any():
        text += part
        if len(text) > _MAX_REPLY:
            return None
    return bytes(text)
