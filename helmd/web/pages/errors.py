"""Error pages for browsers, in place of problem documents for programs."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import web

from helmd.web.auth.roles import Identity, Role
from helmd.web.auth.same_origin import by_gateway
from helmd.web.http.problems import Handler
from helmd.web.pages.error_words import ErrorWords, error_words
from helmd.web.pages.policy import HOME, own_path
from helmd.web.pages.rendering import Renderer

LOGIN = f"{HOME}login"
_TO_LOG_IN = frozenset({"no_credential", "bad_token"})
_KEPT = ("Allow", "Retry-After")

Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """The content of an error page, made of a problem document. ``retry_after`` is in seconds.

    ``same`` is the path to try once more; empty where that would repeat a change.
    """

    words: ErrorWords
    detail: str
    lines: tuple[str, ...]
    faults: tuple[str, ...]
    retry_after: str
    same: str
    code: str
    correlation: str
    may_log_in: bool


def wants_page(request: web.Request) -> bool:
    """Return whether the client is a browser that opens a page, not a program or a script of a page."""
    accepted = request.headers.get("Accept", "")
    return "text/html" in accepted and "json" not in accepted


def login_path(request: web.Request) -> str:
    """Return the URL for the login, which leads back to the page."""
    target = own_path(_path(request))
    return LOGIN if target == HOME else f"{LOGIN}?next={quote(target, safe='/')}"


def _path(request: web.Request) -> str:
    """Return the path with its query, as a browser sees it."""
    path = request.path_qs
    return path if path.startswith(HOME) else HOME + path.removeprefix("/")


def error_pages(renderer: Renderer) -> Middleware:
    """Return the outermost middleware: problem documents become pages for browsers, a missing login leads to the
    login.
    """

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if response.content_type != "application/problem+json" or not isinstance(response, web.Response):
            return response
        if not wants_page(request) or not isinstance(response.body, bytes):
            return response
        problem = json.loads(response.body)
        by_reading = request.method in ("GET", "HEAD")
        by_browser = by_reading and not by_gateway(request)
        if problem["code"] in _TO_LOG_IN and by_browser and "Authorization" not in request.headers:
            return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": login_path(request)})
        caller: Identity | None = request.get("identity")
        context = ErrorContext(
            words=error_words(
                problem["code"],
                response.status,
                problem.get("hint", ""),
                correlation=request.get("correlation_id", ""),
                runs_it=caller is None or caller.may(Role.TECHNICIAN),
            ),
            detail=problem["detail"],
            lines=tuple(problem.get("lines", ())),
            faults=tuple(problem.get("faults", ())),
            retry_after=response.headers.get("Retry-After", ""),
            same=own_path(_path(request)) if by_reading else "",
            code=problem["code"],
            correlation=request.get("correlation_id", ""),
            may_log_in=problem["code"] in ("login_refused", "denied", *_TO_LOG_IN) and not by_gateway(request),
        )
        page = renderer.show(request, "error.html", context, response.status)
        page.headers.update({name: response.headers[name] for name in _KEPT if name in response.headers})
        return page

    return handle
