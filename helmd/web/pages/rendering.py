"""Rendering a page: what every page knows, and the headers that it is sent with."""

import re
import socket
from collections.abc import Callable, Sequence
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from helmd import __version__
from helmd.model.identity.injected import NOTHING_INJECTED, Injected
from helmd.web.auth.roles import Identity
from helmd.web.auth.same_origin import by_gateway
from helmd.web.auth.sessions import cookies_of
from helmd.web.pages.assets import Assets
from helmd.web.pages.policy import HOME, direct_policy, gateway_policy

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
THEME_COOKIE = "helm_theme"
"""Set by helm.js. Not by server-side code, so that the choice works without a login."""
Theme = Literal["", "light", "dark"]

_PARTS = re.compile(r"<svg\s[^>]*>(.*)</svg>", re.DOTALL)


class Renderer:
    """Renders templates with the files of ASSETS. INJECTED is what the gateway adds to pages, as far as it is known."""

    def __init__(self, assets: Assets, injected: Callable[[], Injected] = lambda: NOTHING_INJECTED) -> None:
        self._injected = injected
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._environment.globals.update(
            asset=assets.url, icon=icon, home=HOME, host=socket.gethostname(), version=__version__
        )

    def page(
        self,
        request: web.Request,
        template: str,
        status: int = HTTPStatus.OK,
        identity: Identity | None = None,
        **facts: Any,
    ) -> web.Response:
        """The page TEMPLATE for IDENTITY as a response."""
        proxied = by_gateway(request)
        text = self._environment.get_template(template).render(
            identity=identity, theme=theme_of(cookies_of(request, THEME_COOKIE)), proxied=proxied, **facts
        )
        policy = gateway_policy(request.headers, self._injected()) if proxied else direct_policy()
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def theme_of(chosen: Sequence[str]) -> Theme:
    """The colours that the user chose, by the values of the cookie; empty for those of the system."""
    return "light" if "light" in chosen[:1] else "dark" if "dark" in chosen[:1] else ""


@cache
def icon(name: str) -> Markup:
    """An icon of templates/icons, in the colour and size of the text around it."""
    source = (TEMPLATES / "icons" / f"{name}.svg").read_text()
    parts = _PARTS.search(source)
    assert parts is not None, name
    # These files come with the package.
    return Markup(  # noqa: S704
        f'<svg class="helm-icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">{parts[1].strip()}</svg>'
    )
