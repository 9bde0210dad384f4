"""The listening sockets of this machine, for the security audit."""

import time
from pathlib import Path

from helmd.health.socket_table import SocketTable, socket_table
from helmd.model.security.listeners import OpenEnd

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL = range(32768, 61000)
_PAUSE = 1.2
"""Seconds after which most UDP sockets of clients, such as resolvers, are closed."""


def ephemeral_ports() -> range:
    """Return the range of ephemeral ports (ip(7), ip_local_port_range)."""
    try:
        first, last = _RANGE.read_text().split()
        return range(int(first), int(last) + 1)
    except (OSError, ValueError):
        return _USUAL


def lasting_sockets(uid: int, ephemeral: range) -> SocketTable:
    """Return the sockets that receive from others.

    A UDP socket on an ephemeral port may be that of a client waiting for a response: it counts if it still exists
    after a second.
    """

    def passing(end: OpenEnd) -> bool:
        return end.family in ("udp", "udplite") and end.port in ephemeral

    table = socket_table(uid)
    if any(map(passing, table.ends)):
        time.sleep(_PAUSE)
        later = set(socket_table(uid).ends)
        table.ends = [end for end in table.ends if not passing(end) or end in later]
    return table
