"""Error responses: ``application/problem+json`` (RFC 9457), with the HTTP status of `helmd.model.problems`."""

import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import is_dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import HttpVersion10, HttpVersion11, web

from helmd.model.api.json_codec import to_json
from helmd.model.api.problem import PROBLEM_TYPE, Problem
from helmd.model.errors import ConfigurationError, HelmError, UsageError
from helmd.model.printable import printable
from helmd.model.problems import PROBLEM_PAGES, PROBLEMS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CORRELATION = "X-Correlation-ID"
COMMON_HEADERS: Mapping[str, str] = {
    "Server": "helm",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Default headers of responses."""
BEGUN = "begun"
"""The key of a request for the response that is being sent."""
_GIVEN_CORRELATION = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")

PREFIX = "/helm"
"""All routes also exist under this prefix, for proxies that do not strip it."""

_log = logging.getLogger(__name__)


def json_response(
    body: object, status: int = 200, kind: str = "application/json", headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a JSON response of BODY, a dataclass or JSON values, without charset (RFC 8259, section 11)."""
    text = json.dumps(to_json(body) if is_dataclass(body) else body)
    return web.Response(body=text.encode(), status=status, content_type=kind, headers=headers)


def correlation_of(given: str | None) -> str:
    """Return the correlation id of a request: the caller's own if valid, else a new one."""
    return given if given is not None and _GIVEN_CORRELATION.match(given) else str(uuid.uuid4())


class RequestRefusedError(Exception):
    """A request that HTTP's own rules refuse, with the status for it; ``headers`` are those of the response."""

    def __init__(self, status: HTTPStatus, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence, self.headers = status, code, sentence, headers or {}


def problem_document(status: int, code: str, sentence: str, instance: str, prefix: str = "", **extra: Any) -> Problem:
    """Return a problem document (RFC 9457, section 3.1).

    EXTRA are further members; PREFIX is that of URLs of the documentation.
    """
    return Problem(
        type=prefix + PROBLEM_PAGES + code,
        title=HTTPStatus(status).phrase,
        status=int(status),
        detail=sentence,
        instance=instance,
        code=code,
        error=sentence,
        **extra,
    )


def prefix_of(request: web.BaseRequest) -> str:
    """Return the prefix under which the caller finds Helm: also a proxy's that strips it (``X-Forwarded-Prefix``)."""
    forwarded = request.headers.get("X-Forwarded-Prefix", "").rstrip("/") == PREFIX
    return PREFIX if forwarded or request.path.startswith(PREFIX + "/") else ""


def problem(request: web.BaseRequest, status: int, code: str, sentence: str, **extra: Any) -> web.Response:
    """Return a problem document as a response; EXTRA are further members."""
    body = problem_document(status, code, sentence, request.path, prefix_of(request), **extra)
    headers = {"WWW-Authenticate": _challenge(code)} if status == HTTPStatus.UNAUTHORIZED else None
    return json_response(body, status, PROBLEM_TYPE, headers)


def _challenge(code: str) -> str:
    """Return the value of WWW-Authenticate (RFC 6750, section 3)."""
    return 'Bearer realm="helm"' + (', error="invalid_token"' if code == "bad_token" else "")


def problem_of(request: web.Request, error: HelmError) -> web.Response:
    """Return the problem document of an error with a message."""
    kind = PROBLEMS.get(error.code)
    status = HTTPStatus.INTERNAL_SERVER_ERROR if kind is None else kind.status
    return problem(
        request,
        status,
        error.code,
        error.sentence,
        hint=error.hint or None,
        lines=error.lines or None,
        faults=tuple(map(str, error.faults)) if isinstance(error, ConfigurationError) else None,
        errors=error.errors or None if isinstance(error, UsageError) else None,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert errors to problem documents; unexpected ones are logged with the request's correlation id."""
    request["correlation_id"] = correlation_of(request.headers.get(CORRELATION))
    response = await _answered(request, handler)
    if not request.content.is_eof():
        # The rest of a refused body is not read.
        response.force_close()
    return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        check_request(request)
        return await _whole(request, handler)
    except HelmError as error:
        return problem_of(request, error)
    except RequestRefusedError as refused:
        response = problem(request, refused.status, refused.code, refused.sentence)
        response.headers.update(refused.headers)
        return response
    except web.HTTPException as answer:
        if answer.status < HTTPStatus.BAD_REQUEST:
            raise
        return _of_http(request, answer)
    except Exception as error:  # noqa: BLE001 - the last place to turn it into an answer; its cause is logged
        if isinstance(error, ConnectionResetError) and _gone(request):
            return web.Response()
        correlation = request["correlation_id"]
        _log.exception("%s %s failed (correlation id %s)", request.method, request.path, correlation)
        sentence = f"something went wrong inside Helm; its log says what, under {correlation}"
        return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", sentence, correlation_id=correlation)


async def _whole(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return the response of HANDLER.

    If it fails after the response has begun, an error response would become part of that. So the cause is logged, and
    the connection is closed without the last chunk, by which the client detects the failure.
    """
    try:
        return await handler(request)
    except Exception as error:
        begun: web.StreamResponse | None = request.get(BEGUN)
        if begun is None:
            raise
        if not (isinstance(error, ConnectionResetError) and _gone(request)):
            correlation = request["correlation_id"]
            _log.exception("%s %s was aborted (correlation id %s)", request.method, request.path, correlation)
        if request.transport is not None:
            # What was sent before still arrives.
            request.transport.close()
        return begun


def check_request(request: web.Request) -> None:
    """Raise RequestRefusedError or UsageError for requests that are invalid for all handlers: see the sentences."""
    if request.get("version", request.version) not in (HttpVersion10, HttpVersion11):
        raise RequestRefusedError(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "http_version", "only HTTP/1.0 and HTTP/1.1 are spoken"
        )
    if request.version == HttpVersion11 and "Host" not in request.headers:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "bad_request", "an HTTP/1.1 request must have a Host header")
    if request.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        raise RequestRefusedError(
            HTTPStatus.NOT_IMPLEMENTED, "transfer_encoding", "the only transfer encoding is chunked"
        )
    target = unquote_to_bytes(request.raw_path.encode("utf-8", "surrogateescape"))
    if b"\0" in target:
        name = next((name for name, value in request.query.items() if "\0" in name + value), "the path")
        raise UsageError(f"{printable(name, 40)}: may not hold NUL")
    try:
        target.decode()
    except UnicodeDecodeError:
        raise UsageError("path and query must be UTF-8") from None
    expected = request.get("expect")
    if expected is not None and expected.lower() != "100-continue":
        sentence = "the only expectation that can be met is 100-continue"
        raise RequestRefusedError(HTTPStatus.EXPECTATION_FAILED, "expectation_failed", sentence)


def _gone(request: web.Request) -> bool:
    """Return whether the client has disconnected."""
    return request.transport is None or request.transport.is_closing()


def _of_http(request: web.Request, answer: web.HTTPException) -> web.Response:
    if isinstance(answer, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(answer.allowed_methods))
        made = problem(request, answer.status, "method_not_allowed", f"only {allowed} can be done here")
        made.headers["Allow"] = allowed
        return made
    if answer.status == HTTPStatus.NOT_FOUND:
        return problem(request, answer.status, "not_found", "there is nothing under this path")
    code = HTTPStatus(answer.status).phrase.lower().replace(" ", "_")
    return problem(request, answer.status, code, answer.text or answer.reason)
