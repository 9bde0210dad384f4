"""Errors for people: what is a problem document for programs is a page for who reads in a browser."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import web

from helmd.web.auth.same_origin import by_gateway
from helmd.web.http.problems import Handler
from helmd.web.pages.policy import HOME, own_path
from helmd.web.pages.rendering import Renderer

LOGIN = f"{HOME}login"
_TO_LOG_IN = frozenset({"no_credential", "bad_token"})
_KEPT = ("Allow", "Retry-After")

Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """What an error's page shows: the problem document, and the id of the request."""

    title: str
    detail: str
    hint: str
    lines: tuple[str, ...]
    code: str
    correlation: str
    may_log_in: bool


def wants_page(request: web.Request) -> bool:
    """Whether the client is a browser that opens a page, not a program or a script of a page."""
    accepted = request.headers.get("Accept", "")
    return "text/html" in accepted and "json" not in accepted


def login_path(request: web.Request) -> str:
    """Where a browser is sent to log in and come back."""
    path = request.path_qs
    target = own_path(path if path.startswith(HOME) else HOME + path.removeprefix("/"))
    return LOGIN if target == HOME else f"{LOGIN}?next={quote(target, safe='/')}"


def error_pages(renderer: Renderer) -> Middleware:
    """The outermost middleware: problem documents become pages for browsers, a missing login leads to the login."""

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if response.content_type != "application/problem+json" or not isinstance(response, web.Response):
            return response
        if not wants_page(request) or not isinstance(response.body, bytes):
            return response
        problem = json.loads(response.body)
        by_browser = request.method in ("GET", "HEAD") and not by_gateway(request)
        if problem["code"] in _TO_LOG_IN and by_browser and "Authorization" not in request.headers:
            return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": login_path(request)})
        context = ErrorContext(
            title=problem["title"],
            detail=problem["detail"],
            hint=problem.get("hint", ""),
            lines=tuple(problem.get("lines", ())),
            code=problem["code"],
            correlation=request.get("correlation_id", ""),
            may_log_in=problem["code"] in ("login_refused", "denied", *_TO_LOG_IN) and not by_gateway(request),
        )
        page = renderer.show(request, "error.html", context, response.status)
        page.headers.update({name: response.headers[name] for name in _KEPT if name in response.headers})
        return page

    return handle
