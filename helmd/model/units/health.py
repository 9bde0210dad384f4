"""Health of a service by its HTTP response: healthy, degraded or unhealthy.

A degraded service works and counts as started. Imported by every unit's probe, so it imports little itself.
"""

from collections.abc import Collection
from typing import NamedTuple

HEALTHY = "healthy"
DEGRADED = "degraded"
UNHEALTHY = "unhealthy"
UNKNOWN = "unknown"


class HealthVerdict(NamedTuple):
    """A health state and the reason for it, as a sentence."""

    state: str
    sentence: str

    @property
    def started(self) -> bool:
        """Whether a service in this state counts as started."""
        return self.state in (HEALTHY, DEGRADED)


def judge(code: int, body: bytes, expect: Collection[int] = (), realm: str = "") -> HealthVerdict:
    """Return the verdict on an HTTP response. EXPECT are the codes that mean healthy, empty for any 2xx.

    With REALM, the body must be that realm's discovery document (OpenID Connect Discovery 1.0, section 4.2).
    """
    accepted = code in expect if expect else 200 <= code <= 299
    document = _document(body)
    if realm:
        issuer = document.get("issuer")
        if accepted and isinstance(issuer, str) and issuer.endswith(f"/realms/{realm}"):
            return HealthVerdict(HEALTHY, f"realm {realm} is available")
        return HealthVerdict(UNHEALTHY, f"answered {code}, which is not the discovery document of realm {realm}")
    if document.get("status") == "degraded":
        return HealthVerdict(DEGRADED, f"answered {code}: degraded" + _reasons(document))
    if accepted:
        return HealthVerdict(HEALTHY, f"answered {code}")
    return HealthVerdict(UNHEALTHY, f"answered {code}")


def _document(body: bytes) -> dict[str, object]:
    if body.lstrip()[:1] != b"{":
        return {}
    import json

    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _reasons(document: dict[str, object]) -> str:
    """Return the names of a health document's failed checks, in parentheses; empty if there are none."""
    checks = document.get("checks")
    if not isinstance(checks, dict):
        return ""
    bad = [
        str(name)
        for name, check in checks.items()
        if isinstance(check, dict) and check.get("status") not in ("healthy", "ok", "up", None)
    ]
    shown = ", ".join(name for name in bad[:5] if name.isprintable() and len(name) < 40)
    return f" ({shown})" if shown else ""
