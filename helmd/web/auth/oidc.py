"""Logging users in at Keycloak: authorization code flow (OpenID Connect Core 1.0, section 3.1) with PKCE (RFC 7636).

The browser is redirected to the URL of the realm; helmd itself connects to the address on which Keycloak listens.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from oauthlib.oauth2 import WebApplicationClient
from oauthlib.oauth2.rfc6749.errors import OAuth2Error

from helmd.model.errors import HelmError, KeycloakError
from helmd.model.identity.realm import HELM_CLIENT
from helmd.model.printable import printable
from helmd.web.auth.asking import LOGIN_SECONDS, RENEWAL_SECONDS, NoReplyError, ask_json
from helmd.web.auth.tokens import LEEWAY, MAX_TOKEN, keys_of

SCOPE = ("openid",)
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_SECONDS = 300.0
"""Maximum age of a logout token, in seconds."""
PROVIDER_SECONDS = 60.0
"""Maximum age of the cached discovery document, in seconds."""
KEYS_PAUSE_SECONDS = 5.0
"""Minimum number of seconds between two requests for the realm's keys, even if tokens name unknown ones."""

_ALGORITHM = "RS256"
_OVER_LOOPBACK = "https:"


class BrowserLoginError(HelmError):
    """Keycloak or Core did not accept a login, or the response belongs to another browser."""

    code: ClassVar[str] = "login_refused"


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """State, nonce and PKCE verifier of a browser's login in progress; stays in helmd."""

    state: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    target: str = ""
    """The path that the user requested."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The discovery document of a realm."""

    issuer: str
    authorization_url: str


