"""Bodies about the security audit."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from helmd.model.json_fields import described

DEFAULT_AUDIT_AGE = 300
"""Seconds that the last audit may be old by default."""
_SEVERITIES = ["low", "medium", "high", "critical"]
_SERVICE = described("the service", example="core")
_PORT = described("the TCP port", example=5000)
_BINDING = described("the address on which it listens", example="127.0.0.1")
_ISSUE = described("what is wrong, as a sentence")


@dataclass(frozen=True, slots=True)
class SecurityAuditQuery:
    """How new the audit must be."""

    max_age: int = field(
        default=DEFAULT_AUDIT_AGE,
        metadata=described("seconds that the last audit may be old; 0 for a new one", minimum=0, maximum=10**18 - 1),
    )


@dataclass(frozen=True, slots=True)
class AcceptFindingRequest:
    """That a finding is known, and is not to count until some time."""

    reason: str = field(
        metadata=described("why; shown with the finding", example="behind a VPN", maxLength=500, minLength=1)
    )
    until: datetime = field(metadata=described("until when; at most 366 days ahead", example="2026-12-31T00:00:00Z"))


@dataclass(frozen=True, slots=True)
class AcceptedFinding:
    """An acceptance of a finding."""

    id: str = field(metadata=described("the finding's id", example="wide-binding-5c2ff0a911"))
    reason: str = field(metadata=described("why it was accepted"))
    until: datetime = field(metadata=described("until when"))
    accepted_at: datetime = field(metadata=described("since when"))
    accepted_by: str = field(metadata=described("who accepted it", example="hive"))


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something that is exposed and should not be."""

    id: str = field(
        metadata=described("the same in every audit, for the same fault", example="wide-binding-5c2ff0a911")
    )
    kind: str = field(metadata=described("its kind", example="wide-binding"))
    subject: str = field(metadata=described("what it is about", example="core port 5000"))
    severity: Literal["low", "medium", "high", "critical"] = field(metadata=described("how bad it is"))
    sentence: str = field(metadata=described("what is wrong"))
    evidence: tuple[str, ...] = field(metadata=described("what shows it"))
    why: str = field(metadata=described("why it matters"))
    fix: str = field(metadata=described("a command, or an instruction, that ends it"))
    accepted: AcceptedFinding | None = field(metadata=described("null unless somebody has accepted it until later"))


@dataclass(frozen=True, slots=True)
class AuditListener:
    """A port on which something listens."""

    family: str = field(metadata=described("tcp, udp, udplite or sctp", example="tcp"))
    address: str = field(metadata=_BINDING)
    port: int = field(metadata=described("the port", example=5000))
    unit: str | None = field(metadata=described("the unit that it belongs to; null where that can't be known"))
    service: str | None = field(metadata=described("the service of the suite; null for others", example="core"))
    declared: bool = field(metadata=described("whether the configuration gives this port to that service"))


@dataclass(frozen=True, slots=True)
class BoundService:
    """A service that listens where it should."""

    service: str = field(metadata=_SERVICE)
    port: int = field(metadata=_PORT)
    binding: str = field(metadata=_BINDING)
    status: str = field(
        metadata=described("secure, or protected where a firewall keeps others from it", example="secure")
    )


@dataclass(frozen=True, slots=True)
class BindingIssue:
    """A service that listens where it should not."""

    service: str = field(metadata=_SERVICE)
    port: int = field(metadata=_PORT)
    binding: str = field(metadata=_BINDING)
    status: str = field(metadata=described("what it needs", example="NEEDS FIREWALL"))
    severity: str = field(metadata=described("how bad it is", enum=_SEVERITIES))
    issue: str = field(metadata=_ISSUE)


@dataclass(frozen=True, slots=True)
class ServiceNotListening:
    """A service whose port nobody listens on."""

    service: str = field(metadata=_SERVICE)
    port: int = field(metadata=_PORT)
    status: str = field(metadata=described("not running", example="not running"))


@dataclass(frozen=True, slots=True)
class FirewallStatus:
    """The firewall of the machine."""

    active: bool | None = field(metadata=described("whether it filters; null where that can't be known"))
    type: str | None = field(metadata=described("ufw, nftables or iptables; null for none", example="nftables"))
    protected_ports: tuple[int, ...] = field(metadata=described("ports of the suite that it keeps others from"))


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """How many findings there are that nobody has accepted, by severity."""

    critical: int = field(metadata=described("findings", minimum=0))
    high: int = field(metadata=described("findings", minimum=0))
    medium: int = field(metadata=described("findings", minimum=0))
    low: int = field(metadata=described("findings", minimum=0))
    accepted: int = field(metadata=described("findings that are accepted at present", minimum=0))


@dataclass(frozen=True, slots=True)
class SecurityAuditReply:
    """The security audit."""

    checked_at: datetime = field(metadata=described("when it was made"))
    seconds: float = field(metadata=described("how long that took", minimum=0))
    summary: AuditSummary = field(metadata=described("counts of findings"))
    severity: str | None = field(metadata=described("the worst that nobody has accepted; null for none"))
    secure_services: tuple[BoundService, ...] = field(metadata=described("services that listen where they should"))
    exposed_services: tuple[BindingIssue, ...] = field(
        metadata=described("services that other machines reach and should not, or without TLS")
    )
    firewall_required: tuple[BindingIssue, ...] = field(
        metadata=described("of these, those that a firewall could protect and none is known to")
    )
    firewall_protected: tuple[BoundService, ...] = field(
        metadata=described("services that listen for other machines, which a firewall keeps out")
    )
    unknown_services: tuple[BindingIssue, ...] = field(metadata=described("services whose port is another program's"))
    not_running: tuple[ServiceNotListening, ...] = field(metadata=described("services whose port nobody listens on"))
    firewall_status: FirewallStatus = field(metadata=described("the firewall"))
    recommendations: tuple[str, ...] = field(metadata=described("what to do, the most urgent first"))
    findings: tuple[AuditFinding, ...] = field(metadata=described("all of them, the worst first"))
    listeners: tuple[AuditListener, ...] = field(metadata=described("who listens on which port of this machine"))
    unchecked: tuple[str, ...] = field(metadata=described("what could not be checked, and why"))
