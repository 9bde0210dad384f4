"""Documents that helmd serves about its own API: the OpenAPI document, and a page about each problem code."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from http import HTTPStatus

from aiohttp import web

from helmd.model.problems import PROBLEM_PAGES, PROBLEMS, ProblemKind
from helmd.web.api_page import api_page
from helmd.web.auth.roles import Role
from helmd.web.http.negotiation import check_conditions
from helmd.web.http.problems import RequestRefusedError
from helmd.web.openapi import openapi
from helmd.web.reply import HTML, Reply
from helmd.web.route import Route

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .5rem; background: #8882; }
table { display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem; background: #8881; }
:root { color-scheme: light dark; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
}
"""Content security policy: only the page's own style sheet is loaded."""


def html_page(title: str, body: str) -> web.Response:
    """Return a page without scripts; BODY is HTML."""
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=PAGE_HEADERS)


def problem_page(code: str, kind: ProblemKind) -> str:
    """Return the HTML of the page about one code."""
    meaning = escape(kind.meaning[:1].upper() + kind.meaning[1:]).replace("`", "")
    return (
        f"<h1><code>{escape(code)}</code></h1><p>{meaning}.</p><h2>What to do</h2><p>{escape(kind.remedy)}</p>"
        f"<p>HTTP status: {int(kind.status)} {kind.status.phrase}</p>"
    )


class Documents:
    """The handlers. The document is made once, by `describe`."""

    def __init__(self) -> None:
        self._document, self._etag, self._page = b"", "", ""

    def describe(self, table: Sequence[Route]) -> None:
        """Make the document of TABLE."""
        document = openapi(table)
        self._document, self._page = json.dumps(document).encode(), api_page(document)
        self._etag = f'"{hashlib.sha256(self._document).hexdigest()[:32]}"'

    async def openapi(self, request: web.Request) -> web.Response:
        """GET /api/openapi.json"""
        headers = {"ETag": self._etag, "Cache-Control": "no-cache"}
        if not check_conditions(request, self._etag):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return web.Response(body=self._document, content_type="application/json", headers=headers)

    async def api(self, request: web.Request) -> web.Response:
        """GET /docs/api"""
        return html_page("API", self._page)

    async def problem(self, request: web.Request) -> web.Response:
        """GET /docs/problems/{code}"""
        code = request.match_info["code"]
        if (kind := PROBLEMS.get(code)) is None:
            raise RequestRefusedError(HTTPStatus.NOT_FOUND, "not_found", "there is no such code")
        return html_page(code, problem_page(code, kind))


def with_documents(table: Sequence[Route]) -> tuple[Route, ...]:
    """Return TABLE and the routes of the documents about it and about themselves."""
    documents = Documents()
    routes = (
        Route(
            "GET",
            "/api/openapi.json",
            documents.openapi,
            Role.CLIENT,
            "This document",
            reply=Reply(Mapping[str, object], also={HTTPStatus.NOT_MODIFIED: None}),
        ),
        Route("GET", "/docs/api", documents.api, Role.CLIENT, "This API as a page", reply=HTML),
        Route(
            "GET", PROBLEM_PAGES + "{code}", documents.problem, Role.PUBLIC, "What a problem's code means", reply=HTML
        ),
    )
    documents.describe(whole := (*table, *routes))
    return whole
