"""Connections to Core and Keycloak, which are verified to end at the unit of that service before use.

Any service can listen on the port of a stopped one; it would receive tokens and codes, and could return its own keys.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from helmd.model.identity.peer import Peer, Place
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry

Locate = Callable[[socket.socket], Peer]

_PAUSES = (0.0, 0.1, 0.5)
"""Delays in seconds before attempts to identify the peer: the server of a kept connection may just have ended, and on a
busy machine the kernel may not have processed the last packet of the handshake yet."""


class WrongServerError(aiohttp.ClientConnectionError):
    """Another process listens on the port of the service."""


def units_by_port(registry: Registry) -> Mapping[int, str]:
    """Return the units of the suite's own services by the port on which each listens."""
    own = [service for service in registry.services.values() if not service.external]
    return {service.port: unit_of(service.name) for service in own if service.port is not None}


def server_refusal(peer: Peer, port: int, unit: str) -> str | None:
    """Return why PEER, found on PORT, is not accepted as UNIT, or None if it is that unit."""
    if peer.place is Place.ELSEWHERE or (peer.place is Place.HERE and peer.owned and peer.unit == unit):
        return None
    found = peer.unit or "a process that can't be determined"
    return f"port {port} is taken by {found}, not by {unit}; nothing was sent there"


class CheckedConnector(aiohttp.TCPConnector):
    """Identifies the peer of each connection to a port in ``units``, by LOCATE, before it is used."""

    def __init__(self, locate: Locate | None) -> None:
        super().__init__()
        self._locate = locate
        self.units: Mapping[int, str] = {}

    async def connect(self, *given: Any, **named: Any) -> Any:
        """As in aiohttp. Raises WrongServerError."""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            connection = await super().connect(*given, **named)
            peer, refusal = self._look(connection)
            if refusal is None:
                return connection
            connection.close()
            if peer.place is not Place.UNKNOWN:
                break
        raise WrongServerError(refusal)

    def _look(self, connection: Any) -> tuple[Peer, str | None]:
        """Return the peer, and why it is refused, or None, also for a connection that needs no check."""
        made = None if connection.transport is None else connection.transport.get_extra_info("socket")
        nobody = Peer(Place.UNKNOWN, "")
        if self._locate is None or made is None:
            return nobody, None
        try:
            port = made.getpeername()[1]
        except OSError:
            # It has ended; using it will fail.
            return nobody, None
        if (unit := self.units.get(port)) is None:
            return nobody, None
        peer = self._locate(made)
        return peer, server_refusal(peer, port, unit)
