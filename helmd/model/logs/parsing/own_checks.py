"""Recognizing lines of access logs about Helm's own health checks.

They are no traffic, and a failed check is reported by the service's state; 5,760 lines a day at ERROR would only hide
other lines.
"""

from collections.abc import Collection

from helmd.model.logs.parsing.formats import without_escapes
from helmd.model.units.health_request import USER_AGENT

OWN_CHECK_LEVEL = "DEBUG"
"""The level of such lines, regardless of the status."""
OWN_CHECK_WORDS = (USER_AGENT, "HTTP/1.0")
"""Every such line has at least one of these."""


def is_own_check(text: str, paths: Collection[str]) -> bool:
    """Return whether a line of a service's access log is about a health check of Helm, which requests PATHS.

    Helm's User-Agent identifies it. Logs without User-Agent (werkzeug, uvicorn, http.server) have the request line, or
    its parts in JSON: Helm connects from this host and uses HTTP/1.0, unlike current browsers and libraries.
    """
    if USER_AGENT in text:
        return "GET " in text or '"GET"' in text
    if "HTTP/1.0" not in text or not ("127." in text or "::1" in text):
        return False
    # werkzeug colours request lines unless the status is 200.
    text = without_escapes(text)
    if any(f'"GET {path} HTTP/1.0"' in text for path in paths):
        return True
    return '"GET"' in text and '"HTTP/1.0"' in text and any(f'"{path}"' in text for path in paths)
