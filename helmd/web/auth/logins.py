"""Helm's own login: from Keycloak's authorization code to a session, its renewal, and its end.

Also the one-time links by which the machine's owner logs in without Keycloak and Core (`helmctl dashboard`).
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import aiohttp
from aiohttp import web

from helmd.model.errors import DeniedError, HelmError, KeycloakError
from helmd.model.identity.sessions import BrowserSession
from helmd.web.auth.asking import RENEWAL_SECONDS
from helmd.web.auth.core import Core, CoreUnreachableError
from helmd.web.auth.identity import from_loopback
from helmd.web.auth.oidc import BrowserLoginError, GrantedTokens, KeycloakRealm, PendingLogin
from helmd.web.auth.roles import Identity, Role
from helmd.web.auth.same_origin import SAFE_METHODS, foreign, is_encrypted
from helmd.web.auth.sessions import BrowserSessions
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.tokens import BadTokenError, times_of
from helmd.web.auth.verifier import RETRY_SECONDS, Verifier

CHECK_SECONDS = 40.0
"""Seconds after which Keycloak is asked again whether the session exists. With the 15 s between checks of a stream, a
session that was ended at Keycloak ends here within a minute, also if Keycloak could not notify helmd."""
LINK_SECONDS = 60.0
"""Validity of a one-time link, in seconds."""
MAX_LINKS = 20
PENDING_SECONDS = 600.0
"""Time limit of a login at Keycloak, in seconds."""
MAX_PENDING = 10_000

_EXCHANGE_PAUSES = (0.5, 1.5)
"""Delays in seconds before repeating a request for a token to Core, which asks Keycloak with a shorter timeout."""
_SHOWN = 12
"""Digits of a session's digest that identify it in the audit trail."""

_log = logging.getLogger(__name__)


class Expiring:
    """Values with single-use secrets, valid for SECONDS; at most LIMIT, beyond which the oldest are dropped."""

    def __init__(self, seconds: float, limit: int, clock: Callable[[], float]) -> None:
        self._seconds, self._limit, self._clock = seconds, limit, clock
        self._kept: OrderedDict[bytes, tuple[float, object]] = OrderedDict()

    def add(self, value: object) -> str:
        """Return the secret by which VALUE can be taken. Only a digest of it is kept."""
        secret = secrets.token_urlsafe(32)
        self._kept[_digest(secret)] = self._clock(), value
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return secret

    def take(self, secret: str) -> object | None:
        """Return the value, once, or None for a secret that is unknown, used or too old."""
        added, value = self._kept.pop(_digest(secret), (0.0, None))
        return value if value is not None and self._clock() - added < self._seconds else None


