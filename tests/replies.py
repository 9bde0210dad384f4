"""Every JSON reply that helmd gives in a test, held against the schema that the OpenAPI document has for it."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from aiohttp import web
from jsonschema import Draft202012Validator

from helmd.model.api.json_schema import Schemas
from helmd.model.api.problem import PROBLEM_TYPE, Problem
from helmd.web.route import Route
from tests.suite.faulty.noting import MARK

_JSON = "application/json"
_given: list[tuple[str, int, str, Route | None, bytes]] = []
"""Replies that were not checked yet: later, since some tests measure time."""


async def note(request: web.Request, response: web.StreamResponse) -> None:
    """Remember a reply."""
    if isinstance(response, web.Response) and response.content_type in (_JSON, PROBLEM_TYPE):
        body = response.body if isinstance(response.body, bytes) else b""
        if body:
            what = f"{request.method} {request.path}"
            _given.append((what, response.status, response.content_type, request.get("route"), body))


@contextmanager
def noted() -> Iterator[None]:
    """Applications that are made meanwhile have their replies remembered."""
    server = sys.modules.get("helmd.web.server")
    if server is None:
        yield
        return
    first = server._add_headers

    async def both(request: web.Request, response: web.StreamResponse) -> None:
        await first(request, response)
        await note(request, response)

    server._add_headers = both  # type: ignore[attr-defined]
    try:
        yield
    finally:
        server._add_headers = first  # type: ignore[attr-defined]


def faults() -> list[str]:
    """Return what is wrong with the replies that were given since the last call."""
    given = _given[:]
    _given.clear()
    return [fault for reply in given for fault in _faults(*reply)]


_HELMD = re.compile(r"http://(?:helm|localhost:5004|127\.0\.0\.1:5004)(/[^\s'\"?]*)")
_METHOD = re.compile(r"(?:-X |--request |request = \"?)([A-Z]+)")


def faults_in_output(words: Sequence[str], stdin: str | None, output: str) -> list[str]:
    """Return what is wrong with the JSON that a command with curl, or curl's configuration in STDIN, got from helmd."""
    command = " ".join(words) + (stdin or "")
    urls = _HELMD.findall(command)
    if "curl" not in command or len(urls) != 1:
        return []
    path, given = urls[0].removeprefix("/helm"), _METHOD.search(command)
    route = _route_of("GET" if given is None else given[1], path)
    body = _json_in(output)
    if route is None or route.reply is None or body is None:
        return []
    kinds: list[Any] = [route.reply.body, *route.reply.also.values()]
    # Of a problem document, status and code are in it; what else it may be, its status would say.
    if isinstance(body, dict) and {"type", "title", "status", "code"} <= body.keys():
        kinds = [Problem]
    found = [
        [f"{error.json_path}: {error.message[:200]}" for error in _validator(kind).iter_errors(body)]
        for kind in kinds
        if kind is not None
    ]
    return [f"{route.method} {path}: {fault}" for fault in min(found, key=len, default=[])]


def faults_in_reply(method: str, path: str, status: int, media: str, body: str) -> list[str]:
    """Return what is wrong with a reply that a client has got from helmd, directly or through the gateway."""
    path = path.removeprefix("/helm")
    if media not in (_JSON, PROBLEM_TYPE):
        return []
    return list(_faults(f"{method} {path}", status, media, _route_of(method, path), body.encode()))


def faults_noted(errors: str) -> list[str]:
    """Return what is wrong with the replies that a program run by tests/suite/faulty/noting.py has got, from its
    ERRORS.
    """
    last = errors.rstrip("\n").rpartition("\n")[2]
    replies = json.loads(last.removeprefix(MARK)) if last.startswith(MARK) else []
    return [fault for reply in replies for fault in faults_in_reply(*reply)]


def _json_in(output: str) -> Any:
    """Return the document, also with the headers before it or the status behind it that curl was to print."""
    text = output.replace("\r\n", "\n")
    for part in (text, text.rpartition("\n")[0], text.partition("\n\n")[2]):
        if part.lstrip()[:1] in ("{", "["):
            try:
                return json.loads(part)
            except ValueError:
                continue
    return None


@cache
def _routes() -> Sequence[tuple[str, re.Pattern[str], Route]]:
    from tests.unit.test_api_document import table

    return [
        (route.method, re.compile(re.sub(r"\{\w+(?::([^}]*))?\}", lambda part: part[1] or "[^/]+", route.path)), route)
        for route in table()
    ]


def _route_of(method: str, path: str) -> Route | None:
    return next((route for known, form, route in _routes() if known == method and form.fullmatch(path)), None)


def _faults(what: str, status: int, media: str, route: Route | None, body: bytes) -> Iterator[str]:
    if media == PROBLEM_TYPE:
        kind: Any = Problem
    elif route is None or route.reply is None:
        return
    else:
        bodies: dict[int, Any] = {int(status): also for status, also in route.reply.also.items()}
        bodies[int(route.reply.status)] = route.reply.body
        if status not in bodies:
            yield f"{what}: status {status} is not in the document"
            return
        kind = bodies[status]
    for error in _validator(kind).iter_errors(json.loads(body)):
        yield f"{what} {status}: {error.json_path}: {error.message[:200]}"


@cache
def _validator(kind: Any) -> Draft202012Validator:
    schemas = Schemas()
    schema = {**schemas.of(kind), "components": {"schemas": schemas.components}}
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
