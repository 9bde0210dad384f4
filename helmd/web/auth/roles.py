"""What a caller may be, and what that covers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Via = Literal["socket", "token", "anonymous"]


class Role(StrEnum):
    """The least that a route asks of its caller; users have one of the others than PUBLIC."""

    PUBLIC = "public"
    """No credential is asked for. As a caller's role: no user, but a service or somebody unknown."""
    CLIENT = "client"
    """Any user."""
    BILLING = "billing"
    TECHNICIAN = "technician"
    ADMIN = "admin"


_COVERS: Mapping[Role, frozenset[Role]] = {
    Role.PUBLIC: frozenset({Role.PUBLIC}),
    Role.CLIENT: frozenset({Role.PUBLIC, Role.CLIENT}),
    Role.BILLING: frozenset({Role.PUBLIC, Role.CLIENT, Role.BILLING}),
    Role.TECHNICIAN: frozenset({Role.PUBLIC, Role.CLIENT, Role.BILLING, Role.TECHNICIAN}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. ``name`` is the account, the user or ``service:NAME``; ``via`` is how that is known."""

    name: str
    role: Role
    via: Via
    service: str | None = None
    """The service that calls, where it is one and not a user."""
    services: frozenset[str] | None = None
    """The services to whose logs the caller is confined; None for all."""

    @property
    def key(self) -> str:
        """Distinguishes callers: a user may be called as a service or an account is."""
        return f"{self.via} {'user' if self.service is None else 'service'} {self.service or self.name}"

    def may(self, asked: Role) -> bool:
        """Whether a route that asks for this role is open to the caller."""
        return asked in _COVERS[self.role]


@dataclass(frozen=True, slots=True)
class Access:
    """Whom a route is open to: users who have ``role``, and others as marked."""

    role: Role
    services: bool = False
    """Also services, with their own tokens."""
    anonymous: bool = False
    """Also programs on this machine without any token, where ``ingest.anonymous`` allows them."""

    def refusal(self, caller: Identity) -> str | None:
        """Why CALLER is not let in, as a sentence, or None."""
        if caller.service is not None:
            return None if self.services else f"this is not for services, and {caller.name} is one"
        if caller.via == "anonymous":
            return None if self.anonymous else "this is not for callers without a name"
        if not caller.may(self.role):
            return f"this takes the role {self.role}; {caller.name} has {caller.role}"
        return None
