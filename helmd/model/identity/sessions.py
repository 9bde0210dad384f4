"""Sessions of Helm's own login: what is known about one, and for how long it may do what."""

from dataclasses import dataclass, field
from typing import Literal

SessionState = Literal["active", "read_only", "ended"]

TOUCH_SECONDS = 60.0
"""Activity of a session is noted at most so often."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Seconds after which a session may only read, and ends, counted from its last activity; and from its login."""

    read_only: float
    idle: float
    longest: float


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """The session of a browser. Times are seconds since the epoch.

    Without a ``token`` it is the local owner's, who logged in by a one-time URL: it needs neither Keycloak nor Core.
    """

    name: str
    began: float
    seen: float
    """The last activity of the user: a page that was opened, or a change. What a page fetches by itself is none."""
    login: float | None = None
    """When the user gave a password or another credential; None if that is unknown. Earlier than ``began`` if Keycloak
    knew the user already."""
    token: str = field(default="", repr=False)
    """The user's token of Core."""
    refresh: str = field(default="", repr=False)
    """The refresh token of Keycloak (RFC 6749, section 1.5)."""
    issuer: str = ""
    subject: str = ""
    sid: str = ""
    """The session at Keycloak (OpenID Connect Back-Channel Logout 1.0, section 2.1)."""
    groups: tuple[str, ...] = ()
    checked: float = 0.0
    """When Keycloak last confirmed that its session is still there."""
    tls: bool = False
    """Whether the login came over TLS. One that did not was made on this machine, and is good there alone."""

    @property
    def owner(self) -> bool:
        return not self.token


def session_state(session: BrowserSession, limits: SessionLimits, now: float) -> SessionState:
    """Return what the session may do at NOW. One that began in the future has ended: the clock was set back."""
    if now < session.began - TOUCH_SECONDS or now - session.began >= limits.longest:
        return "ended"
    quiet = now - session.seen
    if quiet >= limits.idle:
        return "ended"
    return "read_only" if quiet >= limits.read_only else "active"


def session_end(session: BrowserSession, limits: SessionLimits) -> float:
    """Return when the session ends without any further activity."""
    return min(session.began + limits.longest, session.seen + limits.idle)


def ended_by(session: BrowserSession, issuer: str, subject: str, sid: str) -> bool:
    """Return whether a logout at ISSUER ends the session: that of its session SID, or without one all those of
    SUBJECT.
    """
    if session.issuer != issuer or not issuer:
        return False
    return session.sid == sid if sid else bool(subject) and session.subject == subject
