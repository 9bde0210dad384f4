"""Login at the gateway: authorization code from Keycloak (RFC 6749, section 4.1), access token to Core, Core's token
into the session."""

from __future__ import annotations

import logging
import secrets
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web
from hivesuite.server import json_reply
from hivesuite.settings import Settings
from session import COOKIE, load, store

CALLBACK = "/keycloak-callback"
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_log = logging.getLogger("app")

_LOGGED_OUT = """<!doctype html>
<html lang="en"><head><title>Logged out</title></head>
<body><p>You are logged out.</p>
<script>
localStorage.clear();
sessionStorage.clear();
for (const each of document.cookie.split(";")) {
  document.cookie = each.split("=")[0] + "=;path=/;expires=" + new Date(0).toUTCString();
}
setTimeout(() => location.replace("/"), 1000);
</script></body></html>
"""


class LoginFailedError(Exception):
    """Keycloak or Core refused the login; the text is shown to the user."""


class Login:
    """The routes of the login. `key` signs the session."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: Settings, core_url: str, keycloak_url: str, key: bytes
    ) -> None:
        self._session = session
        self._key = key
        self._core_url = core_url.rstrip("/")
        self._oidc = f"/realms/{quote(settings.text('KEYCLOAK_REALM', 'hivematrix'), safe='')}/protocol/openid-connect"
        self._keycloak_url = keycloak_url.rstrip("/")
        self._client_id = settings.text("KEYCLOAK_CLIENT_ID", "core-client")
        self._client_secret = settings.text("KEYCLOAK_CLIENT_SECRET")

    async def begin(self, request: web.Request) -> web.Response:
        """Send the browser to Keycloak, below this gateway's own name."""
        state, here = secrets.token_urlsafe(32), _here(request)
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": here + CALLBACK,
            "scope": "openid email profile",
            "state": state,
            "nonce": secrets.token_urlsafe(32),
        }
        response = web.Response(
            status=302, headers={"Location": f"{here}/keycloak{self._oidc}/auth?{urlencode(query)}"}
        )
        store(response, {"state": state, "next": local_path(request.query.get("next", "/"))}, self._key)
        return response

    async def finish(self, request: web.Request) -> web.Response:
        """Exchange the code that Keycloak sent the browser back with."""
        known = load(request, self._key)
        try:
            if error := request.query.get("error"):
                raise LoginFailedError(f"Keycloak refused the login: {error}")
            if not known.get("state") or request.query.get("state") != known["state"]:
                raise LoginFailedError("The login was begun elsewhere, or too long ago.")
            code = request.query.get("code", "")
            token = await self._core_token(await self._access_token(code, _here(request) + CALLBACK))
        except LoginFailedError as error:
            response = web.Response(status=401, text=str(error))
            response.del_cookie(COOKIE)
            return response
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            _log.warning("login failed: %r", error)
            return web.Response(status=502, text="Keycloak or Core is not available. Try again later.")
        response = web.Response(status=302, headers={"Location": known.get("next", "/")})
        store(response, {"token": token}, self._key)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """Revoke the session at Core, and have the browser forget all that this origin has stored."""
        if token := load(request, self._key).get("token"):
            try:
                async with self._session.post(
                    f"{self._core_url}/api/token/revoke", json={"token": token}, timeout=_TIMEOUT
                ):
                    pass
            except (aiohttp.ClientError, TimeoutError):
                return json_reply({"error": "Core is not reachable"}, 503)
        headers = {"Clear-Site-Data": '"cache", "cookies", "storage"', "Cache-Control": "no-store"}
        response = web.Response(text=_LOGGED_OUT, content_type="text/html", headers=headers)
        response.del_cookie(COOKIE)
        return response

    async def _access_token(self, code: str, redirect_uri: str) -> str:
        grant = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        url = f"{self._keycloak_url}{self._oidc}/token"
        async with self._session.post(url, data=grant, timeout=_TIMEOUT) as reply:
            answer = await reply.json()
        if reply.status != 200:
            _log.warning("Keycloak refuses the code: %s", answer.get("error_description"))
            raise LoginFailedError(f"Keycloak refused the login: {answer.get('error')}")
        return str(answer["access_token"])

    async def _core_token(self, access_token: str) -> str:
        url = f"{self._core_url}/api/token/exchange"
        async with self._session.post(url, json={"access_token": access_token}, timeout=_TIMEOUT) as reply:
            answer = await reply.json()
        if reply.status != 200:
            raise LoginFailedError(f"Core does not accept the login: {answer.get('error')}")
        return str(answer["token"])


def _here(request: web.Request) -> str:
    """Return the gateway's URL as the browser has it; it believes the Host header, like the real one."""
    return f"{request.scheme}://{request.host}"


def local_path(target: str) -> str:
    r"""Return `target` if it is a path of this gateway, else `/`. Browsers take `//` and `/\` for another host."""
    if not target.startswith("/") or target.startswith(("//", "/\\")) or not target.isprintable():
        return "/"
    return target


def login_location(target: str) -> str:
    """Return the URL of the login, from which the browser returns to `target`."""
    return f"/login?next={quote(target, safe='')}"
