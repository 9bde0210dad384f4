"""Rendering a page: what every page knows, and the headers that it is sent with.

A page is a template and a dataclass, whose fields are the template's variables. A part of a page that is kept up to
date (``data-live-part="NAME"``) is a block of the template called ``part_NAME``: `Renderer.show` renders that block
alone where the request has ``?part=NAME``, so page and part can't differ.
"""

import gzip
import hashlib
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from helmd import __version__
from helmd.model.identity.injected import NOTHING_INJECTED, Injected
from helmd.web.auth.roles import Identity
from helmd.web.auth.same_origin import by_gateway
from helmd.web.auth.sessions import cookies_of
from helmd.web.http.problems import PREFIX
from helmd.web.pages.assets import Assets
from helmd.web.pages.live_parts import LiveParts, LiveRendering, part_digest
from helmd.web.pages.navigation import rail
from helmd.web.pages.policy import HOME, direct_policy, gateway_policy
from helmd.web.pages.words import (
    count_text,
    date_text,
    duration_text,
    number_text,
    predicate,
    shown_text,
    size_text,
)

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
THEME_COOKIE = "helm_theme"
"""Set by theme.js. Not by server-side code, so that the choice works without a login."""
Theme = Literal["", "light", "dark"]
_COMPRESSED_FROM = 1400
"""Bytes from which a page is compressed: less fits into one packet."""
_PART = re.compile(r"[a-z][a-z_]{0,30}\Z")


class PageContext(Protocol):
    """What a template is rendered with: any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NoContext:
    """That of a page which shows the same to everybody."""


@dataclass(frozen=True, slots=True)
class HealthLine:
    """The line about all services in the top bar, which title and icon of a tab carry as well."""

    tone: Literal["ok", "warn", "error", "off"] = "off"
    sentence: str = ""
    trouble: str = ""
    """What the title of the page begins with; empty where nothing is wrong."""


class Renderer:
    """Renders templates with the files of ASSETS. INJECTED is what the gateway adds to pages, as far as it is known;
    HEALTH is what the top bar says to a reader.
    """

    def __init__(
        self,
        assets: Assets,
        injected: Callable[[], Injected] = lambda: NOTHING_INJECTED,
        health: Callable[[Identity], HealthLine] = lambda identity: HealthLine(),
    ) -> None:
        self._assets = assets
        self._injected = injected
        self._health = health
        self._known: frozenset[str] = frozenset()
        self._live = LiveParts()
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, finalize=shown_text,
        )  # fmt: skip
        self._environment.globals.update(
            asset=assets.url, icon=self.icon, home=HOME, host=socket.gethostname(), version=__version__
        )
        self._environment.filters.update(
            live_row=self._live.row,
            live_part=self._live.part,
            size=size_text,
            duration=duration_text,
            number=number_text,
            date=date_text,
            counted=count_text,
            predicate=predicate,
        )
        # As a global, since a block that is rendered alone has nothing of what its template imports.
        self._environment.globals["ui"] = self._environment.get_template("components.html").module

    def icon(self, name: str) -> Markup:
        """Return an icon of the sprite, in the colour and size of the text around it."""
        url = self._assets.url("icons.svg")
        return Markup('<svg class="helm-icon" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>').format(
            url, name
        )

    def show(
        self, request: web.Request, template: str, context: PageContext, status: int = HTTPStatus.OK
    ) -> web.Response:
        """Return the page TEMPLATE with the fields of CONTEXT, or the part of it that the request asks for."""
        proxied = by_gateway(request)
        identity: Identity | None = request.get("identity")
        path = request.path.removeprefix(PREFIX) or "/"
        variables = {
            "identity": identity,
            "theme": theme_of(cookies_of(request, THEME_COOKIE)),
            "proxied": proxied,
            "rail": () if identity is None else tuple(rail(identity, self._places(request), path)),
            "health": HealthLine() if identity is None else self._health(identity),
            "session_digest": "" if identity is None else _session_digest(identity),
            "live": (live := LiveRendering()),
            **{field.name: getattr(context, field.name) for field in fields(context)},
        }
        found = self._environment.get_template(template)
        if (part := request.query.get("part")) is not None and status == HTTPStatus.OK:
            return self._part(request, found, part, variables, live)
        policy = gateway_policy(request.headers, self._injected()) if proxied else direct_policy()
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"}
        return _html(request, found.render(variables), status, headers)

    def _part(
        self, request: web.Request, template: Template, part: str, variables: dict[str, Any], live: LiveRendering
    ) -> web.Response:
        block = self._block(template, f"part_{part}") if _PART.match(part) else None
        if block is None:
            raise web.HTTPNotFound
        asked = request.headers.get("If-None-Match")
        live.known = self._live.known(asked)
        text = "".join(block(template.new_context(variables)))
        tag = f'"{live.tag or part_digest(text)}"'
        headers = {"ETag": tag, "Helm-Assets": self._assets.digest}
        if asked == tag:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return _html(request, text, HTTPStatus.OK, headers)

    def _block(self, template: Template, name: str) -> Any:
        """Return a block of TEMPLATE or of the one that it extends."""
        return template.blocks.get(name) or self._environment.get_template("base.html").blocks.get(name)

    def _places(self, request: web.Request) -> frozenset[str]:
        """Return the paths that the application answers."""
        if not self._known:
            self._known = frozenset(resource.canonical for resource in request.app.router.resources())
        return self._known


def _html(request: web.Request, text: str, status: int, headers: dict[str, str]) -> web.Response:
    body = text.encode()
    # The gateway inserts into what it passes on.
    accepted = "gzip" in request.headers.get("Accept-Encoding", "").lower() and not by_gateway(request)
    if accepted and len(body) >= _COMPRESSED_FROM:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 5, mtime=0)
    headers["Vary"] = "Accept-Encoding"
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8", headers=headers)


def _session_digest(identity: Identity) -> str:
    """Return names what tabs of one session share; another session of the same browser has another."""
    return hashlib.sha256(f"{identity.key} {identity.session}".encode()).hexdigest()[:16]


def theme_of(chosen: Sequence[str]) -> Theme:
    """Return the colours that the user chose, by the values of the cookie; empty for those of the system."""
    return "light" if "light" in chosen[:1] else "dark" if "dark" in chosen[:1] else ""
