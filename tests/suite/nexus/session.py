"""The gateway's session: a signed cookie that holds Core's token, and what a login in progress must remember."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

from aiohttp import web

COOKIE = "session"
"""Like the real gateway's: HttpOnly and SameSite=Lax, for all paths, and so sent to every service behind it."""


def encode(values: Mapping[str, str], key: bytes) -> str:
    """Return the cookie's value: readable by its holder, but not to be changed."""
    content = base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")
    return f"{content}.{_signature(content, key)}"


def decode(value: str, key: bytes) -> dict[str, str]:
    """Return what `encode` was given; empty for a value that this key did not sign."""
    content, _, signature = value.partition(".")
    if not hmac.compare_digest(_signature(content, key).encode(), signature.encode("utf-8", "replace")):
        return {}
    found = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    return {str(name): str(each) for name, each in found.items()}


def _signature(content: str, key: bytes) -> str:
    return hmac.new(key, content.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def load(request: web.Request, key: bytes) -> dict[str, str]:
    return decode(request.cookies.get(COOKIE, ""), key)


def store(response: web.StreamResponse, values: Mapping[str, str], key: bytes) -> None:
    response.set_cookie(COOKIE, encode(values, key), httponly=True, samesite="Lax", path="/")
