"""Requests to Keycloak and Core, for logins. Their responses are not trusted."""

import json
from typing import Any

import aiohttp

from helmd.model.printable import printable

REPLY_SECONDS = 3.0
LOGIN_SECONDS = 30.0
"""Timeout in seconds of requests during a login: Keycloak hashes passwords, and Core asks Keycloak."""
RENEWAL_SECONDS = 10.0
"""Timeout in seconds for renewing or ending a session, which blocks all its requests. Pages wait for 12 s."""
_MAX_REPLY = 64 << 10


class NoReplyError(Exception):
    """There is no valid response; the text is the reason."""


async def ask_json(
    session: aiohttp.ClientSession, method: str, url: str, *, seconds: float | None = None, **body: Any
) -> tuple[int, Any]:
    """Return the status and the JSON of a reply, or None if it is not JSON. BODY is ``json`` or ``data``, as aiohttp
    takes them.

    It may take SECONDS, by default REPLY_SECONDS. Redirects are not followed. Raises NoReplyError.
    """
    seconds = REPLY_SECONDS if seconds is None else seconds
    limit = aiohttp.ClientTimeout(total=seconds)
    try:
        async with session.request(method, url, allow_redirects=False, timeout=limit, **body) as reply:
            text = await _limited(reply)
    except TimeoutError:
        raise NoReplyError(f"no answer within {seconds:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        raise NoReplyError(printable(str(problem) or type(problem).__name__, 200)) from None
    if text is None:
        raise NoReplyError(f"reply larger than {_MAX_REPLY >> 10} KiB")
    try:
        return reply.status, json.loads(text)
    except (ValueError, RecursionError):
        return reply.status, None


async def _limited(reply: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, or None if it is too large."""
    text = bytearray()
    async for part in reply.content.iter_any():
        text += part
        if len(text) > _MAX_REPLY:
            return None
    return bytes(text)