@dataclass(frozen=True, slots=True)
class GrantedTokens:
    """The tokens for a code or a refresh token. ``claims`` are those of the verified ID token."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    claims: Mapping[str, Any]


class KeycloakRealm:
    """The realm at URL, which is where helmd reaches it. WALL is in seconds since the epoch; CLOCK never goes back."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self.url = url.rstrip("/")
        self._wall = wall
        self._clock = clock
        self._provider: tuple[float, Provider] | None = None
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._keys_asked: float | None = None
        self._keys_trouble: KeycloakError | None = None
        self._asking_keys = asyncio.Lock()

    async def login_url(self, pending: PendingLogin, redirect_uri: str, fresh: bool = False) -> str:
        """Return the authentication request's URL; with FRESH the user has to log in again (prompt=login).

        Raises KeycloakError.
        """
        provider = await self.provider()
        client = WebApplicationClient(HELM_CLIENT)
        scheme, _, rest = provider.authorization_url.partition(":")
        url = client.prepare_request_uri(
            # oauthlib insists on https; which scheme Keycloak has is the admin's choice (sslRequired of the realm).
            f"{_OVER_LOOPBACK}{rest}",
            redirect_uri=redirect_uri,
            scope=SCOPE,
            state=pending.state,
            nonce=pending.nonce,
            code_challenge=client.create_code_challenge(pending.verifier, "S256"),
            code_challenge_method="S256",
            **({"prompt": "login"} if fresh else {}),
        )
        return f"{scheme}:{url.removeprefix(_OVER_LOOPBACK)}"

    async def redeem(self, pending: PendingLogin, query: str, redirect_uri: str) -> GrantedTokens:
        """Return the tokens for the authorization code in QUERY, the authentication response.

        Raises BrowserLoginError for the response to another login, or an error response; and KeycloakError.
        """
        client = WebApplicationClient(HELM_CLIENT)
        try:
            client.parse_request_uri_response(f"{_OVER_LOOPBACK}//helm/?{query}", state=pending.state)
        except OAuth2Error as error:
            raise BrowserLoginError(_said(error), hint="Log in again.") from None
        body = client.prepare_request_body(redirect_uri=redirect_uri, code_verifier=pending.verifier)
        return await self._tokens(client, body, pending.nonce)

    async def refresh(self, token: str) -> GrantedTokens:
        """Return new tokens. Raises BrowserLoginError once the session at Keycloak has ended, and KeycloakError."""
        client = WebApplicationClient(HELM_CLIENT)
        body = client.prepare_refresh_body(refresh_token=token, client_id=HELM_CLIENT)
        return await self._tokens(client, body, None, RENEWAL_SECONDS)

    async def log_out(self, refresh_token: str) -> None:
        """End the session at Keycloak. Raises KeycloakError."""
        form = {"client_id": HELM_CLIENT, "refresh_token": refresh_token}
        await self._ask("POST", "logout", form, RENEWAL_SECONDS)

    async def provider(self) -> Provider:
        """Return the discovery document, from the cache while Keycloak is unavailable. Raises KeycloakError."""
        if self._provider is not None and self._clock() - self._provider[0] < PROVIDER_SECONDS:
            return self._provider[1]
        try:
            found = await self._discover()
        except KeycloakError:
            if self._provider is None:
                raise
            return self._provider[1]
        self._provider = self._clock(), found
        return found

    async def logged_out(self, token: str) -> tuple[str, str, str]:
        """Return issuer, subject and session id of a logout token; either of the latter may be empty.

        Raises BrowserLoginError for one that is not valid (OpenID Connect Back-Channel Logout 1.0, section 2.6), and
        KeycloakError.
        """
        claims = await self._claims(token)
        events = claims.get("events")
        if not isinstance(events, dict) or LOGOUT_EVENT not in events or "nonce" in claims:
            raise BrowserLoginError("it is not a logout token")
        if not isinstance(claims["iat"], int | float) or self._wall() - claims["iat"] > LOGOUT_TOKEN_SECONDS:
            raise BrowserLoginError("the logout token is too old")
        subject, sid = _text(claims, "sub"), _text(claims, "sid")
        if not subject and not sid:
            raise BrowserLoginError("the logout token names neither a user nor a session")
        return claims["iss"], subject, sid

    async def _discover(self) -> Provider:
        status, body = await self._get(f"{self.url}/.well-known/openid-configuration")
        issuer = body.get("issuer") if isinstance(body, dict) else None
        login = body.get("authorization_endpoint") if isinstance(body, dict) else None
        if status != HTTPStatus.OK or not isinstance(issuer, str) or not isinstance(login, str):
            raise _unusable(f"status {status} for the realm's discovery document")
        if not login.startswith(("http://", "https://")):
            raise _unusable("the realm's discovery document names no URL for logins")
        return Provider(issuer, login)

    async def _tokens(
        self, client: WebApplicationClient, body: str, nonce: str | None, seconds: float = LOGIN_SECONDS
    ) -> GrantedTokens:
        status, answer = await self._ask("POST", "token", body, seconds)
        overloaded = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
        if overloaded or not isinstance(answer, dict):
            raise _unusable(f"status {status} for tokens")
        try:
            given = client.parse_request_body_response(json.dumps(answer))
        except OAuth2Error as error:
            raise BrowserLoginError(_said(error), hint="Log in again.") from None
        except (TypeError, ValueError, AttributeError):
            raise _unusable(f"status {status} for tokens") from None
        found = [given.get(name) for name in ("access_token", "refresh_token", "id_token")]
        if not all(isinstance(each, str) and 0 < len(each) <= MAX_TOKEN for each in found):
            raise _unusable("a token is missing in its answer")
        access, refresh, id_token = map(str, found)
        claims = await self._claims(id_token)
        if nonce is not None and not secrets.compare_digest(_text(claims, "nonce").encode(), nonce.encode()):
            raise BrowserLoginError("the answer belongs to another login (nonce)", hint="Log in again.")
        return GrantedTokens(access, refresh, claims)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token that Keycloak signed for Helm (OpenID Connect Core 1.0, section 3.1.3.7)."""
        if len(token) > MAX_TOKEN:
            raise BrowserLoginError("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != _ALGORITHM:
                raise BrowserLoginError(f"Keycloak's token is not signed with {_ALGORITHM}")
            key = await self._key(str(header.get("kid")))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=HELM_CLIENT,
                issuer=(await self.provider()).issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud"], "verify_sub": False, "verify_jti": False},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise BrowserLoginError(f"Keycloak's token is not valid: {printable(str(error), 100)}") from None
        if claims.get("azp", HELM_CLIENT) != HELM_CLIENT:
            raise BrowserLoginError("Keycloak's token is for another client (azp)")
        return claims

    async def _key(self, kid: str) -> RSAPublicKey:
        """Return the key of that id.

        Raises BrowserLoginError, by which a session ends, if the realm has none; KeycloakError if that is not known.
        """
        # Others that need it wait for the same answer.
        async with self._asking_keys:
            rested = self._keys_asked is None or self._clock() - self._keys_asked >= KEYS_PAUSE_SECONDS
            if kid not in self._keys and rested:
                self._keys_asked = self._clock()
                try:
                    self._keys, self._keys_trouble = await self._read_keys(), None
                except KeycloakError as error:
                    self._keys_trouble = error
        if kid in self._keys:
            return self._keys[kid]
        if self._keys_trouble is not None:
            raise KeycloakError(self._keys_trouble.sentence, hint=self._keys_trouble.hint)
        raise BrowserLoginError("the token is signed with an unknown key")

    async def _read_keys(self) -> Mapping[str, RSAPublicKey]:
        status, body = await self._get(f"{self.url}/protocol/openid-connect/certs")
        keys = keys_of(body)
        if status != HTTPStatus.OK or not keys:
            raise _unusable(f"status {status} for the realm's keys")
        return keys

    async def _get(self, url: str) -> tuple[int, Any]:
        try:
            return await ask_json(self._session, "GET", url)
        except NoReplyError as error:
            raise _unusable(str(error)) from None

    async def _ask(self, method: str, what: str, form: str | Mapping[str, str], seconds: float) -> tuple[int, Any]:
        """Send a form (an encoded one as text) to an endpoint of the realm; return status and JSON of the response."""
        url = f"{self.url}/protocol/openid-connect/{what}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            return await ask_json(self._session, method, url, seconds=seconds, data=form, headers=headers)
        except NoReplyError as error:
            raise _unusable(str(error)) from None


def _unusable(why: str) -> KeycloakError:
    return KeycloakError(f"Keycloak can't be asked: {why}", hint="See: helmctl status keycloak")


def _said(error: OAuth2Error) -> str:
    """Return the message of an OAuth error response (RFC 6749, sections 4.1.2.1 and 5.2), as a sentence."""
    known = {
        "mismatching_state": "the answer belongs to another login (state)",
        "access_denied": "Keycloak refused the login",
        "invalid_grant": "the session at Keycloak has ended",
    }
    return known.get(
        error.error, f"Keycloak refused the login: {printable(str(error.description or error.error), 200)}"
    )


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""
