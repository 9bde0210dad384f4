"""The audit's reply: findings with what accepts them, and every port with its service."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from helmd.model.api.security import (
    AcceptedFinding,
    AuditFinding,
    AuditListener,
    AuditSummary,
    BindingIssue,
    BoundService,
    FirewallStatus,
    SecurityAuditReply,
    ServiceNotListening,
)
from helmd.model.security.acceptance import Acceptance, accepted
from helmd.model.security.findings import SEVERITIES, SecurityFinding, by_severity, worst_severity
from helmd.model.security.firewall_state import FirewallState
from helmd.model.security.listeners import DeclaredPort, OpenEnd, suite_unit


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """What an audit has found, apart from who accepts it."""

    checked_at: datetime
    seconds: float
    findings: Sequence[SecurityFinding]
    sockets: Sequence[OpenEnd] = ()
    declared: Sequence[DeclaredPort] = ()
    firewall: FirewallStatus = field(default_factory=lambda: FirewallStatus(None, None, ()))
    unchecked: Sequence[str] = ()


def audit_reply(facts: AuditFacts, uid: int) -> SecurityAuditReply:
    """Return the reply about what was found for the account UID, without acceptances."""
    bindings = _bindings(facts, uid)
    findings = tuple(_shown(finding, None) for finding in by_severity(facts.findings))
    return SecurityAuditReply(
        checked_at=facts.checked_at,
        seconds=round(facts.seconds, 2),
        summary=_summary(findings),
        severity=worst_severity(each.severity for each in findings),
        secure_services=tuple(bindings.secure),
        exposed_services=tuple(bindings.exposed),
        firewall_required=tuple(bindings.required),
        firewall_protected=tuple(bindings.protected),
        unknown_services=tuple(bindings.unknown),
        not_running=tuple(bindings.absent),
        firewall_status=facts.firewall,
        recommendations=_recommendations(findings),
        findings=findings,
        listeners=tuple(_listeners(facts, uid)),
        unchecked=tuple(facts.unchecked),
    )


def firewall_status(ports: Iterable[int], state: FirewallState) -> FirewallStatus:
    """Return whether a firewall filters, and which TCP PORTS it keeps others from, all or most of them."""
    if state.unknown:
        return FirewallStatus(None, None, ())
    kept = sorted({port for port in ports if state.reach(port) in ("closed", "limited")})
    return FirewallStatus(state.active, state.kind or None, tuple(kept))


def with_acceptances(reply: SecurityAuditReply, in_force: Mapping[str, Acceptance]) -> SecurityAuditReply:
    """Return REPLY with the acceptances that are IN_FORCE, instead of those that it has."""
    known = [finding_of(each) for each in reply.findings]
    findings = tuple(_shown(finding, accepted(finding, in_force)) for finding in known)
    return replace(
        reply,
        findings=findings,
        summary=_summary(findings),
        severity=worst_severity(each.severity for each in findings if each.accepted is None),
        recommendations=_recommendations(findings),
    )


def finding_of(shown: AuditFinding) -> SecurityFinding:
    """Return the finding that is SHOWN."""
    return SecurityFinding(shown.kind, shown.subject, shown.severity, shown.sentence, tuple(shown.evidence), shown.fix)


def _summary(findings: Sequence[AuditFinding]) -> AuditSummary:
    open_ones = [each.severity for each in findings if each.accepted is None]
    counts = {name: open_ones.count(name) for name in SEVERITIES}
    return AuditSummary(**counts, accepted=len(findings) - len(open_ones))


def _recommendations(findings: Sequence[AuditFinding]) -> tuple[str, ...]:
    return tuple(f"{each.sentence}: {each.fix}" for each in findings if each.accepted is None)


def accepted_finding(acceptance: Acceptance) -> AcceptedFinding:
    """Return ACCEPTANCE as a body."""
    return AcceptedFinding(
        id=acceptance.id,
        reason=acceptance.reason,
        until=acceptance.until,
        accepted_at=acceptance.accepted_at,
        accepted_by=acceptance.accepted_by,
    )


def _shown(finding: SecurityFinding, by: Acceptance | None) -> AuditFinding:
    return AuditFinding(
        id=finding.id,
        kind=finding.kind,
        subject=finding.subject,
        severity=finding.severity,
        sentence=finding.sentence,
        evidence=finding.evidence,
        why=finding.why,
        fix=finding.fix,
        accepted=None if by is None else accepted_finding(by),
    )


@dataclass(slots=True)
class _Bindings:
    secure: list[BoundService] = field(default_factory=list)
    exposed: list[BindingIssue] = field(default_factory=list)
    required: list[BindingIssue] = field(default_factory=list)
    protected: list[BoundService] = field(default_factory=list)
    unknown: list[BindingIssue] = field(default_factory=list)
    absent: list[ServiceNotListening] = field(default_factory=list)


def _bindings(facts: AuditFacts, uid: int) -> _Bindings:
    found = _Bindings()
    for wanted in facts.declared:
        there = [each for each in facts.sockets if each.family == "tcp" and each.port == wanted.port]
        own = [each for each in there if each.manager == uid and each.unit in wanted.units]
        name, port = wanted.service, wanted.port
        for each in there:
            if each not in own:
                issue = f"port {port} of {name} is another program's"
                found.unknown.append(BindingIssue(name, port, each.address, "NOT THE SERVICE", "high", issue))
        if not own:
            found.absent.append(ServiceNotListening(name, port, "not running"))
            continue
        binding = ", ".join(dict.fromkeys(each.address for each in own))
        if all(each.loopback for each in own) or (not wanted.local and wanted.encrypted):
            found.secure.append(BoundService(name, port, binding, "secure"))
        elif port in facts.firewall.protected_ports:
            found.protected.append(BoundService(name, port, binding, "protected"))
        else:
            why = "must be protected by a firewall, or bound to 127.0.0.1" if wanted.local else "has no TLS"
            issue = f"{name} listens on {binding}: it {why}"
            made = BindingIssue(name, port, binding, "NEEDS FIREWALL", "high", issue)
            found.exposed.append(made)
            found.required.append(made)
    return found


def _listeners(facts: AuditFacts, uid: int) -> Iterable[AuditListener]:
    ports = {each.port: each for each in facts.declared}
    known = {
        AuditListener(
            each.family, each.address, each.port, each.unit, _service(each, ports, uid), _declared(each, ports, uid)
        )
        for each in facts.sockets
        if each.port is not None
    }
    return sorted(known, key=lambda each: (each.port, each.family, each.address, each.unit or ""))


def _service(socket: OpenEnd, ports: Mapping[int, DeclaredPort], uid: int) -> str | None:
    if _declared(socket, ports, uid):
        return ports[socket.port or 0].service
    return suite_unit(socket, uid)


def _declared(socket: OpenEnd, ports: Mapping[int, DeclaredPort], uid: int) -> bool:
    wanted = ports.get(socket.port or 0) if socket.family == "tcp" else None
    return wanted is not None and socket.manager == uid and socket.unit in wanted.units
