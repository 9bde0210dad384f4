"""Errors as answers: ``application/problem+json`` (RFC 9457), and the one place where an error gets its HTTP status."""

import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import HttpVersion10, HttpVersion11, web

from helmd.model.errors import ConfigurationError, HelmError, UsageError
from helmd.model.printable import printable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CORRELATION = "X-Correlation-ID"
COMMON_HEADERS: Mapping[str, str] = {
    "Server": "helm",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise itself."""
_GIVEN_CORRELATION = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")

STATUS: Mapping[str, HTTPStatus] = {
    "unknown_service": HTTPStatus.NOT_FOUND,
    "unknown_entry": HTTPStatus.NOT_FOUND,
    "usage": HTTPStatus.BAD_REQUEST,
    "no_credential": HTTPStatus.UNAUTHORIZED,
    "bad_token": HTTPStatus.UNAUTHORIZED,
    "denied": HTTPStatus.FORBIDDEN,
    "not_set_up": HTTPStatus.CONFLICT,
    "dependency_failed": HTTPStatus.CONFLICT,
    "port_taken": HTTPStatus.CONFLICT,
    "locked": HTTPStatus.CONFLICT,
    "configuration": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unit_refused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "failed": HTTPStatus.INTERNAL_SERVER_ERROR,
    "start_failed": HTTPStatus.INTERNAL_SERVER_ERROR,
    "fetch": HTTPStatus.BAD_GATEWAY,
    "keycloak": HTTPStatus.BAD_GATEWAY,
    "cluster": HTTPStatus.SERVICE_UNAVAILABLE,
    "key_file": HTTPStatus.CONFLICT,
    "bus": HTTPStatus.SERVICE_UNAVAILABLE,
    "store": HTTPStatus.SERVICE_UNAVAILABLE,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "journal": HTTPStatus.SERVICE_UNAVAILABLE,
    "core_unreachable": HTTPStatus.SERVICE_UNAVAILABLE,
    "helmd_away": HTTPStatus.SERVICE_UNAVAILABLE,
    "store_timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
}

_log = logging.getLogger(__name__)


def json_response(
    body: object, status: int = 200, kind: str = "application/json", headers: Mapping[str, str] | None = None
) -> web.Response:
    """BODY as an answer, without a charset, which JSON's media types don't have (RFC 8259, section 11)."""
    return web.Response(body=json.dumps(body).encode(), status=status, content_type=kind, headers=headers)


def correlation_of(given: str | None) -> str:
    """The id that ties a request to what it causes: the caller's own if it is harmless, else a new one."""
    return given if given is not None and _GIVEN_CORRELATION.match(given) else str(uuid.uuid4())


class RequestRefusedError(Exception):
    """A request that HTTP's own rules refuse, with the status for it; ``headers`` go with the response."""

    def __init__(self, status: HTTPStatus, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence, self.headers = status, code, sentence, headers or {}


def problem_document(status: int, code: str, sentence: str, instance: str) -> dict[str, Any]:
    """The members that every problem document has (RFC 9457, section 3.1). ``error`` repeats ``detail`` for older
    clients.
    """
    return {
        "type": f"urn:hivematrix:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": sentence,
        "instance": instance,
        "code": code,
        "error": sentence,
    }


def problem(
    request: web.BaseRequest, status: int, code: str, sentence: str, extra: Mapping[str, Any] | None = None
) -> web.Response:
    """A problem document as a response; EXTRA are further members."""
    body = problem_document(status, code, sentence, request.path) | dict(extra or {})
    headers = {"WWW-Authenticate": _challenge(code)} if status == HTTPStatus.UNAUTHORIZED else None
    return json_response(body, status, "application/problem+json", headers)


def _challenge(code: str) -> str:
    """What a caller is asked for (RFC 6750, section 3)."""
    return 'Bearer realm="helm"' + (', error="invalid_token"' if code == "bad_token" else "")


def problem_of(request: web.Request, error: HelmError) -> web.Response:
    """The problem document of an error that a person is meant to read."""
    extra: dict[str, Any] = {}
    if error.hint:
        extra["hint"] = error.hint
    if error.lines:
        extra["lines"] = list(error.lines)
    if isinstance(error, ConfigurationError):
        extra["faults"] = [str(fault) for fault in error.faults]
    return problem(request, STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR), error.code, error.sentence, extra)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Makes every error a problem document; what nobody foresaw is logged under the request's correlation id."""
    request["correlation_id"] = correlation_of(request.headers.get(CORRELATION))
    response = await _answered(request, handler)
    if not request.content.is_eof():
        # Nobody waits for the rest of a body that was refused.
        response.force_close()
    return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        check_request(request)
        return await handler(request)
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
        return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", sentence, {"correlation_id": correlation})


def check_request(request: web.Request) -> None:
    """Raises RequestRefusedError or UsageError for what no handler should have to think of: see the sentences."""
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
    """Whether there is nobody to answer any more."""
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
