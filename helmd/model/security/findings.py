"""What the security audit finds: kinds of findings, their severity, and ids that stay the same from audit to audit."""

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from helmd.model.printable import printable

SecuritySeverity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[SecuritySeverity, ...] = get_args(SecuritySeverity)
"""The mildest first."""


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of finding: how severe it usually is, and why it matters."""

    severity: SecuritySeverity
    why: str


KINDS: Mapping[str, FindingKind] = {
    "undeclared-listener": FindingKind(
        "high",
        "Nobody watches or protects a port that the configuration does not have, and the firewall scripts omit it.",
    ),
    "foreign-listener": FindingKind(
        "high", "Users and services that connect to this port send their tokens to a program that is not the service."
    ),
    "account-listener": FindingKind(
        "medium",
        "The program has all rights of the account, which owns the suite and its secrets; nothing isolates it.",
    ),
    "wide-binding": FindingKind("high", "Other machines reach the service directly, past the gateway and its login."),
    "cleartext-listener": FindingKind("high", "Passwords and tokens cross the network where others can read them."),
    "abstract-socket": FindingKind(
        "medium", "Abstract unix sockets have no file permissions: every program of this machine can connect."
    ),
    "shared-socket": FindingKind("medium", "Every account of this machine can connect to the socket."),
    "raw-socket": FindingKind(
        "high", "Who has such a socket can read the traffic of other programs, or send packets under any address."
    ),
    "unusual-socket": FindingKind(
        "medium", "Sockets of this family are outside of what the firewall and the units' sandbox were made for."
    ),
    "firewall-inactive": FindingKind(
        "low", "The suite has a port that other machines reach; without a firewall, so has every other program here."
    ),
    "default-password": FindingKind("critical", "Anybody can log in with a password that everybody knows."),
    "temporary-admin": FindingKind(
        "medium", "Keycloak makes this account for set-up only; it may do everything in every realm."
    ),
    "trust-login": FindingKind("critical", "PostgreSQL asks for no password there: whoever connects can be any role."),
    "weak-password-hash": FindingKind(
        "medium", "Who sees such a hash (MD5) can log in with it, or compute the password."
    ),
    "weak-secret": FindingKind("high", "A secret that can be guessed lets others forge sessions and tokens."),
    "readable-secret": FindingKind("high", "Other accounts can read it, and use it as the suite does."),
    "writable-file": FindingKind("high", "Other accounts can change what the suite runs, and so act as its account."),
    "foreign-owner": FindingKind("high", "The owner of a file can change it, whatever its mode says."),
    "setuid-file": FindingKind("high", "Whoever runs the program gets rights that are not their own."),
    "secret-in-unit": FindingKind(
        "medium",
        "Unit files and what systemctl shows are not secret; passwords belong into the service's secrets file.",
    ),
    "certificate-expired": FindingKind("high", "Clients refuse the service, or learn to ignore warnings."),
    "certificate-expires": FindingKind("medium", "Soon clients refuse the service."),
    "certificate-weak": FindingKind("high", "Others can compute the key, or forge the certificate."),
    "certificate-name": FindingKind(
        "medium", "Clients refuse a certificate of another name, or learn to ignore warnings."
    ),
    "certificate-self-signed": FindingKind(
        "low", "Clients of other machines can't distinguish the service from somebody between them and it."
    ),
    "no-user-namespaces": FindingKind(
        "high", "Without user namespaces, services are not isolated: each can read every secret and act as the account."
    ),
    "unit-not-sandboxed": FindingKind(
        "high", "A service that is taken over can read every secret, and act as the account."
    ),
    "weak-sandbox": FindingKind("medium", "The unit restricts the service less than its profile is meant to."),
    "exposing-path": FindingKind("high", "Through what the unit shows it, the service can act as the account."),
    "unit-drift": FindingKind(
        "medium", "What runs is not what the configuration says, so nobody knows what it may do."
    ),
    "broad-trust": FindingKind("high", "Requests from there may change things that others need Helm's own login for."),
    "anonymous-ingest": FindingKind("low", "Every program of this machine can write log entries under any name."),
    "debug-mode": FindingKind("high", "Debuggers run code for whoever reaches them, and error pages show internals."),
    "powerful-group": FindingKind("medium", "Who takes over the account can become root through this group."),
    "runs-as-root": FindingKind("critical", "A service that is taken over takes over the machine."),
    "kernel-setting": FindingKind("medium", "The kernel allows programs what makes attacks on other programs easier."),
    "security-updates": FindingKind(
        "medium", "Faults that are publicly known can be used until the updates are installed."
    ),
    "ssh-root-password": FindingKind("high", "The password of root can be guessed from everywhere."),
}
"""By name. A finding's id begins with the name of its kind."""


@dataclass(frozen=True, slots=True)
class SecurityFinding:
    """What is exposed and should not be. ``subject`` is what it is about, ``fix`` a command or instruction."""

    kind: str
    subject: str
    severity: SecuritySeverity
    sentence: str
    evidence: tuple[str, ...]
    fix: str

    @property
    def id(self) -> str:
        """The same for the same kind and subject: no process id, no counter."""
        digest = hashlib.sha256(_bytes(self.subject)).hexdigest()
        return f"{self.kind}-{digest[:10]}"

    @property
    def why(self) -> str:
        return KINDS[self.kind].why


def security_finding(
    kind: str,
    subject: str,
    sentence: str,
    evidence: Iterable[str],
    fix: str,
    severity: SecuritySeverity | None = None,
) -> SecurityFinding:
    """Return a finding of KIND, with the severity of its kind unless another is given.

    Names in it may be those that others chose: what is not printable is written out. FIX has them as `shell_word`.
    """
    shown = tuple(map(printable, evidence))
    return SecurityFinding(
        kind, printable(subject), severity or KINDS[kind].severity, printable(sentence), shown, printable(fix)
    )


def shell_word(text: str) -> str:
    """Return TEXT quoted as one word for bash(1)."""
    if text.isprintable():
        return shlex.quote(text)
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\'" else f"\\x{byte:02x}" for byte in _bytes(text))
    return f"$'{''.join(plain)}'"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def at_least(severity: SecuritySeverity, least: SecuritySeverity) -> bool:
    """Return whether SEVERITY is LEAST or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)


def worst_severity(severities: Iterable[SecuritySeverity]) -> SecuritySeverity | None:
    """Return the worst of SEVERITIES, or None for none."""
    return max(severities, key=SEVERITIES.index, default=None)


def by_severity(findings: Iterable[SecurityFinding]) -> Sequence[SecurityFinding]:
    """Return FINDINGS once each, the worst first, then by kind and subject."""
    once = {finding.id: finding for finding in findings}
    return sorted(once.values(), key=lambda each: (-SEVERITIES.index(each.severity), each.kind, each.subject))
