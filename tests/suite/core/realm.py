"""Looking up the user of an access token at the realm's userinfo endpoint (OpenID Connect Core, section 5.3)."""

from __future__ import annotations

import re

import aiohttp
from signing import User

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
_TIMEOUT = aiohttp.ClientTimeout(total=5)


class InvalidAccessTokenError(Exception):
    """Keycloak does not accept the access token."""


class RealmUnreachableError(Exception):
    """Keycloak is unavailable or returned an invalid response."""


class Realm:
    """A realm of a Keycloak server."""

    def __init__(self, session: aiohttp.ClientSession, server_url: str, realm: str) -> None:
        self._session = session
        self._userinfo_url = f"{server_url.rstrip('/')}/realms/{realm}/protocol/openid-connect/userinfo"

    async def userinfo(self, access_token: object) -> User:
        """Return the token's user. Keycloak checks signature, expiry and session."""
        if not isinstance(access_token, str) or not _TOKEN.fullmatch(access_token):
            raise InvalidAccessTokenError
        headers = {"Authorization": f"Bearer {access_token}"}
        try:
            # The gateway's certificate is its own; the real Core does not verify it either.
            async with self._session.get(self._userinfo_url, headers=headers, timeout=_TIMEOUT, ssl=False) as reply:
                if reply.status in (400, 401, 403):
                    raise InvalidAccessTokenError
                reply.raise_for_status()
                claims = await reply.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise RealmUnreachableError(f"Keycloak gave no answer at {self._userinfo_url}: {error}") from error
        if not isinstance(claims, dict) or not isinstance(claims.get("sub"), str):
            raise RealmUnreachableError(f"the answer of {self._userinfo_url} has no subject")
        return _user(claims)


def _user(claims: dict[str, object]) -> User:
    username = str(claims.get("preferred_username") or claims["sub"])
    groups = claims.get("groups")
    return User(
        sub=str(claims["sub"]),
        name=str(claims.get("name") or username),
        email=str(claims.get("email") or ""),
        preferred_username=username,
        groups=tuple(str(group).removeprefix("/") for group in groups) if isinstance(groups, list) else (),
    )
