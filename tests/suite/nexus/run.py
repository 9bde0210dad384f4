"""Nexus of the sample suite: the https gateway. Log in at /login; /SERVICE/… goes to that service.

Unlike the real one it serves from one process, and adds nothing to the pages that pass through.
"""

from __future__ import annotations

import html
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from aiohttp import web
from hivesuite.logs import AccessStyle, configure_logs
from hivesuite.registry import Registry
from hivesuite.server import bearer_token, disk_check, health_reply, json_reply, make_app, run
from hivesuite.settings import Settings, load_settings
from hivesuite.tokens import CoreUnreachableError, InvalidTokenError, TokenVerifier
from login import COOKIE, Login, login_location
from proxy import METHODS, forward

DEFAULT_PORT = 8443
NOT_PROXIED = frozenset({"nexus", "keycloak"})


class Nexus:
    """The routes of the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.directory / "services.json")

    def app(self) -> web.Application:
        app = make_app()
        app.cleanup_ctx.append(self._connections)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/", self._index),
                web.get("/login", self._login_form),
                web.post("/login", self._log_in),
                web.post("/logout", self._log_out),
            ]
        )
        for method in METHODS:
            app.router.add_route(method, "/{service:[a-z][a-z0-9_-]*}{rest:(/.*)?}", self._proxy)
        return app

    async def _connections(self, app: web.Application) -> AsyncIterator[None]:
        core = self._settings.text("CORE_SERVICE_URL") or self._registry.url("core", "http://127.0.0.1:5000")
        keycloak = self._settings.text("KEYCLOAK_SERVER_URL") or self._registry.url("keycloak", "http://127.0.0.1:8080")
        # Bodies are forwarded unchanged, compressed or not. Cookies of services belong to the users, not the gateway.
        async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as upstream:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
                self._upstream = upstream
                self._verifier = TokenVerifier(session, core)
                self._login = Login(session, self._settings, core, keycloak)
                yield

    async def _health(self, request: web.Request) -> web.Response:
        checks = {"disk": disk_check()}
        if self._settings.flag("NEXUS_DEGRADED"):
            checks["redis"] = {"status": "degraded", "error": "Redis is not available"}
        return health_reply("nexus", checks)

    async def _index(self, request: web.Request) -> web.Response:
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        names = (name for name in sorted(self._registry.urls()) if name not in NOT_PROXIED)
        links = "".join(f'<li><a href="/{html.escape(name)}/">{html.escape(name)}</a></li>' for name in names)
        return web.Response(
            text=f"<!doctype html><title>HiveMatrix</title><h1>HiveMatrix sample suite</h1><ul>{links}</ul>",
            content_type="text/html",
        )

    async def _login_form(self, request: web.Request) -> web.Response:
        return self._login.form(request)

    async def _log_in(self, request: web.Request) -> web.Response:
        return await self._login.log_in(request)

    async def _log_out(self, request: web.Request) -> web.Response:
        return await self._login.log_out(request)

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        service = request.match_info["service"]
        url = self._registry.urls().get(service, "")
        if not url or service in NOT_PROXIED:
            raise web.HTTPNotFound
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        return await forward(self._upstream, request, service, url, _token(request))

    async def _refusal(self, request: web.Request) -> web.Response | None:
        """Return the response to a request without a valid token: the login page for browsers, else 401.

        Compare with None: an aiohttp response is a mapping, and false while that is empty.
        """
        try:
            if token := _token(request):
                await self._verifier.verify(token)
                return None
            reason = "Authentication required"
        except InvalidTokenError as error:
            reason = str(error)
        except CoreUnreachableError:
            return json_reply({"error": "Core is not reachable"}, 503)
        if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return web.Response(status=302, headers={"Location": login_location(request.path_qs)})
        return json_reply({"error": reason}, 401)


def _token(request: web.Request) -> str:
    return bearer_token(request) or request.cookies.get(COOKIE, "")


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
