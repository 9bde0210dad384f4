"""Ports on which the account may not listen (ip_unprivileged_port_start in ip(7))."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_LOWEST = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_DROP_IN = "/etc/sysctl.d/50-hivematrix-ports.conf"


class PrivilegedPort(NamedTuple):
    """A port that only root may use. ``fix`` is a command that allows it to this account."""

    port: int
    sentence: str
    fix: str


def privileged_ports(wanted: Iterable[tuple[int, str]]) -> Iterator[PrivilegedPort]:
    """Yield those of the WANTED ports, each with the unit that is to listen on it, that only root may use."""
    lowest = int(_LOWEST.read_text())
    for port, unit in wanted:
        if port < lowest:
            sentence = f"{unit} may not listen on port {port}: unprivileged ports must be >= {lowest}"
            write = f"echo net.ipv4.ip_unprivileged_port_start={port} | sudo tee {_DROP_IN}"
            yield PrivilegedPort(port, sentence, f"{write}; sudo sysctl --system")
