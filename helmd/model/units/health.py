"""Health of a service by its HTTP response: healthy, degraded or unhealthy.

A degraded service works and counts as started. Imported by the probe, so it imports little itself.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from helmd.model.printable import printable
from helmd.model.units.health_request import WORKS_BUT_LIMITS, accepts

HEALTHY = "healthy"
DEGRADED = "degraded"
UNHEALTHY = "unhealthy"
UNKNOWN = "unknown"

NOT_YET, NOT_HEALTHY = "not healthy yet", "not healthy within"
"""How the lines begin that the probe of a starting service prints."""

_WORKING = frozenset({"healthy", "ok", "up", "pass", "passing", "passed", "success", "available", "running", "true"})
"""Words by which health documents say that a check passes, in lower case."""
_HALF_WORKING = frozenset({"degraded", "warn", "warning"})
_CONTAINERS = ("checks", "components", "entries", "results", "details", "dependencies", "services", "error")
"""Keys below which health documents list their checks: HiveMatrix, MicroProfile and application/health+json have
"checks", Spring Boot "components" (1.x and 2.0: "details"), ASP.NET "entries" or "results", NestJS "error".
"""
_ALSO_REASONS = ("details", "error")
"""Of these, those that have reasons, too."""
_REASONS = ("error", "message", "reason", "output", "description", "exception", "detail", "details", "data")
_CODES = ("http_status", "status_code", "statusCode", "http_code", "code")
"""Keys for the HTTP status of what a check asked."""
_MOST_CHECKS, _MOST_LOOKED_AT, _DEEPEST = 5, 200, 4
_NAME, _REASON = 40, 80
"""The longest name of a check and the longest reason that are shown, in characters."""


class Probe(NamedTuple):
    """What to ask. ``url`` is empty for a service that is healthy while its process lives; ``timeout`` is seconds.

    A service of this host listens on ``port``, whatever the URL says, and is asked at an address of this host. It is 0
    for an external service, which is asked where its URL says.
    """

    check: str = "http"
    url: str = ""
    expect: tuple[int, ...] = ()
    realm: str = ""
    verify: bool = False
    timeout: float = 2.0
    port: int = 0
    requires: tuple[str, ...] = ()

    @property
    def asked_port(self) -> int:
        """The port, which for an external service is that of the URL."""
        return self.port or urlsplit(self.url).port or (443 if self.url.startswith("https:") else 80)

    @property
    def asked(self) -> str:
        """What is waited for, for display."""
        if self.check == "process":
            return "its process"
        if self.check == "port":
            return f"port {self.asked_port}"
        return f"GET {self.url}"


class HealthVerdict(NamedTuple):
    """A health state and the reason for it, as a sentence."""

    state: str
    sentence: str

    @property
    def started(self) -> bool:
        """Whether a service in this state counts as started."""
        return self.state in (HEALTHY, DEGRADED)


PROCESS_RUNS = HealthVerdict(HEALTHY, "its process runs")
"""The verdict on a service without a port, of which nothing can be asked."""


def judge(
    code: int,
    body: bytes,
    expect: tuple[int, ...] = (),
    realm: str = "",
    location: str = "",
    asked: str = "",
    requires: Collection[str] = (),
) -> HealthVerdict:
    """Return the verdict on an HTTP response. EXPECT are the codes that mean healthy, empty for any 2xx.

    With REALM, the body must be that realm's discovery document (OpenID Connect Discovery 1.0, section 4.2). LOCATION
    is the response's Location header, ASKED the URL that was requested; both only for the advice in the sentence.
    REQUIRES are the checks that the document of a healthy service must name.
    """
    accepted = accepts(code, expect)
    if code == WORKS_BUT_LIMITS and not accepted:
        return HealthVerdict(DEGRADED, "answered 429: it works, but limits requests, health checks among them")
    document = _document(body)
    if realm:
        issuer = document.get("issuer")
        if accepted and isinstance(issuer, str) and issuer.endswith(f"/realms/{realm}"):
            return HealthVerdict(HEALTHY, f"realm {realm} is available")
        if code == 404 and document.get("error") == "Realm does not exist":
            return HealthVerdict(UNHEALTHY, f"there is no realm {realm}; to make it, run: helmctl keycloak setup")
        said = f"answered {code}, which is not the discovery document of realm {realm}"
        return HealthVerdict(UNHEALTHY, said + _failing(document))
    status = document.get("status")
    missing = _missing(requires, document)
    if isinstance(status, str) and status.lower() in _HALF_WORKING:
        return HealthVerdict(DEGRADED, f"answered {code}: degraded" + _failing(document) + missing)
    if accepted and missing:
        return HealthVerdict(DEGRADED, f"answered {code}{missing}")
    if accepted:
        return HealthVerdict(HEALTHY, f"answered {code}")
    return HealthVerdict(UNHEALTHY, f"answered {code}" + (_failing(document) or _advice(code, expect, location, asked)))


def _advice(code: int, expect: Collection[int], location: str, asked: str) -> str:
    """Return what a response CODE that is not accepted means, and which setting to change; empty if not known."""
    path = "/" + asked.partition("://")[2].partition("/")[2]
    if code in (301, 302, 303, 307, 308):
        to = f", a redirect to {_short(location, 200)}" if location else ", a redirect"
        scheme = asked.partition("://")[0]
        if scheme == "http" and location.startswith("https://"):
            return f'{to}: if it wants TLS, set url = "https://..."; otherwise name a path that is not redirected'
        return f"{to}: set health.path to a path that it answers itself"
    if code == 404:
        return f": it has no path {path}; set health.path to one that it has" if asked else ": it has no such path"
    if code in (401, 403):
        return (
            f": it wants credentials; set health.path to a path that needs none, or health.expect = [{code}] if this"
            " answer means that it works"
        )
    if code == 405:
        return ": it does not take GET there; set health.path to a path that does"
    if code in (400, 421) and asked:
        host = asked.partition("://")[2].partition("/")[0]
        return f": if it wants another Host than {host}, set url to the address that it is known by"
    if expect and 200 <= code <= 299:
        return f", and health.expect is {sorted(expect)}"
    return ""


def _document(body: bytes) -> dict[str, object]:
    if body.lstrip()[:1] != b"{":
        return {}
    import json

    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _failing(document: dict[str, object]) -> str:
    """Return the names of a health document's failed checks with their reasons, in parentheses; empty without any."""
    seen: dict[str, str] = {}
    for name, reason in _failed_checks(document, 0):
        if name not in seen or not seen[name]:
            seen[name] = reason
        if len(seen) > _MOST_CHECKS:
            break
    if not seen:
        return ""
    shown = [f"{name}: {reason}" if reason else name for name, reason in list(seen.items())[:_MOST_CHECKS]]
    return f" ({'; '.join(shown)}{'; and more' if len(seen) > _MOST_CHECKS else ''})"


