"""Login at the gateway: password to Keycloak, access token to Core; Core's token is set as a cookie."""

from __future__ import annotations

import html
import logging
from urllib.parse import quote

import aiohttp
from aiohttp import web
from hivesuite.server import json_reply
from hivesuite.settings import Settings

COOKIE = "access_token"
_COOKIE_SECONDS = 3600
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_log = logging.getLogger("app")


class LoginRefusedError(Exception):
    """Keycloak or Core refused the login; the text is shown in the form."""


class Login:
    """The login form and its handler (resource owner password grant, RFC 6749, section 4.3)."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, core_url: str, keycloak_url: str) -> None:
        self._session = session
        self._core_url = core_url.rstrip("/")
        self._realm = settings.text("KEYCLOAK_REALM", "master")
        self._realm_url = f"{keycloak_url.rstrip('/')}/realms/{quote(self._realm, safe='')}"
        self._client_id = settings.text("KEYCLOAK_CLIENT_ID", "admin-cli")
        self._client_secret = settings.text("KEYCLOAK_CLIENT_SECRET")

    def form(self, request: web.Request, message: str = "", status: int = 200) -> web.Response:
        target = quote(local_path(request.query.get("next", "/")), safe="")
        return web.Response(
            status=status,
            content_type="text/html",
            text=f"""<!doctype html>
<html lang="en"><title>Log in to HiveMatrix</title>
<h1>Log in</h1>
<p>With your account in Keycloak's realm <b>{html.escape(self._realm)}</b>.</p>
<p role="alert">{html.escape(message)}</p>
<form method="post" action="/login?next={target}">
<label>User <input name="username" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button>
</form>
</html>
""",
        )

    async def log_in(self, request: web.Request) -> web.Response:
        fields = await request.post()
        username, password = fields.get("username"), fields.get("password")
        if not isinstance(username, str) or not isinstance(password, str):
            return self.form(request, "User and password, please.", 400)
        try:
            token = await self._core_token(await self._access_token(username, password))
        except LoginRefusedError as error:
            return self.form(request, str(error), 401)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            _log.warning("login failed: %r", error)
            return self.form(request, "Keycloak or Core is not available. Try again later.", 503)
        response = web.Response(status=303, headers={"Location": local_path(request.query.get("next", "/"))})
        response.set_cookie(COOKIE, token, max_age=_COOKIE_SECONDS, httponly=True, secure=True, samesite="Lax")
        _log.info("%s logged in", username)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """Revoke the session at Core and delete the cookie."""
        if token := request.cookies.get(COOKIE):
            try:
                async with self._session.post(
                    f"{self._core_url}/api/token/revoke", json={"token": token}, timeout=_TIMEOUT
                ):
                    pass
            except (aiohttp.ClientError, TimeoutError):
                return json_reply({"error": "Core is not reachable"}, 503)
        response = web.Response(status=303, headers={"Location": "/login"})
        response.del_cookie(COOKIE)
        return response

    async def _access_token(self, username: str, password: str) -> str:
        # Without scope openid, Keycloak's userinfo endpoint returns 403.
        grant = {
            "grant_type": "password",
            "client_id": self._client_id,
            "username": username,
            "password": password,
            "scope": "openid",
        }
        if self._client_secret:
            grant["client_secret"] = self._client_secret
        url = f"{self._realm_url}/protocol/openid-connect/token"
        async with self._session.post(url, data=grant, timeout=_TIMEOUT) as reply:
            answer = await reply.json()
        if reply.status != 200:
            _log.info("Keycloak refuses %s: %s", username, answer.get("error_description"))
            raise LoginRefusedError("Keycloak does not accept this user and password.")
        return str(answer["access_token"])

    async def _core_token(self, access_token: str) -> str:
        url = f"{self._core_url}/api/token/exchange"
        async with self._session.post(url, json={"access_token": access_token}, timeout=_TIMEOUT) as reply:
            answer = await reply.json()
        if reply.status != 200:
            raise LoginRefusedError(f"Core does not accept the login: {answer.get('error')}")
        return str(answer["token"])


def local_path(target: str) -> str:
    r"""Return `target` if it is a path of this gateway, else `/`. Browsers take `//` and `/\` for another host."""
    if not target.startswith("/") or target.startswith(("//", "/\\")) or not target.isprintable():
        return "/"
    return target


def login_location(target: str) -> str:
    """Return the URL of the login form, from which the browser returns to `target`."""
    return f"/login?next={quote(target, safe='')}"
