"""Every JSON reply that helmd gives in a test, held against the schema that the OpenAPI document has for it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from aiohttp import web
from jsonschema import Draft202012Validator

from helmd.model.api.json_schema import Schemas
from helmd.model.api.problem import PROBLEM_TYPE, Problem
from helmd.web.route import Route

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
    """What is wrong with the replies that were given since the last call."""
    given = _given[:]
    _given.clear()
    return [fault for reply in given for fault in _faults(*reply)]


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
