"""The hint of pages whose changes need a recent login at Helm itself (docs/api.md, "Which program calls")."""

import time
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

from helmd.web.auth.peers import LoginNeededError, check_recent_login
from helmd.web.auth.roles import Identity
from helmd.web.auth.same_origin import by_gateway
from helmd.web.http.problems import PREFIX
from helmd.web.pages.policy import HOME


@dataclass(frozen=True, slots=True)
class FreshLogin:
    """Why the reader may not do now what needs a recent login, and where to log in; empty where they may."""

    reason: str = ""
    link: str = ""
    label: str = ""

    @property
    def needed(self) -> bool:
        return bool(self.reason)


def fresh_login(request: web.Request, url: str, what: str) -> FreshLogin:
    """Return what WHAT, the beginning of a sentence, needs of the reader of REQUEST. URL is that of Helm itself."""
    identity: Identity = request["identity"]
    try:
        check_recent_login(identity, time.time(), what)
    except LoginNeededError as error:
        path = request.path if request.path.startswith(HOME) else PREFIX + request.path
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in request.query.items() if name != "part")
        here = f"{path}?{query}" if query else path
        if by_gateway(request):
            reason = f"{error.sentence}. This page came through the gateway, whose sessions every service can use."
            return FreshLogin(reason, url.rstrip("/") + here, "Open Helm at its own address")
        return FreshLogin(f"{error.sentence}.", f"{HOME}login?fresh=1&next={quote(here, safe='/')}", "Log in again")
    return FreshLogin()
