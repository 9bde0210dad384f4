"""Sessions of browsers: a random id in a cookie, everything else on the server, in memory and in files.

PostgreSQL, Keycloak and Core are not needed, so the owner's session also works while these are broken.
"""

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from typing import NoReturn

from aiohttp import web
from aiohttp_session import AbstractStorage, Session

from helmd.model.identity.sessions import (
    TOUCH_SECONDS,
    BrowserSession,
    SessionLimits,
    SessionState,
    ended_by,
    session_state,
)
from helmd.operations.identity.session_files import SessionFiles
from helmd.web.auth.same_origin import by_gateway, is_encrypted

SESSION_COOKIE = "helm_session"
COOKIE_PATH = "/helm/"
"""Modules behind the gateway share its host, and cookies are sent to every port of a host. The path keeps Helm's cookie
from modules behind the gateway; one sent to a module's own port is not accepted from there (`Logins.identity`)."""
MAX_SESSIONS = 10_000
"""Maximum number of sessions, beyond which the one idle longest ends."""
CLEAN_SECONDS = 600.0
RECORD = "browser"
"""The key of aiohttp-session's mapping below which the `BrowserSession` is."""

_ID = re.compile(r"[A-Za-z0-9_-]{43}\Z")

_log = logging.getLogger(__name__)


def cookie_of(request: web.Request, name: str) -> str | None:
    """Return the value of the cookie NAME, or None without one, with several of that name, and on a request
    `by_gateway`.

    Other programs on the same host can set a cookie of Helm's name for a longer path, which browsers send first
    (RFC 6265, section 5.4): then it is not known whose is which.
    """
    found = [] if by_gateway(request) else cookies_of(request, name)
    return found[0] if len(found) == 1 else None


def cookies_of(request: web.Request, name: str) -> list[str]:
    """Return the values of all cookies NAME. What other programs on the host have set, and can't be read, is left out:
    aiohttp would raise CookieError for the whole header.
    """
    found: list[str] = []
    for header in request.headers.getall("Cookie", ()):
        for part in header.split(";"):
            try:
                found += [morsel.value for key, morsel in SimpleCookie(part).items() if key == name]
            except CookieError:
                continue
    return found


class BrowserSessions(AbstractStorage):
    """The sessions, read from FILES. WALL is in seconds since the epoch."""

    def __init__(self, files: SessionFiles, limits: SessionLimits, wall: Callable[[], float] = time.time) -> None:
        super().__init__(cookie_name=SESSION_COOKIE, path=COOKIE_PATH, httponly=True, samesite="Lax")
        self._files = files
        self._kept = files.read()
        self._wall = wall
        self.limits = limits

    def digest(self, request: web.Request) -> str | None:
        """Return the digest of the session id in the cookie of REQUEST, or None."""
        given = cookie_of(request, SESSION_COOKIE)
        return _digest(given) if given is not None and _ID.match(given) else None

    def find(self, digest: str | None) -> BrowserSession | None:
        """Return the session, unless it has ended."""
        found = None if digest is None else self._kept.get(digest)
        return found if found is not None and self.state(found) != "ended" else None

    def state(self, session: BrowserSession) -> SessionState:
        return session_state(session, self.limits, self._wall())

    async def touch(self, digest: str, session: BrowserSession) -> BrowserSession:
        """Update the time of the last activity; a session that may only read stays so until the next login."""
        now = self._wall()
        if self.state(session) != "active" or now - session.seen < TOUCH_SECONDS:
            return session
        return await self.keep(digest, replace(session, seen=now))

    async def keep(self, digest: str, session: BrowserSession) -> BrowserSession:
        """Store a session. If the file can't be written, the session only lasts until the next restart."""
        self._kept[digest] = session
        try:
            await asyncio.to_thread(self._files.write, digest, session)
        except OSError as error:
            _log.error("a session of %s can't be stored: %s; it ends when helmd does", session.name, error)
        if digest not in self._kept:
            # It was ended meanwhile.
            await self.end(digest)
        return session

    async def end(self, digest: str) -> BrowserSession | None:
        """End a session and return it."""
        ended = self._kept.pop(digest, None)
        try:
            await asyncio.to_thread(self._files.remove, digest)
        except OSError as error:
            _log.error("the file of a session that has ended can't be removed: %s", error)
        return ended

    async def end_at(self, issuer: str, subject: str, sid: str) -> int:
        """End the sessions that a logout at ISSUER ends (`ended_by`); return their number."""
        wanted = [digest for digest, each in self._kept.items() if ended_by(each, issuer, subject, sid)]
        for digest in wanted:
            await self.end(digest)
        return len(wanted)

    async def run(self) -> NoReturn:
        """Run until cancelled; remove sessions that have ended, with their tokens."""
        while True:
            await self.clean()
            await asyncio.sleep(CLEAN_SECONDS)

    async def clean(self) -> None:
        """Remove sessions that have ended, and if there are too many, those idle longest."""
        over = [digest for digest, each in self._kept.items() if self.state(each) == "ended"]
        quietest = sorted(self._kept, key=lambda digest: self._kept[digest].seen)
        for digest in dict.fromkeys([*over, *quietest[: max(0, len(self._kept) - MAX_SESSIONS)]]):
            await self.end(digest)

    # aiohttp-session's side

    async def load_session(self, request: web.Request) -> Session:
        digest = self.digest(request)
        found = self.find(digest)
        if found is None:
            return Session(None, data=None, new=True)
        return Session(digest, data={"created": int(found.began), "session": {RECORD: found}}, new=False)

    async def save_session(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Store a new session under a new id, or end one that was invalidated."""
        record = session.get(RECORD)
        if isinstance(record, BrowserSession):
            await self.clean()
            # A session never gets the id of the one before (session fixation).
            await self._forget(request)
            given = secrets.token_urlsafe(32)
            await self.keep(_digest(given), record)
            self.cookie_params["secure"] = is_encrypted(request)
            self.save_cookie(response, given)
        else:
            await self._forget(request)
            self.save_cookie(response, "")

    async def _forget(self, request: web.Request) -> None:
        if (digest := self.digest(request)) is not None:
            await self.end(digest)


def _digest(given: str) -> str:
    return hashlib.sha256(given.encode()).hexdigest()
