"""Credentials of the peer of a connection, for packages that may not import `helmd.health`."""

import socket

from helmd.health.peers import peer_credentials


def peer_uid(connection: socket.socket) -> int | None:
    """Return the uid of the process that connected over a unix socket, or None for any other connection.

    Raises OSError.
    """
    found = peer_credentials(connection)
    return None if found is None else found.uid
