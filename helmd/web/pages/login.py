"""Logging in and out with a browser: at Keycloak, or by a one-time link of the machine's owner."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

from aiohttp import web
from aiohttp_session import get_session, new_session

from helmd.model.api.login import LinkSecret, LoginLink, OpenedLink
from helmd.model.errors import DeniedError, UsageError
from helmd.model.identity.sessions import BrowserSession
from helmd.model.urls import is_host_of
from helmd.web.auth.identity import is_loopback
from helmd.web.auth.logins import LINK_SECONDS, PENDING_SECONDS, Logins
from helmd.web.auth.oidc import BrowserLoginError
from helmd.web.auth.roles import Identity, Role
from helmd.web.auth.same_origin import by_gateway, foreign, is_encrypted
from helmd.web.auth.sessions import RECORD, cookie_of
from helmd.web.http.body import receive_body
from helmd.web.http.problems import json_response
from helmd.web.http.validation import read_request
from helmd.web.pages.policy import HOME, own_path
from helmd.web.pages.rendering import NoContext, Renderer

LOGIN_COOKIE = "helm_login"
LOGIN_PATH = f"{HOME}login"
CALLBACK = f"{HOME}login/callback"
LINK_PATH = f"{HOME}login/once"
LOGGED_OUT = f"{HOME}logout"
_MAX_BODY = 32 << 10
_MOST_FIELDS = 20


class LoginPages:
    """The handlers. URL gives the address at which browsers reach helmd (``http.url``)."""

    def __init__(self, logins: Logins, renderer: Renderer, url: Callable[[], str]) -> None:
        self._logins = logins
        self._renderer = renderer
        self._url = url

    async def login(self, request: web.Request) -> web.StreamResponse:
        """GET /login"""
        _check_direct(request)
        target = own_path(request.query.get("next", HOME))
        base = self._url().rstrip("/")
        if not is_host_of(request.host, base) or not request.path.startswith(HOME):
            # Cookies belong to a host's name, and Keycloak sends the browser back to the one that it knows.
            fresh = "&fresh=1" if "fresh" in request.query else ""
            return _see(f"{base}{LOGIN_PATH}?next={quote(target, safe='/')}{fresh}")
        cookie, pending = self._logins.begin(target)
        response = _see(await self._logins.login_url(pending, base + CALLBACK, "fresh" in request.query))
        response.set_cookie(
            _cookie_of_login(pending.state),
            cookie,
            max_age=int(PENDING_SECONDS),
            path=CALLBACK,
            httponly=True,
            secure=is_encrypted(request),
            samesite="Lax",
        )
        return response

    async def callback(self, request: web.Request) -> web.StreamResponse:
        """GET /login/callback"""
        _check_direct(request)
        query = urlsplit(request.raw_path).query
        redirect_uri = self._url().rstrip("/") + CALLBACK
        name = _cookie_of_login(_state_in(query))
        session, target = await self._logins.finish(cookie_of(request, name), query, redirect_uri)
        await _begin(request, session)
        response = _see(target)
        response.del_cookie(name, path=CALLBACK)
        return response

    async def once(self, request: web.Request) -> web.StreamResponse:
        """GET /login/once: the page behind a one-time link. The secret is in the URL's fragment, so it is in no log."""
        _check_direct(request)
        return self._renderer.show(request, "once.html", NoContext())

    async def open_link(self, request: web.Request) -> web.StreamResponse:
        """POST /login/once"""
        _check_direct(request)
        _check_own(request)
        given = await read_request(request, LinkSecret)
        session = self._logins.open_link(given.secret)
        _note_caller(request, session)
        await _begin(request, session)
        return json_response(OpenedLink(HOME))

    async def make_link(self, request: web.Request) -> web.Response:
        """POST /api/login-links: over the unix socket alone."""
        identity: Identity = request["identity"]
        if identity.via != "socket":
            raise DeniedError("one-time links are made on the machine", hint="Run there: helmctl dashboard")
        url = f"{self._url().rstrip('/')}{LINK_PATH}#{self._logins.link(identity.name)}"
        return json_response(LoginLink(url, int(LINK_SECONDS)), HTTPStatus.CREATED)

    async def logged_out(self, request: web.Request) -> web.StreamResponse:
        """GET /logout: what is shown afterwards. It ends nothing: a link must not."""
        return self._renderer.show(request, "logout.html", NoContext())

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        """POST /logout"""
        _check_direct(request)
        _check_own(request)
        digest = self._logins.sessions.digest(request)
        if (ended := self._logins.sessions.find(digest)) is not None:
            _note_caller(request, ended)
        session = await get_session(request)
        session.invalidate()
        if digest is not None:
            await self._logins.log_out(digest)
        return _see(LOGGED_OUT)

    async def end(self, request: web.Request) -> web.StreamResponse:
        """POST /login/backchannel-logout (OpenID Connect Back-Channel Logout 1.0, section 2.5)"""
        body = (await receive_body(request, _MAX_BODY)).decode("ascii", "replace")
        try:
            tokens = parse_qs(body, max_num_fields=10).get("logout_token", [])
        except ValueError:
            tokens = []
        if len(tokens) != 1:
            raise UsageError("the form must have one logout_token")
        try:
            await self._logins.end_by(tokens[0])
        except BrowserLoginError as error:
            raise UsageError(error.sentence) from None
        return web.Response(status=HTTPStatus.OK)

    async def to_home(self, request: web.Request) -> web.StreamResponse:
        """GET /helm"""
        return _see(HOME)


def _cookie_of_login(state: str) -> str:
    """Return the name of the cookie of the login with STATE. Each has its own: tabs of a browser log in at the same
    time.
    """
    return f"{LOGIN_COOKIE}_{hashlib.sha256(state.encode(errors='replace')).hexdigest()[:8]}"


def _state_in(query: str) -> str:
    """Return the state in Keycloak's answer QUERY, of which nothing is known: it only selects a cookie."""
    try:
        return dict(parse_qsl(query, max_num_fields=_MOST_FIELDS)).get("state", "")
    except ValueError:
        return ""


async def _begin(request: web.Request, session: BrowserSession) -> None:
    made = await new_session(request)
    made[RECORD] = replace(session, tls=is_encrypted(request))


def _note_caller(request: web.Request, session: BrowserSession) -> None:
    """Have the audit trail name the user, whom these routes let in without a credential."""
    request["caller"] = Identity(session.name, Role.PUBLIC, "session")


def _check_direct(request: web.Request) -> None:
    if by_gateway(request):
        raise DeniedError(
            "Helm's own login is not available through a proxy that is not in http.trusted_proxies",
            hint="Log in at the gateway, or open Helm directly.",
        )
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    if isinstance(peer, tuple) and not is_loopback(str(peer[0])) and not is_encrypted(request):
        raise DeniedError(
            f"a login from {peer[0]} needs TLS",
            hint="Use the https address of a proxy that is in http.trusted_proxies in helm.toml, or: helmctl dashboard",
        )


def _check_own(request: web.Request) -> None:
    if refusal := foreign(request.method, request.headers, by_cookie=True):
        raise DeniedError(refusal)


def _see(location: str) -> web.Response:
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": location})
