"""What the firewall of this machine lets others reach, as Helm's service for that reports it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Reach = Literal["open", "limited", "closed", "unknown"]
"""Whether others can connect to a port: limited is from some addresses or interfaces only."""
Ranges = tuple[tuple[int, int], ...]
"""Ranges of ports, each with its first and last one."""

EVERY_PORT: Ranges = ((1, 65535),)
_LONGEST_LIST = 65536


@dataclass(frozen=True, slots=True)
class ReachablePorts:
    """TCP ports that others can connect to over IPv4, or over IPv6: all ``opened``, some of them ``limited``."""

    opened: Ranges = ()
    limited: Ranges = ()

    def reach(self, port: int) -> Reach:
        """Return whether others can connect to PORT."""
        if _holds(self.opened, port):
            return "open"
        return "limited" if _holds(self.limited, port) else "closed"


@dataclass(frozen=True, slots=True)
class FirewallState:
    """``unknown`` says why the rest is not known; empty when it is.

    ``kind`` is what made the rules: ufw, firewalld, nftables or iptables; empty for none. ``active`` says whether any
    port is closed to anybody, ``policy`` accept or drop, the verdict on
    connections to most ports.
    """

    unknown: str = ""
    kind: str = ""
    active: bool = False
    policy: str = ""
    ipv4: ReachablePorts = ReachablePorts()
    ipv6: ReachablePorts = ReachablePorts()

    def reach(self, port: int, ipv4: bool = True, ipv6: bool = True) -> Reach:
        """Return whether others can connect to a TCP port on which something listens, by the more open one of the
        protocols that are asked for.

        What a container engine passes on by rules of its own, the firewall never sees.
        """
        if self.unknown:
            return "unknown"
        found = {self.ipv4.reach(port)} if ipv4 else set()
        found |= {self.ipv6.reach(port)} if ipv6 else set()
        return "open" if "open" in found else "limited" if "limited" in found else "closed"

    @property
    def document(self) -> dict[str, Any]:
        """As JSON, for `firewall_state_of`."""

        def ports(found: ReachablePorts) -> dict[str, Any]:
            return {"open": [list(each) for each in found.opened], "limited": [list(each) for each in found.limited]}

        return {
            "unknown": self.unknown,
            "kind": self.kind,
            "active": self.active,
            "policy": self.policy,
            "ipv4": ports(self.ipv4),
            "ipv6": ports(self.ipv6),
        }


def _holds(ranges: Ranges, port: int) -> bool:
    return any(first <= port <= last for first, last in ranges)


def firewall_state_of(reply: bytes) -> FirewallState:
    """Return what the service's REPLY says; unknown for a reply that it would not give."""
    try:
        found = json.loads(reply)
        return FirewallState(
            _text(found["unknown"]),
            _text(found["kind"]),
            found["active"] is True,
            _text(found["policy"]),
            _ports(found["ipv4"]),
            _ports(found["ipv6"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return FirewallState("the reply of hivematrix-firewall.socket can't be read")


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError
    return given


def _ports(given: Any) -> ReachablePorts:
    return ReachablePorts(_ranges(given["open"]), _ranges(given["limited"]))


def _ranges(given: Sequence[Any]) -> Ranges:
    if not isinstance(given, list) or len(given) > _LONGEST_LIST:
        raise TypeError
    return tuple((int(first), int(last)) for first, last in given)
