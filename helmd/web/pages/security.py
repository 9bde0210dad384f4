"""The page about security: findings of the audit, ports against what is declared, and the firewall."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from aiohttp import web

from helmd.model.api.security import DEFAULT_AUDIT_AGE, AuditFinding, AuditListener, FirewallStatus, SecurityAuditReply
from helmd.model.counted import counted
from helmd.model.errors import HelmError
from helmd.model.security.acceptance import LONGEST_ACCEPTANCE, MAX_ACCEPTANCE_REASON
from helmd.model.security.firewall import FIREWALL_KINDS
from helmd.model.security.listeners import only_local
from helmd.operations.security.latest import LatestAudit
from helmd.web.pages.error_words import Remedy, remedy_of
from helmd.web.pages.rendering import Renderer

FindingTone = Literal["ok", "info", "warn", "error", "off"]

LOOKS: Mapping[str, tuple[FindingTone, str]] = {
    "critical": ("error", "shield-alert"),
    "high": ("error", "circle-x"),
    "medium": ("warn", "triangle-alert"),
    "low": ("info", "info"),
}
"""By the severity of a finding: its colour and its icon."""
_WEIGHTS: Mapping[str, int] = {"critical": 40, "high": 15, "medium": 5, "low": 1}


@dataclass(frozen=True, slots=True)
class ShownFinding:
    """A finding as the page shows it, and what ends it."""

    finding: AuditFinding
    sentence: str
    tone: FindingTone
    icon: str
    fix: Remedy


@dataclass(frozen=True, slots=True)
class PortRow:
    """A port of a unit, with everything that listens on it. ``reach`` is who can connect."""

    port: int
    family: str
    addresses: str
    unit: str
    service: str
    tone: FindingTone
    icon: str
    verdict: str
    reach: str
    group: str
    """``wrong``, ``suite`` or ``other``: what the page is filtered by."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its colour and icon."""

    tone: FindingTone
    icon: str
    text: str


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """What the template is given. ``own_url`` is where Helm is reached without the gateway."""

    audit: SecurityAuditReply | None
    running: bool
    failure: HelmError | None
    headline: Sentence
    score: int | None
    open_findings: Sequence[ShownFinding]
    accepted_findings: Sequence[ShownFinding]
    ports: Sequence[PortRow]
    wrong_ports: int
    firewall: Sentence | None
    own_url: str
    log_in: str
    kinds: Sequence[str] = ("nftables", *(kind for kind in FIREWALL_KINDS if kind != "nftables"))
    longest_days: int = LONGEST_ACCEPTANCE.days
    longest_reason: int = MAX_ACCEPTANCE_REASON


