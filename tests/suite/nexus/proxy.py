"""Forwarding a request to a service or to Keycloak. All but an event stream is read whole before it is passed on."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import aiohttp
from aiohttp import web
from hivesuite.logs import correlation_id
from hivesuite.server import CORRELATION_HEADER, json_reply
from multidict import CIMultiDict, CIMultiDictProxy
from page import decorated
from yarl import URL

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
"""Without PATCH and WebSocket, like the real gateway."""

SILENCE_SECONDS = 30
"""Seconds without data from the service after which a request is aborted."""

# RFC 9110, section 7.6.1; also proxy-connection, which old browsers send.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_REPLACED = frozenset(
    {
        "host", "accept-encoding", "expect", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
        "x-forwarded-prefix", CORRELATION_HEADER.lower(),
    }
)  # fmt: skip
_OF_THE_ENCODING = frozenset({"content-encoding", "content-length"})
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_SECONDS)

_log = logging.getLogger("app")


async def forward(
    session: aiohttp.ClientSession, request: web.Request, service: str, base_url: str, token: str, user: str = ""
) -> web.StreamResponse:
    """Return the service's response to `request`, forwarded without the prefix /SERVICE.

    The service gets the user's token and every cookie of the request. A page gets the gateway's appearance, and with
    `user` a script that differs by user.
    """
    target = base_url + (request.raw_path.removeprefix(f"/{service}") or "/")
    headers = _request_headers(request, f"/{service}")
    headers["Authorization"] = f"Bearer {token}"
    return await _send(session, request, service, target, headers, user)


async def forward_to_keycloak(
    session: aiohttp.ClientSession, request: web.Request, base_url: str, prefix: str
) -> web.StreamResponse:
    """Return Keycloak's response to `request`, whose cookies are then for /keycloak."""
    target = base_url + (request.raw_path.removeprefix(prefix) or "/")
    headers = _request_headers(request, "/keycloak")
    headers["X-Forwarded-Port"] = "443"
    return await _send(session, request, "keycloak", target, headers)


async def _send(
    session: aiohttp.ClientSession,
    request: web.Request,
    service: str,
    target: str,
    headers: CIMultiDict[str],
    user: str = "",
) -> web.StreamResponse:
    try:
        reply = await session.request(
            request.method,
            URL(target, encoded=True),
            headers=headers,
            data=request.content if request.body_exists else None,
            allow_redirects=False,
            timeout=_TIMEOUT,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
        async with reply:
            if reply.content_type == "text/event-stream":
                return await _stream(request, reply, service)
            content = await reply.read()
    except TimeoutError:
        return json_reply({"error": f"{service} did not answer in {SILENCE_SECONDS} s"}, 504)
    except aiohttp.ClientError as error:
        _log.warning("%s is not reachable: %s", service, error)
        return json_reply({"error": f"{service} is not reachable"}, 502)
    passed = _end_to_end(reply.headers, _OF_THE_ENCODING)
    if service == "keycloak":
        passed = CIMultiDict((name, _for_keycloak(name, value)) for name, value in passed.items())
    elif reply.content_type == "text/html":
        content = decorated(content.decode("utf-8", "replace"), service, user).encode()
    return web.Response(status=reply.status, reason=reply.reason, headers=passed, body=content)


def _for_keycloak(name: str, value: str) -> str:
    return re.sub(r"; *Path=[^;]*", "; Path=/keycloak", value, flags=re.I) if name.lower() == "set-cookie" else value


async def _stream(request: web.Request, reply: aiohttp.ClientResponse, service: str) -> web.StreamResponse:
    headers = _end_to_end(reply.headers, _OF_THE_ENCODING)
    response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
    await response.prepare(request)
    try:
        async for chunk in reply.content.iter_any():
            await response.write(chunk)
    except (aiohttp.ClientError, TimeoutError) as error:
        # The status was sent already: only closing the connection shows the client that the body is incomplete.
        _log.warning("%s broke off its answer to %s: %r", service, request.path, error)
        if request.transport is not None:
            request.transport.abort()
    except ConnectionResetError:
        _log.debug("the client of %s went away", request.path)
    else:
        await response.write_eof()
    return response


def _end_to_end(headers: CIMultiDictProxy[str], also: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    """Return the headers without hop-by-hop headers, and without those `also` named."""
    named = {name.strip().lower() for value in headers.getall("Connection", []) for name in value.split(",")}
    dropped = _HOP_BY_HOP | named | also
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _request_headers(request: web.Request, prefix: str) -> CIMultiDict[str]:
    kept = _end_to_end(request.headers, _REPLACED)
    added: Mapping[str, str] = {
        "Accept-Encoding": "gzip, deflate",
        "X-Forwarded-For": request.remote or "",
        "X-Forwarded-Proto": request.scheme,
        "X-Forwarded-Host": request.host,
        "X-Forwarded-Prefix": prefix,
        CORRELATION_HEADER: correlation_id.get(),
    }
    return CIMultiDict([*kept.items(), *added.items()])
