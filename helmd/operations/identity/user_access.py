"""Access to the users of the suite's realm as Helm's own client, for helmctl and for requests to helmd."""

from collections.abc import Callable
from dataclasses import replace

from helmd.keycloak.admin.api import Session
from helmd.model.config.settings import Settings
from helmd.model.identity.realm import wanted_realm
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.identity.access import own_secret, own_session
from helmd.operations.identity.keycloak import refuse_while_upgrading
from helmd.operations.identity.server import keycloak_unit, listening_server
from helmd.operations.identity.user_index import UserIndex
from helmd.operations.identity.users import Confirm, Users
from helmd.systemd.bus import Manager

REQUEST_SECONDS = 10.0
"""Timeout in seconds of a request to Keycloak."""
_CONFIGURED = Callable[[], tuple[Registry, Settings]]


def no_confirmation(what: str) -> None:
    """Confirm any change: the account itself may change admins."""


class UserAccess:
    """Users of the realm of the suite that CONFIGURED returns; a session is used as long as Keycloak accepts it.
    Blocks.

    CONNECT opens a connection to the user manager, by which Keycloak is verified to be the listener.
    """

    def __init__(self, layout: Layout, configured: _CONFIGURED, connect: Callable[[], Manager] = Manager) -> None:
        self._layout, self._configured, self._connect = layout, configured, connect
        self._known: tuple[object, Session] | None = None
        self.index = UserIndex()

    def users(self, confirm: Confirm = no_confirmation) -> Users:
        """Return the users, for one operation.

        Raises KeycloakError with what to do, KeycloakAwayError while it is unavailable.
        """
        registry, settings = self._configured()
        keycloak = keycloak_unit(registry)
        refuse_while_upgrading(self._layout)
        with self._connect() as manager:
            server = replace(listening_server(keycloak, manager), timeout=REQUEST_SECONDS)
        wanted = wanted_realm(keycloak.service, registry, settings)
        place = (server, wanted.name, own_secret(self._layout))
        known = self._known
        if known is None or known[0] != place:
            known = self._known = place, own_session(server, self._layout, wanted)
        return Users(known[1], wanted.name, self._layout.user_lock, confirm)
