"""Who listens where on this machine, for the security audit."""

import time
from pathlib import Path

from helmd.health.socket_table import SocketTable, socket_table
from helmd.model.security.listeners import OpenEnd

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL = range(32768, 61000)
_PAUSE = 1.2
"""Seconds after which a client's UDP socket, such as that of a look-up of a name, is mostly gone."""


def ephemeral_ports() -> range:
    """Return the ports that the kernel chooses for sockets that ask for none."""
    try:
        first, last = _RANGE.read_text().split()
        return range(int(first), int(last) + 1)
    except (OSError, ValueError):
        return _USUAL


def lasting_sockets(uid: int, ephemeral: range) -> SocketTable:
    """Return the sockets that take what others send.

    One of UDP on a port that the kernel chose may be a client's that waits for an answer: it counts if it is still
    there after a second.
    """

    def passing(end: OpenEnd) -> bool:
        return end.family in ("udp", "udplite") and end.port in ephemeral

    table = socket_table(uid)
    if any(map(passing, table.ends)):
        time.sleep(_PAUSE)
        later = set(socket_table(uid).ends)
        table.ends = [end for end in table.ends if not passing(end) or end in later]
    return table