class SecurityPage:
    """The handler. URL gives the address at which browsers reach helmd."""

    def __init__(self, audit: LatestAudit, url: Callable[[], str], renderer: Renderer) -> None:
        self._audit = audit
        self._url = url
        self._renderer = renderer

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /security"""
        seen = await self._audit.glance(DEFAULT_AUDIT_AGE)
        own_url = f"{self._url().rstrip('/')}/helm/security"
        context = security_context(seen.report, own_url, running=seen.running, failure=seen.failure)
        return self._renderer.show(request, "security.html", context)


def security_context(
    audit: SecurityAuditReply | None, own_url: str, *, running: bool = False, failure: HelmError | None = None
) -> SecurityContext:
    """Return what the page shows of AUDIT, or None before the first one has ended."""
    shown = [] if audit is None else list(map(_shown, audit.findings))
    ports = () if audit is None else tuple(port_rows(audit))
    return SecurityContext(
        audit=audit,
        running=running,
        failure=failure,
        headline=audit_headline(audit, failure),
        score=None if audit is None else score(audit),
        open_findings=[each for each in shown if each.finding.accepted is None],
        accepted_findings=[each for each in shown if each.finding.accepted is not None],
        ports=ports,
        wrong_ports=sum(each.group == "wrong" for each in ports),
        firewall=None if audit is None else firewall_sentence(audit.firewall_status),
        own_url=own_url,
        log_in=f"login?fresh=1&next={quote('/helm/security', safe='/')}",
    )


def audit_headline(audit: SecurityAuditReply | None, failure: HelmError | None) -> Sentence:
    """Return the result of the audit in a sentence."""
    if audit is None:
        if failure is not None:
            return Sentence("warn", "triangle-alert", "No audit could be made")
        return Sentence("off", "circle-dashed", "The first audit is being made")
    found = audit.summary
    counts = [(found.critical, "critical"), (found.high, "high"), (found.medium, "medium"), (found.low, "low")]
    total = sum(number for number, _ in counts)
    if not total:
        accepted = f", {found.accepted} accepted" if found.accepted else ""
        return Sentence("ok", "shield-check", f"Nothing is exposed that should not be{accepted}")
    tone, icon = LOOKS[audit.severity or "low"]
    parts = ", ".join(f"{number} {name}" for number, name in counts if number)
    return Sentence(tone, icon, f"{counted(total, 'finding')}: {parts}")


def score(audit: SecurityAuditReply) -> int:
    """100 less the weights of all findings that nobody has accepted; not below 0."""
    return max(0, 100 - sum(_WEIGHTS[each.severity] for each in audit.findings if each.accepted is None))


def firewall_sentence(state: FirewallStatus) -> Sentence:
    """Return the state of the firewall."""
    if state.active is None:
        return Sentence("off", "circle-help", "Whether a firewall is active can't be known")
    if not state.active:
        return Sentence("warn", "triangle-alert", "No firewall is active")
    kept = ", ".join(map(str, state.protected_ports))
    which = f" It keeps others from {kept}." if kept else " It keeps others from no port of the suite."
    return Sentence("ok", "shield-check", f"A firewall is active ({state.type}).{which}")


def _shown(finding: AuditFinding) -> ShownFinding:
    tone, icon = LOOKS[finding.severity]
    return ShownFinding(finding, as_sentence(finding.sentence), tone, icon, remedy_of(finding.fix))


def as_sentence(text: str) -> str:
    """Return TEXT with a capital letter, unless it begins with the name of a file or setting."""
    return text[:1].upper() + text[1:] if text.split(" ", 1)[0].isalpha() else text


def port_rows(audit: SecurityAuditReply) -> Iterable[PortRow]:
    """Return a row for each unit and port, what is wrong first; then the declared ports that nobody listens on."""
    groups: dict[tuple[int, str, str, str], list[AuditListener]] = {}
    for each in audit.listeners:
        groups.setdefault((each.port, each.family, each.unit or "", each.service or ""), []).append(each)
    issues = {(each.service, each.port): each.issue for each in (*audit.exposed_services, *audit.unknown_services)}
    taken = {each.port for each in audit.unknown_services}
    rows = [_port_row(key, found, audit, issues, taken) for key, found in groups.items()]
    rows += [
        PortRow(each.port, "tcp", "", "", each.service, "off", "circle-dashed", "declared, nobody listens", "", "suite")
        for each in audit.not_running
    ]
    order = {"wrong": 0, "suite": 1, "other": 2}
    return sorted(rows, key=lambda row: (order[row.group], row.port, row.family, row.unit))


def _port_row(
    key: tuple[int, str, str, str],
    found: Sequence[AuditListener],
    audit: SecurityAuditReply,
    issues: Mapping[tuple[str, int], str],
    taken: Iterable[int],
) -> PortRow:
    port, family, unit, service = key
    local = all(only_local(each.address) for each in found)
    kept = port in audit.firewall_status.protected_ports
    reach = "this machine" if local else "this machine; the firewall keeps others out" if kept else "other machines"
    declared = any(each.declared for each in found)
    if declared and (issue := issues.get((service, port))):
        verdict: tuple[FindingTone, str, str, str] = "error", "circle-x", issue, "wrong"
    elif declared:
        verdict = "ok", "circle-check", "as declared", "suite"
    elif family == "tcp" and port in taken:
        verdict = "error", "circle-x", "has the port of a service of the suite", "wrong"
    elif service:
        tone: FindingTone = "warn" if local else "error"
        verdict = tone, "triangle-alert" if local else "circle-x", f"not declared for {service}", "wrong"
    else:
        verdict = "off", "minus", "not of the suite", "other"
    addresses = ", ".join(sorted({each.address for each in found}))
    return PortRow(port, family, addresses, unit, service, *verdict[:3], reach, verdict[3])
