"""The firewall that Helm proposes: which ports others may reach, and which of the suite's they may not."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Literal, get_args

from helmd.model.errors import UsageError
from helmd.model.identity.realm import GATEWAY
from helmd.model.printable import printable
from helmd.model.suite.names import HELM_SERVICE
from helmd.model.suite.service import Registry

FirewallKind = Literal["ufw", "iptables", "nftables"]
FIREWALL_KINDS: tuple[FirewallKind, ...] = get_args(FirewallKind)
Protocol = Literal["tcp", "udp"]

_PORT = re.compile(r"([1-9][0-9]{0,4})(?:/(tcp|udp))?\Z", re.ASCII)
_MOST_NETWORKS = 100


@dataclass(frozen=True, slots=True)
class FirewallPort:
    """A port and whose it is. SERVICE is a name from outside: what makes a script of it has to quote it."""

    port: int
    protocol: Protocol
    service: str


@dataclass(frozen=True, slots=True)
class FirewallPlan:
    """What others may reach, besides SSH: the script looks for the ports of SSH when it runs.

    ``networks`` are those from which ``opened`` may be reached, all if there are none. SSH is not confined to them.
    ``closed`` are the other ports of the suite.
    """

    opened: tuple[FirewallPort, ...]
    closed: tuple[FirewallPort, ...]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


def firewall_plan(
    registry: Registry, helm_port: int, opened: Iterable[str] = (), networks: Sequence[str] = ()
) -> FirewallPlan:
    """Return the plan for the suite in REGISTRY, whose gateway is reached by others.

    OPENED are more services, by name, and more ports (8443, 51820/udp); NETWORKS are addresses with a prefix length.
    Whether a service listens on other addresses than those of loopback does not matter: what is not opened is closed.
    Raises UsageError.
    """
    declared = {
        name: FirewallPort(each.port, "tcp", name)
        for name, each in registry.services.items()
        if each.port is not None and not each.external
    }
    declared[HELM_SERVICE] = FirewallPort(helm_port, "tcp", HELM_SERVICE)
    wanted = [declared[GATEWAY]] if GATEWAY in declared else []
    wanted += [_opened(word, declared) for word in opened]
    by_port = {(each.port, each.protocol): each for each in reversed(wanted)}
    closed = [each for each in declared.values() if (each.port, each.protocol) not in by_port]
    return FirewallPlan(
        tuple(sorted(by_port.values(), key=_order)), tuple(sorted(closed, key=_order)), firewall_networks(networks)
    )


def _order(port: FirewallPort) -> tuple[int, str]:
    return port.port, port.protocol


def _opened(word: str, declared: dict[str, FirewallPort]) -> FirewallPort:
    """Return what the WORD after --open means. Raises UsageError."""
    if word in declared:
        return declared[word]
    found = _PORT.match(word)
    if found is None:
        raise UsageError(
            f"'{printable(word, 60)}' is neither a service with a port, nor a port such as 8443 or 51820/udp",
            hint="List the services: helmctl status",
        )
    port, protocol = int(found[1]), found[2]
    if port > 65535:
        raise UsageError(f"{port} is not a port: the highest is 65535")
    for each in declared.values():
        if (each.port, "tcp") == (port, protocol or "tcp"):
            return each
    return FirewallPort(port, "udp" if protocol == "udp" else "tcp", "by-request")


def firewall_networks(words: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks that WORDS are, without those that lie in others. Raises UsageError."""
    four: list[IPv4Network] = []
    six: list[IPv6Network] = []
    if len(words) > _MOST_NETWORKS:
        raise UsageError(f"{len(words)} networks are too many: at most {_MOST_NETWORKS}")
    for word in words:
        try:
            network = ip_network(word)
        except ValueError as error:
            raise UsageError(
                f"'{printable(word, 60)}' is not a network: {printable(str(error), 120)}",
                hint="Give an address with the length of its prefix: 192.168.1.0/24, 2001:db8::/48",
            ) from None
        if isinstance(network, IPv4Network):
            four.append(network)
        else:
            six.append(network)
    return (*collapse_addresses(four), *collapse_addresses(six))
