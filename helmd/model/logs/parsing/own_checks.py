"""Lines of access logs about Helm's own health checks: neither traffic nor, when a check fails, errors of a service.

That a service is unhealthy is shown by its health; 5,760 lines a day at ERROR would only hide what else it prints.
"""

from collections.abc import Collection

from helmd.model.logs.parsing.formats import without_escapes
from helmd.model.units.health_request import USER_AGENT

OWN_CHECK_LEVEL = "DEBUG"
"""The level of such lines, whatever the response was."""
OWN_CHECK_WORDS = (USER_AGENT, "HTTP/1.0")
"""Each of them has one of these."""


def is_own_check(text: str, paths: Collection[str]) -> bool:
    """Return whether a line of a service's access log is about a health check.

    PATHS are those that Helm requests of it. Helm's User-Agent shows it. Logs without one (werkzeug, uvicorn,
    http.server) have the request line, or its parts in JSON: Helm asks from this host, by HTTP/1.0, which browsers and
    libraries do not use any more.
    """
    if USER_AGENT in text:
        return "GET " in text or '"GET"' in text
    if "HTTP/1.0" not in text or not ("127." in text or "::1" in text):
        return False
    # werkzeug colours the request line of what it answers with other than 200.
    text = without_escapes(text)
    if any(f'"GET {path} HTTP/1.0"' in text for path in paths):
        return True
    return '"GET"' in text and '"HTTP/1.0"' in text and any(f'"{path}"' in text for path in paths)
