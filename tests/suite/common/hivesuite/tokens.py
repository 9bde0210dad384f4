"""Verifying tokens of Core with its JWKS."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import jwt

ISSUER = "hivematrix-core"
_REFETCH_SECONDS = 5.0


class InvalidTokenError(Exception):
    """The token is not accepted; the text gives the reason."""


class CoreUnreachableError(Exception):
    """Core's keys could not be fetched, so the token can't be verified."""


class TokenVerifier:
    """Verifies RS256 tokens of Core.

    The keys are kept and fetched again for an unknown `kid` or a signature that does not fit (Core's key may have been
    replaced under the same `kid`), at most every five seconds.
    """

    def __init__(self, session: aiohttp.ClientSession, core_url: str) -> None:
        self._session = session
        self._jwks_url = core_url.rstrip("/") + "/.well-known/jwks.json"
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")

    async def verify(self, token: str, target: str | None = None) -> Mapping[str, Any]:
        """Return the claims of `token`. A service token must be for the service `target`, unless that is None."""
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
            if kid not in self._keys:
                await self._fetch()
            try:
                claims = self._decode(token, kid)
            except jwt.InvalidSignatureError:
                if not await self._fetch():
                    raise
                claims = self._decode(token, kid)
        except jwt.InvalidTokenError as error:
            raise InvalidTokenError(f"Invalid token: {error}") from error
        if target is not None and claims.get("type") == "service" and claims.get("target_service") != target:
            raise InvalidTokenError(f"Token is not meant for {target}")
        return claims

    def _decode(self, token: str, kid: str) -> dict[str, Any]:
        if kid not in self._keys:
            raise jwt.InvalidTokenError("unknown signing key")
        required = {"require": ["exp", "sub"]}
        claims: dict[str, Any] = jwt.decode(
            token, self._keys[kid].key, algorithms=["RS256"], issuer=ISSUER, options=required
        )
        return claims

    async def _fetch(self) -> bool:
        """Fetch the keys unless that was done recently; return whether it was done."""
        if time.monotonic() - self._fetched < _REFETCH_SECONDS:
            return False
        try:
            async with self._session.get(self._jwks_url, timeout=aiohttp.ClientTimeout(total=3)) as reply:
                reply.raise_for_status()
                keys = jwt.PyJWKSet.from_dict(await reply.json())
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            raise CoreUnreachableError(f"cannot fetch Core's keys: {error}") from error
        self._keys = {str(key.key_id): key for key in keys.keys}
        self._fetched = time.monotonic()
        return True
