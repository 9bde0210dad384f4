"""Roles of callers, and the routes that they may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Via = Literal["socket", "token", "anonymous", "session", "machine"]
"""The account's unix socket, a token of Core, no credential, a session of Helm's own, a token that Helm issued."""

RECENT_LOGIN_SECONDS = 600.0
"""Seconds for which a login at Helm itself counts as recent."""


class Role(StrEnum):
    """The role that a route requires; users have one other than PUBLIC."""

    PUBLIC = "public"
    """No credential is required. As a caller's role: a service or an unknown caller."""
    CLIENT = "client"
    """Any user."""
    BILLING = "billing"
    TECHNICIAN = "technician"
    ADMIN = "admin"


class PeerRule(StrEnum):
    """Which programs a route takes requests from, whatever their credential (docs/api.md, "Which program calls")."""

    DEFAULT = "default"
    """By the method: ANY to read, CHECKED to change."""
    ANY = "any"
    CHECKED = "checked"


_COVERS: Mapping[Role, frozenset[Role]] = {
    Role.PUBLIC: frozenset({Role.PUBLIC}),
    Role.CLIENT: frozenset({Role.PUBLIC, Role.CLIENT}),
    Role.BILLING: frozenset({Role.PUBLIC, Role.CLIENT, Role.BILLING}),
    Role.TECHNICIAN: frozenset({Role.PUBLIC, Role.CLIENT, Role.BILLING, Role.TECHNICIAN}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. ``name`` is the account, the user or ``service:NAME``; ``via`` is how it was authenticated."""

    name: str
    role: Role
    via: Via
    service: str | None = None
    """The service that calls, where it is one and not a user."""
    services: frozenset[str] | None = None
    """The services whose logs the caller may read; None for all."""
    login_at: float | None = None
    """When the caller logged in at Helm itself, in seconds since the epoch; of sessions only."""
    session: str = field(default="", compare=False)
    """Identifies a session or a machine token in the audit trail; not a secret."""

    expires: float | None = field(default=None, compare=False)
    """Expiry of the credential, in seconds since the epoch; None for none."""

    @property
    def key(self) -> str:
        """Distinguishes callers: a user may be called as a service or an account is."""
        return f"{self.via} {'user' if self.service is None else 'service'} {self.service or self.name}"

    def sees_logs_of(self, service: str) -> bool:
        """Return whether the caller may read what SERVICE logs."""
        return self.may(Role.BILLING) and (self.services is None or service in self.services)

    def may(self, asked: Role) -> bool:
        """Return whether the caller may use a route that requires role ASKED."""
        return asked in _COVERS[self.role]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a route: users with ``role``, and others as marked."""

    role: Role
    services: bool = False
    """Also services, with tokens of their own."""
    anonymous: bool = False
    """Also programs on this machine without any token, where ``ingest.anonymous`` allows them."""
    checked: bool = False
    """Whether the program that sends the request must be one that may change things."""
    recent_login: bool = False
    """Whether users need the unix socket, or a login at Helm itself within the last RECENT_LOGIN_SECONDS."""

    def refusal(self, caller: Identity) -> str | None:
        """Return why CALLER is refused, as a sentence, or None."""
        if caller.service is not None:
            return None if self.services else f"services may not use this; {caller.name} is a service"
        if caller.via == "anonymous":
            return None if self.anonymous else "anonymous callers may not use this"
        if not caller.may(self.role):
            return f"requires role '{self.role}'; {caller.name} has role '{caller.role}'"
        return None