class Logins:
    """Logs browsers in and authenticates them; before `adopt` only the machine's owner.

    WALL is in seconds since the epoch; CLOCK never goes back.
    """

    def __init__(
        self,
        sessions: BrowserSessions,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions = sessions
        self._single_flight: SingleFlight | None = None
        self._wall = wall
        self._clock = clock
        self._links = Expiring(LINK_SECONDS, MAX_LINKS, clock)
        self._pending = Expiring(PENDING_SECONDS, MAX_PENDING, clock)
        self._retry: dict[str, float] = {}
        self.realm: KeycloakRealm | None = None
        self._core: Core | None = None
        self._verifier: Verifier | None = None

    def adopt(
        self,
        session: aiohttp.ClientSession,
        single_flight: SingleFlight,
        realm: str | None,
        core: Core,
        verifier: Verifier,
    ) -> None:
        """Use the realm at the URL REALM (None: there is none) and CORE from now on; SESSION is for requests."""
        if realm is None:
            self.realm = None
        elif self.realm is None or self.realm.url != realm:
            self.realm = KeycloakRealm(session, realm, self._wall, self._clock)
        self._single_flight, self._core, self._verifier = single_flight, core, verifier

    # logging in

    def begin(self, target: str) -> tuple[str, PendingLogin]:
        """Return a new login that leads to TARGET: the value of the cookie that ties it to the browser, and the
        login.
        """
        pending = PendingLogin(target=target)
        return self._pending.add(pending), pending

    async def login_url(self, pending: PendingLogin, redirect_uri: str, fresh: bool) -> str:
        """Return the URL to redirect the browser to. Raises KeycloakError."""
        return await self._realm().login_url(pending, redirect_uri, fresh)

    async def finish(self, cookie: str | None, query: str, redirect_uri: str) -> tuple[BrowserSession, str]:
        """Return the session for Keycloak's authentication response in QUERY, and the path that the user requested.

        Raises BrowserLoginError, KeycloakError, CoreUnreachableError.
        """
        pending = None if cookie is None else self._pending.take(cookie)
        if not isinstance(pending, PendingLogin):
            raise BrowserLoginError(
                "this login was begun in another browser, took too long, or is over", hint="Log in again."
            )
        try:
            tokens = await self._realm().redeem(pending, query, redirect_uri)
            token, identity = await self._exchange(tokens)
        except HelmError as error:
            _log.warning("a login has failed: %s", error.sentence)
            raise
        now = self._wall()
        issuer = str(tokens.claims["iss"])
        made = BrowserSession(identity.name, now, now, _login_time(tokens), token, issuer=issuer, checked=now)
        return _with_tokens(made, tokens), pending.target

    async def _exchange(self, tokens: GrantedTokens) -> tuple[str, Identity]:
        """Return Core's token for the user of TOKENS, and whose it is."""
        core, verifier = self._parts()
        for pause in _EXCHANGE_PAUSES:
            with suppress(CoreUnreachableError):
                token = await core.exchange(tokens.access)
                break
            await asyncio.sleep(pause)
        else:
            token = await core.exchange(tokens.access)
        if token is None:
            raise BrowserLoginError("Core did not accept the login", hint="See: helmctl logs -n 20 core")
        try:
            return token, await verifier.identity(token, fresh=True)
        except BadTokenError as error:
            raise BrowserLoginError(f"Core gave a token that is not valid: {error.sentence}") from None

    def link(self, name: str) -> str:
        """Return the secret of a new one-time link for NAME, the machine's owner."""
        return self._links.add(name)

    def open_link(self, secret: str) -> BrowserSession:
        """Return the owner's session. Raises BrowserLoginError for a link that is used or too old."""
        name = self._links.take(secret)
        if not isinstance(name, str):
            raise BrowserLoginError(
                f"this link was used already, or is older than {LINK_SECONDS:g} s",
                hint="Make another: helmctl dashboard",
            )
        now = self._wall()
        return BrowserSession(name, began=now, seen=now, login=now)

    # who has logged in

    async def identity(self, request: web.Request) -> Identity | None:
        """Return who has logged in with the browser that sent REQUEST, or None without a session.

        Raises DeniedError for a cross-origin request, and for a change by a session that may only read;
        BadTokenError for a session that has ended; KeycloakError and CoreUnreachableError where it can't be renewed.
        """
        digest = self.sessions.digest(request)
        session = self.sessions.find(digest)
        if digest is None or session is None or not _has_same_transport(session, request):
            return None
        if refusal := foreign(request.method, request.headers, by_cookie=True):
            raise DeniedError(refusal)
        if request.method not in SAFE_METHODS and self.sessions.state(session) != "active":
            raise DeniedError(
                "after a pause this session may only read", hint="Log in again to change something: /helm/login"
            )
        if request.method not in SAFE_METHODS or request.headers.get("Sec-Fetch-Mode") == "navigate":
            session = await self.sessions.touch(digest, session)
        if session.owner:
            return Identity(session.name, Role.ADMIN, "session", login_at=session.login, session=digest[:_SHOWN])
        if self._single_flight is not None and self._is_due(digest, session):
            # At most one renewal of a session at a time; the others wait for its result.
            await self._single_flight.join(("renew", digest), lambda: self._renew(digest))
            session = self.sessions.find(digest)
            if session is None:
                raise BadTokenError("the session has ended", hint="Log in again.")
        try:
            found = await self._parts()[1].identity(session.token)
        except BadTokenError:
            if digest in self._retry:
                raise CoreUnreachableError(
                    "the session can't be renewed: Keycloak or Core does not answer",
                    hint="On the machine, helmctl dashboard opens the dashboard without them.",
                ) from None
            await self.sessions.end(digest)
            raise
        return replace(found, via="session", login_at=session.login, session=digest[:_SHOWN])

    async def log_out(self, digest: str) -> None:
        """End a session here, at Keycloak and at Core. Failures there are logged only."""
        session = await self.sessions.end(digest)
        self._retry.pop(digest, None)
        if session is None or session.owner:
            return
        for ending in (self._end_at_keycloak(session), self._end_at_core(session)):
            try:
                await ending
            except HelmError as error:
                _log.warning("%s has logged out here, but not there: %s", session.name, error.sentence)

    async def end_by(self, logout_token: str) -> None:
        """End the sessions named by a logout token. Raises BrowserLoginError, KeycloakError."""
        ended = await self.sessions.end_at(*await self._realm().logged_out(logout_token))
        _log.info("Keycloak ended a session; %d of Helm's ended with it", ended)

    def _is_due(self, digest: str, session: BrowserSession) -> bool:
        return self._wall() - session.checked >= CHECK_SECONDS and self._clock() >= self._retry.get(digest, 0.0)

    async def _renew(self, digest: str) -> None:
        """Ask Keycloak whether the session is still there, and renew tokens that end soon. Errors are handled here."""
        session = self.sessions.find(digest)
        if session is None or session.owner:
            return
        try:
            tokens = await self._realm().refresh(session.refresh)
            renewed = replace(_with_tokens(session, tokens), checked=self._wall())
            if renewed.groups != session.groups or self._ends_soon(session):
                token = await self._parts()[0].exchange(tokens.access, RENEWAL_SECONDS)
                if token is None:
                    raise BrowserLoginError("Core did not accept the renewal")
                renewed = replace(renewed, token=token)
        except (BrowserLoginError, BadTokenError) as error:
            _log.info("a session of %s has ended: %s", session.name, error.sentence)
            self._retry.pop(digest, None)
            await self.sessions.end(digest)
        except (KeycloakError, CoreUnreachableError) as error:
            _log.warning("a session of %s could not be checked: %s", session.name, error.sentence)
            self._retry[digest] = self._clock() + RETRY_SECONDS
        else:
            self._retry.pop(digest, None)
            # Meanwhile the user may have done something, or logged out.
            if (current := self.sessions.find(digest)) is not None:
                await self.sessions.keep(digest, replace(renewed, seen=current.seen))

    def _ends_soon(self, session: BrowserSession) -> bool:
        issued, expires = times_of(session.token)
        return expires - self._wall() < (expires - issued) / 2 + CHECK_SECONDS

    async def _end_at_keycloak(self, session: BrowserSession) -> None:
        await self._realm().log_out(session.refresh)

    async def _end_at_core(self, session: BrowserSession) -> None:
        await self._parts()[0].revoke(session.token)

    def _realm(self) -> KeycloakRealm:
        if self.realm is None:
            raise KeycloakError("the suite has no Keycloak to log in at", hint="On the machine, run: helmctl dashboard")
        return self.realm

    def _parts(self) -> tuple[Core, Verifier]:
        if self._core is None or self._verifier is None:
            raise CoreUnreachableError("helmd is starting", hint="Try again.")
        return self._core, self._verifier


def _has_same_transport(session: BrowserSession, request: web.Request) -> bool:
    """Return whether REQUEST has the transport of the login of SESSION: TLS, or from this machine.

    Browsers send a cookie to every port of its host, so a service that listens on one may get it (RFC 6265, section
    8.5). A session begun over TLS has a Secure cookie, and no service has a certificate for the host; the other cookie
    is only accepted from this machine.
    """
    return is_encrypted(request) if session.tls else not is_encrypted(request) and from_loopback(request)


def _with_tokens(session: BrowserSession, tokens: GrantedTokens) -> BrowserSession:
    claims = tokens.claims
    groups = claims.get("groups")
    subject, sid = claims.get("sub"), claims.get("sid")
    return replace(
        session,
        refresh=tokens.refresh,
        subject=subject if isinstance(subject, str) else "",
        sid=sid if isinstance(sid, str) else "",
        groups=tuple(sorted(map(str, groups))) if isinstance(groups, list) else (),
    )


def _login_time(tokens: GrantedTokens) -> float | None:
    """Return when the user gave a password (OpenID Connect Core 1.0, section 2, auth_time), which may be long ago."""
    given = tokens.claims.get("auth_time")
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
