"""What a caller may be, and what that covers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The least that a route asks of its caller; all but PUBLIC are also what a caller can be."""

    PUBLIC = "public"
    """No credential is asked for."""
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
    """Who calls. ``name`` is the account or user, ``via`` how that is known ("socket")."""

    name: str
    role: Role
    via: str

    def may(self, asked: Role) -> bool:
        """Whether a route that asks for this role is open to the caller."""
        return asked in _COVERS[self.role]
