"""Which unit of this host is at the other end of a TCP connection.

The kernel notes with each socket the control group of the process that made it, which stays the same when the process
moves, ends, or passes the socket on. So a service cannot pass off its own connection as another unit's.
"""

import errno
import os
import socket
import struct
from collections import OrderedDict
from ipaddress import ip_address
from typing import NamedTuple

from helmd.health.control_group import control_group_of, every_control_group
from helmd.health.listeners import open_sockets
from helmd.health.sock_diag import (
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT1,
    FIN_WAIT2,
    LAST_ACK,
    TcpSocket,
    address_text,
    socket_between,
)
from helmd.model.identity.group_unit import unit_of_group
from helmd.model.identity.peer import Peer, Place

_CONNECTED = frozenset({ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING})
"""Not SYN_SENT: a process may use the same ends again before this side of the connection that it closed is gone."""
_MAX_KNOWN = 4096
_CREDENTIALS = struct.Struct("3i")
"""A ``struct ucred``."""


class PeerCredentials(NamedTuple):
    """Of the process at the other end of a unix socket, when it connected (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int


def peer_credentials(connection: socket.socket) -> PeerCredentials | None:
    """Return who connected, or None for a connection that is not a unix socket's. Raises OSError."""
    if connection.family != socket.AF_UNIX:
        return None
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return PeerCredentials(pid, uid)


class Peers:
    """Finds the peers of connections of an account's daemon. UID is the account's."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        # A number is never used for another control group, so a path stays true.
        self._paths: OrderedDict[int, str] = OrderedDict()

    def peer(self, connection: socket.socket) -> Peer:
        """Return the other end of an accepted connection.

        Of a unix socket it is what the process is in now, not proved.
        """
        try:
            if (credentials := peer_credentials(connection)) is not None:
                return self._in_group(control_group_of(credentials.pid), "")
            remote, local = connection.getpeername(), connection.getsockname()
        except OSError:
            return Peer(Place.UNKNOWN, "")
        address = _plain(remote[0])
        interface = remote[3] if len(remote) > 3 else 0
        try:
            found = socket_between(remote[0], remote[1], local[0], local[1], interface)
        except OSError:
            return Peer(Place.UNKNOWN, address)
        if found is None:
            return Peer(Place.UNKNOWN if _is_own(remote[0], interface) else Place.ELSEWHERE, address)
        return self._in_group(self._group(found), address)

    def _in_group(self, path: str | None, address: str) -> Peer:
        unit = None if path is None else unit_of_group(path)
        if unit is None:
            return Peer(Place.UNKNOWN, address)
        return Peer(Place.HERE, address, unit.unit, unit.manager == self._uid)

    def _group(self, found: TcpSocket) -> str | None:
        if found.state not in _CONNECTED:
            return None
        path = None if found.control_group is None else self._path(found.control_group)
        # Kernels before 5.9 don't say; those before 5.15 say the root for all once net_cls or net_prio is in use.
        if found.control_group is None or path == "/":
            return _path_by_processes(found.inode)
        return path

    def _path(self, number: int) -> str | None:
        """Return the path of a control group, relative to the root, or None if it is gone, or outside this cgroup
        namespace.
        """
        if number not in self._paths:
            for path, inode in every_control_group():
                if inode == number:
                    self._paths[number] = path
                    break
            else:
                return None
        self._paths.move_to_end(number)
        if len(self._paths) > _MAX_KNOWN:
            self._paths.popitem(last=False)
        return self._paths[number]


def _path_by_processes(inode: int) -> str | None:
    """Return the control group of the processes that have a socket open, or None if there is none, or not one alone.

    Processes whose files this one may not read are not seen.
    """
    paths = set()
    for entry in os.listdir("/proc") if inode else ():
        if entry.isdecimal() and str(inode) in open_sockets(entry):
            paths.add(control_group_of(entry))
    return paths.pop() if len(paths) == 1 else None


def _plain(address: str) -> str:
    """ADDRESS, of an IPv6 address that stands for an IPv4 one that, without its zone."""
    bare = address.partition("%")[0]
    return address_text(ip_address(bare).packed)


def _is_own(address: str, interface: int) -> bool:
    """Return whether ADDRESS is one of this host's, which only such can be bound to (``net.ipv4.ip_nonlocal_bind``
    aside).
    """
    bare = _plain(address)
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    end = (bare, 0, 0, interface) if family == socket.AF_INET6 else (bare, 0)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as tried:
            tried.bind(end)
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
