"""Listening sockets against what the configuration declares: who listens where, and whether it should."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from helmd.model.config.settings import Settings
from helmd.model.identity.realm import GATEWAY
from helmd.model.security.findings import SecurityFinding, SecuritySeverity, security_finding, shell_word
from helmd.model.suite.names import (
    HELM_SERVICE,
    HELM_UNITS,
    HELMD_UNIT,
    SOCKET_UNITS,
    service_of,
    unit_of,
)
from helmd.model.suite.service import Registry, Service

SocketFamily = Literal["tcp", "udp", "udplite", "sctp", "unix", "raw", "packet", "vsock", "other"]
MANAGER_SCOPE = "init.scope"
"""The unit of a user manager itself (systemd.special(7)), which makes the sockets that it listens on for helmd."""
_PORTS: tuple[SocketFamily, ...] = ("tcp", "udp", "udplite", "sctp")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class OpenEnd:
    """A socket that takes what others send, and whose it is.

    ``address`` is that of a port, the path of a unix socket (with ``@`` in front for an abstract one), or what else
    names it. ``uid`` and ``unit`` are None where they can't be known. ``manager`` is the uid of the user manager that
    the unit belongs to, None for the system manager's. ``shared`` of a unix socket: whether others may connect.
    """

    family: SocketFamily
    address: str
    port: int | None
    uid: int | None
    unit: str | None = None
    manager: int | None = None
    shared: bool = False

    @property
    def loopback(self) -> bool:
        return only_local(self.address)

    @property
    def place(self) -> str:
        """Its address, for display."""
        if self.port is None:
            return f"{self.family} {self.address}".rstrip()
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.family} {address}:{self.port}"


@dataclass(frozen=True, slots=True)
class DeclaredPort:
    """A TCP port that the configuration gives to a service. ``local``: it is to be reached from this machine only."""

    port: int
    service: str
    units: frozenset[str]
    local: bool
    encrypted: bool
    setting: str
    """The setting of its address, for display."""
    opens_others: bool = False
    """Whether the service's program also opens ports on the loopback address that the kernel chooses, as Keycloak's
    transaction manager does, which identifies its process by one.
    """


def only_local(host: str) -> bool:
    """Return whether only this machine reaches HOST, an address or a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def declared_ports(suite: Registry, settings: Settings) -> tuple[DeclaredPort, ...]:
    """Return the TCP ports of the suite and of Helm."""
    found = [_declared(service) for service in suite.services.values() if service.port and not service.external]
    helm_units = frozenset({HELMD_UNIT, MANAGER_SCOPE, *SOCKET_UNITS})
    found.append(
        DeclaredPort(
            settings.port, HELM_SERVICE, helm_units, only_local(settings.listen), False, "http.listen in helm.toml"
        )
    )
    return tuple(found)


def _declared(service: Service) -> DeclaredPort:
    url = urlsplit(service.url)
    local = service.name != GATEWAY and only_local(url.hostname or "localhost")
    unit = frozenset({unit_of(service.name)})
    encrypted = url.scheme == "https" or service.type == "postgres"
    setting = f"the configuration of {service.name}"
    others = service.type == "keycloak"
    return DeclaredPort(service.port or 0, service.name, unit, local, encrypted, setting, others)


def judge_sockets(
    sockets: Iterable[OpenEnd],
    declared: Sequence[DeclaredPort],
    uid: int,
    ephemeral: range,
    protected: Iterable[int] = (),
) -> Iterator[SecurityFinding]:
    """Yield what is wrong with SOCKETS in the eyes of the account UID. EPHEMERAL are ports that the kernel chooses
    itself; PROTECTED those that a firewall keeps other machines from.
    """
    ports = {each.port: each for each in declared}
    for each in sockets:
        own = suite_unit(each, uid)
        if each.family in _PORTS and each.port is not None:
            yield from _of_port(each, ports, uid, own, ephemeral, frozenset(protected))
        elif each.family == "unix":
            yield from _of_unix(each, own)
        elif own is not None or each.uid == uid:
            yield _of_rest(each, own)


def suite_unit(socket: OpenEnd, uid: int) -> str | None:
    """Return the service, or Helm's own unit, that SOCKET belongs to, or None for what is not of the suite of the
    account UID.
    """
    if socket.manager != uid or socket.unit is None:
        return None
    return service_of(socket.unit) or (HELM_SERVICE if socket.unit in SOCKET_UNITS else None)


