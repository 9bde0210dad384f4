"""The HTTP server of the sample services: correlation ids, problem documents, health, fast shutdown."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import signal
import ssl
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus

from aiohttp import web

from .logs import ACCESS_LOGGER, AccessLog, AccessStyle, correlation_id
from .settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CORRELATION_HEADER = "X-Correlation-ID"
SHUTDOWN_SECONDS = 0.1
"""Time limit in seconds for open requests after SIGTERM; the whole shutdown takes less than 0.3 s."""

_CORRELATION_ID = re.compile(r"[\x21-\x7e]{1,128}")
_DISK_FULL_PERCENT = 95.0
_NOT_FOUND = "nothing is at this path"
_BAD_REQUEST = "the body is not a JSON object"
_INTERNAL_ERROR = "an internal error; the log has more"
_log = logging.getLogger("app")


class UnsupportedBodyError(Exception):
    """The request's media type is not JSON. The real services return 500 for this."""


class ListenError(Exception):
    """The service can't listen on its address."""


def json_reply(body: object, status: int = 200, content_type: str = "application/json") -> web.Response:
    """Return a JSON response without charset, as Flask does (aiohttp's json_response adds one)."""
    return web.Response(body=json.dumps(body).encode(), status=status, headers={"Content-Type": content_type})


def problem(request: web.Request, status: int, detail: str) -> web.Response:
    """Return an `application/problem+json` response (RFC 9457)."""
    title = HTTPStatus(status).phrase
    body = {
        "type": "about:blank#" + title.lower().replace(" ", "-"),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.path,
    }
    return json_reply(body, status, "application/problem+json")


async def json_body(request: web.Request) -> dict[str, object]:
    """Return the request's JSON object. Raises UnsupportedBodyError for another media type, else HTTPBadRequest."""
    media_type = request.content_type
    if media_type != "application/json" and not re.fullmatch(r"application/.*\+json", media_type):
        raise UnsupportedBodyError("the body is not application/json")
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest
    return body


def bearer_token(request: web.Request) -> str:
    """Return the token of `Authorization: Bearer`, or an empty string."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@web.middleware
async def correlation_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Use the request's X-Correlation-ID if valid, else generate one, for the response and the request's log lines."""
    given = request.headers.get(CORRELATION_HEADER, "")
    identifier = given if _CORRELATION_ID.fullmatch(given) else str(uuid.uuid4())
    correlation_id.set(identifier)
    return await handler(request)


async def _add_correlation_id(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault(CORRELATION_HEADER, correlation_id.get())


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert exceptions of handlers to problem documents.

    A method that a route lacks and a body of another media type become 500, as in the real services, whose generic
    handler treats both as unexpected.
    """
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return problem(request, 404, _NOT_FOUND)
    except web.HTTPBadRequest:
        return problem(request, 400, _BAD_REQUEST)
    except web.HTTPRequestEntityTooLarge as error:
        return problem(request, 413, error.text or "The request's body is too large.")
    except web.HTTPMethodNotAllowed as error:
        _log.error("%s is not a method of %s", request.method, request.path, exc_info=error)
    except Exception as error:  # noqa: BLE001 - logged with its traceback, and returned as 500
        _log.error("could not answer: %s", error, exc_info=error)
    return problem(request, 500, _INTERNAL_ERROR)


def disk_check() -> dict[str, object]:
    """Return the check of the root file system's usage."""
    usage = shutil.disk_usage("/")
    percent = round(100 * usage.used / usage.total, 2)
    return {
        "status": "healthy" if percent < _DISK_FULL_PERCENT else "degraded",
        "free_gb": round(usage.free / 2**30, 2),
        "total_gb": round(usage.total / 2**30, 2),
        "usage_percent": percent,
    }


def health_reply(service: str, checks: Mapping[str, Mapping[str, object]]) -> web.Response:
    """Return the worst status of the checks, with code 503 unless healthy, as the real services do."""
    found = {str(check["status"]) for check in checks.values()}
    status = next((level for level in ("unhealthy", "degraded") if level in found), "healthy")
    body = {
        "service": service,
        "status": status,
        "timestamp": datetime.now(UTC).isoformat(),
        "checks": {name: dict(check) for name, check in checks.items()},
    }
    return json_reply(body, 200 if status == "healthy" else 503)


def make_app() -> web.Application:
    """Return an application with the middlewares and no routes."""
    app = web.Application(middlewares=[correlation_middleware, problem_middleware])
    app.on_response_prepare.append(_add_correlation_id)
    return app


def run(app: web.Application, settings: Settings, access: AccessStyle, tls: ssl.SSLContext | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then exit with 0; exit with 1 and a message if the port is in use."""
    try:
        asyncio.run(_serve(app, settings, access, tls))
    except ListenError as error:
        sys.exit(f"{settings.name}: {error}")


async def _serve(app: web.Application, settings: Settings, access: AccessStyle, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        app,
        access_log_class=AccessLog,
        access_log_format=access.value,
        access_log=logging.getLogger(ACCESS_LOGGER),
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, ssl_context=tls, shutdown_timeout=SHUTDOWN_SECONDS)
        try:
            await site.start()
        except OSError as error:
            raise ListenError(f"cannot listen: {error.strerror or error}") from error
        scheme = "https" if tls else "http"
        url = f"{scheme}://{settings.host}:{settings.port}"
        _log.info("%s listens on %s in %s mode", settings.name, url, settings.mode)
        await stop.wait()
        _log.info("%s is ending", settings.name)
    finally:
        await runner.cleanup()
