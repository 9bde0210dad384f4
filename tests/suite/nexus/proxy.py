"""Forwarding a request to a service and streaming its response back."""

from __future__ import annotations

import logging

import aiohttp
from aiohttp import web
from hivesuite.logs import correlation_id
from hivesuite.server import CORRELATION_HEADER, json_reply
from login import COOKIE
from multidict import CIMultiDict, CIMultiDictProxy
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
        "host", "authorization", "cookie", "expect", "forwarded", "x-forwarded-for", "x-forwarded-proto",
        "x-forwarded-host", "x-forwarded-prefix", CORRELATION_HEADER.lower(),
    }
)  # fmt: skip
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_SECONDS)

_log = logging.getLogger("app")


async def forward(
    session: aiohttp.ClientSession, request: web.Request, service: str, base_url: str, token: str
) -> web.StreamResponse:
    """Return the service's response to `request`, forwarded without the prefix /SERVICE and with the user's token."""
    target = URL(base_url + (request.raw_path.removeprefix(f"/{service}") or "/"), encoded=True)
    try:
        reply = await session.request(
            request.method,
            target,
            headers=_request_headers(request, service, token),
            data=request.content if request.body_exists else None,
            allow_redirects=False,
            timeout=_TIMEOUT,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
    except TimeoutError:
        return json_reply({"error": f"{service} did not answer in {SILENCE_SECONDS} s"}, 504)
    except aiohttp.ClientError as error:
        _log.warning("%s is not reachable: %s", service, error)
        return json_reply({"error": f"{service} is not reachable"}, 502)
    async with reply:
        return await _relay(request, reply, service)


async def _relay(request: web.Request, reply: aiohttp.ClientResponse, service: str) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=_end_to_end(reply.headers))
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


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers without hop-by-hop headers."""
    named = {name.strip().lower() for value in headers.getall("Connection", []) for name in value.split(",")}
    dropped = _HOP_BY_HOP | named
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _request_headers(request: web.Request, service: str, token: str) -> CIMultiDict[str]:
    kept = _end_to_end(request.headers)
    headers = CIMultiDict((name, value) for name, value in kept.items() if name.lower() not in _REPLACED)
    cookies = [part.strip() for value in request.headers.getall("Cookie", []) for part in value.split(";")]
    if others := [cookie for cookie in cookies if cookie and not cookie.startswith(f"{COOKIE}=")]:
        headers["Cookie"] = "; ".join(others)
    headers["Authorization"] = f"Bearer {token}"
    headers["X-Forwarded-For"] = request.remote or ""
    headers["X-Forwarded-Proto"] = request.scheme
    headers["X-Forwarded-Host"] = request.host
    headers["X-Forwarded-Prefix"] = f"/{service}"
    headers[CORRELATION_HEADER] = correlation_id.get()
    return headers
