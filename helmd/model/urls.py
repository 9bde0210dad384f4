"""URLs in their normal form (RFC 3986, section 6.2), in which they are put out and compared.

Keycloak compares redirect URIs letter by letter, and browsers leave out a default port: another form is another URL.
"""

import re
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._~%-]+(:[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{0,5})?", re.ASCII)


def origin_of(url: str) -> str:
    """Return scheme, host and port of URL, without a port that is the scheme's default, as browsers show it."""
    parts = urlsplit(url)
    return _origin(parts, parts.port)


def normal_url(url: str, port: int | None = None) -> str:
    """Return URL with scheme and host in lower case, without a default port and without slashes at its end.

    With PORT, at that instead of its own. Raises ValueError for a port that is none.
    """
    parts = urlsplit(url)
    rest = parts._replace(scheme="", netloc="", path="").geturl()
    return _origin(parts, port or parts.port) + parts.path.rstrip("/") + rest


def _origin(parts: SplitResult, port: int | None) -> str:
    shown = "" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{shown}"


def is_host_of(host: str, url: str) -> bool:
    """Return whether HOST, a Host header with or without port, is that of URL; False for what is neither."""
    try:
        parts = urlsplit(url)
        if not parts.hostname or not _HOST.fullmatch(host):
            return False
        return origin_of(f"{parts.scheme}://{host}") == origin_of(url)
    except ValueError:
        return False
