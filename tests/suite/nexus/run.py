"""Nexus of the sample suite: the https gateway. /login leads to Keycloak at /keycloak, /SERVICE/… is a service.

What it does to requests, cookies and pages is what the real one does; unlike that it serves from one process, and takes
Core's tokens from programs as well (`Authorization: Bearer`).
"""

from __future__ import annotations

import html
import secrets
import ssl
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from hivesuite.logs import AccessStyle, configure_logs
from hivesuite.registry import Registry
from hivesuite.server import bearer_token, disk_check, health_reply, json_reply, make_app, run
from hivesuite.settings import Settings, load_settings
from hivesuite.tokens import CoreUnreachableError, InvalidTokenError, TokenVerifier
from login import CALLBACK, Login, login_location
from page import GLOBAL_CSS, PANEL_CSS, PANEL_STYLES, global_styles
from proxy import METHODS, forward, forward_to_keycloak
from session import load

DEFAULT_PORT = 8443
HOME = "helm"
NOT_PROXIED = frozenset({"nexus", "keycloak"})
_VALIDATED_WITHIN = aiohttp.ClientTimeout(total=2)
_TRUSTED_WITHOUT_CORE = 300
"""Seconds after its issue for which a token is good while Core can't be asked about its session."""


class Nexus:
    """The routes of the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.directory / "services.json")
        self._key = settings.text("SECRET_KEY", secrets.token_urlsafe(32)).encode()
        self._styles = global_styles()

    def app(self) -> web.Application:
        app = make_app()
        app.cleanup_ctx.append(self._connections)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/", self._index),
                web.get("/login", self._log_in),
                web.get(CALLBACK, self._logged_in),
                web.get("/logout", self._log_out),
                web.get(GLOBAL_CSS, self._styles_of_all),
                web.get(PANEL_CSS, self._styles_of_panel),
                web.post("/api/invalidate-cache", self._invalidate_cache),
            ]
        )
        for method in METHODS:
            # Without authentication: logging in needs them.
            app.router.add_route(method, "/keycloak/{rest:.*}", self._keycloak)
            app.router.add_route(method, "/{place:realms|resources}/{rest:.*}", self._keycloak)
            app.router.add_route(method, "/{service:[a-z][a-z0-9_-]*}{rest:(/.*)?}", self._proxy)
        return app

    async def _connections(self, app: web.Application) -> AsyncIterator[None]:
        core = self._settings.text("CORE_SERVICE_URL") or self._registry.url("core", "http://127.0.0.1:5000")
        keycloak = self._settings.text("KEYCLOAK_BACKEND_URL") or self._registry.url(
            "keycloak", "http://127.0.0.1:8080"
        )
        self._core_url, self._keycloak_url = core.rstrip("/"), keycloak.rstrip("/")
        # Cookies of services belong to the users, not the gateway.
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            self._session = session
            self._verifier = TokenVerifier(session, core)
            self._login = Login(session, self._settings, core, keycloak, self._key)
            yield

    async def _health(self, request: web.Request) -> web.Response:
        checks = {"disk": disk_check()}
        if self._settings.flag("NEXUS_DEGRADED"):
            checks["redis"] = {"status": "degraded", "error": "Redis is not available"}
        return health_reply("nexus", checks)

    async def _index(self, request: web.Request) -> web.Response:
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        if HOME in self._registry.urls():
            return web.Response(status=302, headers={"Location": f"/{HOME}/"})
        names = (name for name in sorted(self._registry.urls()) if name not in NOT_PROXIED)
        links = "".join(f'<li><a href="/{html.escape(name)}/">{html.escape(name)}</a></li>' for name in names)
        return web.Response(
            text=f"<!doctype html><title>HiveMatrix</title><h1>HiveMatrix sample suite</h1><ul>{links}</ul>",
            content_type="text/html",
        )

    async def _log_in(self, request: web.Request) -> web.Response:
        return await self._login.begin(request)

    async def _logged_in(self, request: web.Request) -> web.Response:
        return await self._login.finish(request)

    async def _log_out(self, request: web.Request) -> web.Response:
        return await self._login.log_out(request)

    async def _styles_of_all(self, request: web.Request) -> web.Response:
        return web.Response(text=self._styles, content_type="text/css")

    async def _styles_of_panel(self, request: web.Request) -> web.Response:
        return web.Response(text=PANEL_STYLES, content_type="text/css")

    async def _invalidate_cache(self, request: web.Request) -> web.Response:
        return json_reply({"success": True, "message": "Cache invalidated"})

    async def _keycloak(self, request: web.Request) -> web.StreamResponse:
        prefix = "" if "place" in request.match_info else "/keycloak"
        return await forward_to_keycloak(self._session, request, self._keycloak_url, prefix)

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        service = request.match_info["service"]
        url = self._registry.urls().get(service, "")
        if not url or service in NOT_PROXIED:
            raise web.HTTPNotFound
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        user = ""
        if self._settings.flag("NEXUS_GREETS_USERS"):
            user = str((await self._verifier.verify(self._token(request))).get("preferred_username"))
        return await forward(self._session, request, service, url, self._token(request), user)

    async def _refusal(self, request: web.Request) -> web.Response | None:
        """Return the response to a request without a valid token: the login page for browsers, else 401.

        Compare with None: an aiohttp response is a mapping, and false while that is empty.
        """
        try:
            if token := self._token(request):
                await self._check_session(token, await self._verifier.verify(token))
                return None
            reason = "Authentication required"
        except InvalidTokenError as error:
            reason = str(error)
        except CoreUnreachableError:
            return json_reply({"error": "Core is not reachable"}, 503)
        if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return web.Response(status=302, headers={"Location": login_location(request.path_qs)})
        return json_reply({"error": reason}, 401)

    async def _check_session(self, token: str, claims: Mapping[str, object]) -> None:
        """Ask Core whether the token's session is still open. Raises InvalidTokenError."""
        try:
            async with self._session.post(
                f"{self._core_url}/api/token/validate", json={"token": token}, timeout=_VALIDATED_WITHIN
            ) as reply:
                if reply.status != 200:
                    raise InvalidTokenError("The session has ended")
        except (aiohttp.ClientError, TimeoutError) as error:
            issued = claims.get("iat")
            if not isinstance(issued, int) or time.time() - issued > _TRUSTED_WITHOUT_CORE:
                raise InvalidTokenError("Core can't be asked about the session") from error

    def _token(self, request: web.Request) -> str:
        return bearer_token(request) or load(request, self._key).get("token", "")


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context; exit with a message if certificate or key can't be used."""
    certificate = Path(settings.text("NEXUS_CERT", "certs/nexus.crt"))
    key = Path(settings.text("NEXUS_KEY", "certs/nexus.key"))
    for what, path in (("certificate", certificate), ("key", key)):
        if not path.is_file():
            sys.exit(
                f"nexus: the {what} {path.absolute()} is missing. `helmctl setup` makes one; or name your own with "
                "NEXUS_CERT and NEXUS_KEY."
            )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        sys.exit(f"nexus: cannot use the certificate {certificate} with the key {key}: {error}")
    return context


if __name__ == "__main__":
    settings = load_settings("nexus", DEFAULT_PORT)
    configure_logs(settings.mode)
    context = tls_context(settings)
    print(f" * Nexus starting with HTTPS on {settings.host}:{settings.port}", flush=True)
    run(Nexus(settings).app(), settings, AccessStyle.COMBINED, context)