def _of_port(
    socket: OpenEnd,
    ports: Mapping[int, DeclaredPort],
    uid: int,
    own: str | None,
    ephemeral: range,
    protected: frozenset[int],
) -> Iterator[SecurityFinding]:
    assert socket.port is not None
    wanted = ports.get(socket.port) if socket.family == "tcp" else None
    evidence = [f"{socket.place} is open, by {_holder(socket)}"]
    if wanted is not None and socket.manager == uid and socket.unit in wanted.units:
        yield from _of_declared(socket, wanted, evidence, protected)
        return
    if wanted is not None:
        yield security_finding(
            "foreign-listener",
            f"{wanted.service} port {wanted.port}",
            f"port {wanted.port} of {wanted.service} is taken by {_holder(socket)}",
            evidence,
            f"{_end(socket, uid)}; then: helmctl restart {wanted.service}",
        )
        return
    if (
        socket.loopback
        and socket.port in ephemeral
        and any(own == each.service and each.opens_others for each in ports.values())
    ):
        return
    number = "ephemeral port" if socket.port in ephemeral else str(socket.port)
    reach = "this machine" if socket.loopback else "other machines"
    if own is not None:
        severity: SecuritySeverity = "medium" if socket.loopback else "high"
        yield security_finding(
            "undeclared-listener",
            f"{own} {socket.family} {number} {'local' if socket.loopback else 'wide'}",
            f"{own} listens on a port that is not declared, and that {reach} can reach: {socket.place}",
            evidence,
            f"Have {own} not open it, or declare a service with that port in services.toml; helmctl restart {own}",
            severity,
        )
    elif socket.uid == uid and socket.unit != MANAGER_SCOPE:
        yield security_finding(
            "account-listener",
            f"{socket.family} {number} {'local' if socket.loopback else 'wide'}",
            f"a program of the account, but of no service, listens on {socket.place}, which {reach} can reach",
            evidence,
            _end(socket, uid),
            "low" if socket.loopback else "medium",
        )


def _of_declared(
    socket: OpenEnd, wanted: DeclaredPort, evidence: list[str], protected: frozenset[int]
) -> Iterator[SecurityFinding]:
    if socket.loopback:
        return
    guarded = wanted.port in protected
    more = ["the firewall keeps other machines from it"] if guarded else []
    subject = f"{wanted.service} port {wanted.port}"
    if wanted.local:
        yield security_finding(
            "wide-binding",
            subject,
            f"{wanted.service} is for this machine only, and listens on {socket.place}",
            [*evidence, f"{wanted.setting} says that it is local", *more],
            f"Have {wanted.service} bind to 127.0.0.1 (see {wanted.setting}), then: helmctl restart {wanted.service}",
            "medium" if guarded else None,
        )
    if not wanted.encrypted:
        yield security_finding(
            "cleartext-listener",
            subject,
            f"{wanted.service} listens on {socket.place} without TLS",
            [*evidence, *more],
            f"Let users reach it through the gateway, or a proxy with TLS, and bind it to 127.0.0.1 ({wanted.setting})",
            "medium" if guarded else None,
        )


def _of_unix(socket: OpenEnd, own: str | None) -> Iterator[SecurityFinding]:
    if own is None or socket.unit in (*HELM_UNITS, *SOCKET_UNITS):
        return
    abstract = socket.address.startswith("@")
    if not abstract and not socket.shared:
        return
    yield security_finding(
        "abstract-socket" if abstract else "shared-socket",
        f"{own} {_DIGITS.sub('#', socket.address)}",
        f"{own} listens on the unix socket {socket.address}, to which every account can connect",
        [f"{socket.place} is open, by {_holder(socket)}"],
        f"Have {own} use a socket below its own directory, mode 0600; then: helmctl restart {own}",
    )


def _of_rest(socket: OpenEnd, own: str | None) -> SecurityFinding:
    raw = socket.family in ("raw", "packet")
    who = own or "a program of the account"
    return security_finding(
        "raw-socket" if raw else "unusual-socket",
        f"{own or 'account'} {socket.family} {socket.address}".rstrip(),
        f"{who} has a socket of the family {socket.place}",
        [f"{socket.place} is open, by {_holder(socket)}"],
        "Find the program: sudo ss -a0wp; sudo ss -ap --vsock; take its capabilities (getcap) or stop it",
    )


def _holder(socket: OpenEnd) -> str:
    if socket.unit:
        manager = "" if socket.manager is None else f" of uid {socket.manager}"
        return f"{socket.unit}{manager}"
    return "a process that can't be inspected" if socket.uid is None else f"a process of uid {socket.uid}"


def _end(socket: OpenEnd, uid: int) -> str:
    if socket.unit and socket.unit.endswith((".service", ".scope", ".socket")) and socket.unit != MANAGER_SCOPE:
        user = "systemctl --user" if socket.manager == uid else "sudo systemctl"
        return f"{user} stop {shell_word(socket.unit)}"
    return f"Find the process and end it: sudo ss -lnp | grep :{socket.port}"
