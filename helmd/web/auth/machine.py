"""Machine tokens as credentials: those that Helm itself issued (`helmd.operations.identity.tokens`)."""

import asyncio

from helmd.model.identity.machine_token import TOKEN_PREFIX
from helmd.operations.identity.tokens import TokenStore
from helmd.web.auth.roles import Identity, Role
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.tokens import BadTokenError


def is_machine_token(token: str) -> bool:
    """Return whether TOKEN claims to be one."""
    return token.startswith(TOKEN_PREFIX)


def machine_identity(token: str, store: TokenStore, single_flight: SingleFlight) -> Identity:
    """Return the caller with the machine token TOKEN. Raises BadTokenError."""
    found = store.find(token)
    if found is None:
        raise BadTokenError("the machine token is not valid, has expired, or was revoked")
    if store.unsaved:
        single_flight.start("token uses", lambda: asyncio.to_thread(store.save_uses))
    services = None if found.services is None else frozenset(found.services)
    name = f"machine:{found.name}"
    return Identity(
        name, Role(found.role), "machine", services=services, session=found.id, expires=found.expires_at.timestamp()
    )