def _failed_checks(document: dict[str, object], depth: int) -> Iterator[tuple[str, str]]:
    if depth == _DEEPEST:
        return
    for key in _CONTAINERS:
        for name, check in _listed(document.get(key)):
            if key in _ALSO_REASONS and not isinstance(check, dict):
                continue
            given = check if isinstance(check, dict) else {}
            word = _word(given.get("status", given.get("state", given.get("healthy"))) if given else check)
            if word is None and given:
                # Checks in a group that has no status of its own.
                inner = {
                    key: value
                    for key, value in given.items()
                    if isinstance(value[0] if isinstance(value, list) and value else value, dict)
                }
                yield from _failed_checks({_CONTAINERS[0]: inner}, depth + 1)
            if word is None or word in _WORKING:
                continue
            nested = list(_failed_checks(given, depth + 1))
            if nested:
                yield from nested
            else:
                yield _short(name, _NAME), _reason(given) or ("" if word in _HALF_WORKING else _plain(word))


def _missing(requires: Collection[str], document: dict[str, object]) -> str:
    """Return which of the checks that it must name a document lacks, as the end of a sentence."""
    known = _named_checks(document)
    if not (missing := [name for name in requires if name not in known]):
        return ""
    why = "what it checks is not set up, or could not be reached when it started"
    return f", without the check {', '.join(missing)}: {why}"


def _named_checks(document: dict[str, object]) -> set[str]:
    return {name for key in _CONTAINERS for name, _ in _listed(document.get(key))}


def _listed(container: object) -> Iterator[tuple[str, object]]:
    """Yield the checks in CONTAINER: an object by name (each with one result, or a list of them), or a list with
    names.
    """
    if isinstance(container, dict):
        for name, check in list(container.items())[:_MOST_LOOKED_AT]:
            for each in check[:_MOST_LOOKED_AT] if isinstance(check, list) else [check]:
                yield name, each
    elif isinstance(container, list):
        for check in container[:_MOST_LOOKED_AT]:
            if isinstance(check, dict) and isinstance(name := check.get("name", check.get("id")), str):
                yield name, check


def _word(status: object) -> str | None:
    """Return a check's status in lower case, or None if there is none."""
    if isinstance(status, bool):
        return str(status).lower()
    return status.lower() if isinstance(status, str) else None


def _plain(word: str) -> str:
    """Return WORD if it says more than that the check failed."""
    return "" if word in ("unhealthy", "down", "fail", "failed", "error", "false") else _short(word, _REASON)


def _short(text: str, limit: int) -> str:
    """Return TEXT from a service, on one line."""
    return printable(" ".join(text.split()), limit)


def _reason(check: dict[str, object]) -> str:
    for key in _REASONS:
        value = check.get(key)
        if isinstance(value, dict):
            value = next((value[inner] for inner in ("error", "message", "reason") if inner in value), None)
        if isinstance(value, str) and value.strip():
            return _short(value, _REASON)
    code = next((check[key] for key in _CODES if isinstance(check.get(key), int)), None)
    return "" if code is None else f"answered {code}"
