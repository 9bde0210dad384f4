"""Whether a request is from a page of another origin (Fetch Metadata Request Headers; RFC 6454), or through a proxy, by
its headers.
"""

from collections.abc import Mapping

from aiohttp import web

from helmd.model.urls import is_host_of

PROXY_HEADERS = (
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "Forwarded",
    "Via",
)
PROXY_SCHEME = "proxy_scheme"
"""The key of a request below which is what a reverse proxy in ``http.trusted_proxies`` says of its client's scheme; it
may be empty. Other requests do not have it.
"""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})


def is_proxied(headers: Mapping[str, str]) -> bool:
    """Return whether a request has headers of a proxy.

    The gateway passes on cookies of browsers, Helm's included.
    """
    return any(name in headers for name in PROXY_HEADERS)


def by_gateway(request: web.Request) -> bool:
    """Return whether REQUEST was forwarded by a proxy other than the admin's own, which may be the gateway.

    Then modules behind the gateway may see cookies and pages as well.
    """
    return is_proxied(request.headers) and PROXY_SCHEME not in request


def is_encrypted(request: web.Request) -> bool:
    """Return whether the client that sent REQUEST uses TLS, with helmd or with a trusted proxy."""
    return request.secure or request.get(PROXY_SCHEME) == "https"


def foreign(method: str, headers: Mapping[str, str], by_cookie: bool) -> str | None:
    """Return why a request is refused because of where it comes from, as a sentence, or None.

    A browser adds a cookie, and the gateway a token, to whatever a page makes it send; so what changes something must
    come from a page of Helm's own origin, or from the user. Without Sec-Fetch-Site, as of browsers that reach Helm over
    plain HTTP by a name other than localhost, Origin decides. A program that sends a token need send neither.
    """
    site = headers.get("Sec-Fetch-Site")
    if method in SAFE_METHODS:
        # A link on another page may open one of Helm's; anything else that another page wants of it is refused.
        opened = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        if not by_cookie or site is None or site in _OWN or opened:
            return None
        return "a page of another origin may not read this"
    if site is not None:
        return None if site in _OWN else "a page of another origin may not change anything here"
    origin = headers.get("Origin")
    if origin is None:
        return "a change needs the header Origin or Sec-Fetch-Site" if by_cookie else None
    hosts = [headers.get("Host", ""), "" if by_cookie else headers.get("X-Forwarded-Host", "")]
    own = any(is_host_of(host, origin) for host in hosts)
    return None if own else "a page of another origin may not change anything here"
