"""Certificates that services show: expired, weak, of another name."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from helmd.model.security.findings import SecurityFinding, security_finding
from helmd.model.security.listeners import only_local
from helmd.model.units.diagnostics import EXPIRY_WARNING

_LEAST_BITS = {"RSA": 2048, "DSA": 1 << 30, "EC": 224}
"""By kind of key (NIST SP 800-57). DSA is not used any more."""
_BROKEN_HASHES = ("md5", "sha1")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A certificate. ``host`` is the name by which clients reach who shows it; ``hash`` the one of its signature."""

    service: str
    host: str
    names: tuple[str, ...]
    key: str
    bits: int
    hash: str
    valid_from: datetime
    valid_until: datetime
    self_signed: bool


def judge_shown_certificate(facts: CertificateFacts, now: datetime) -> Iterator[SecurityFinding]:
    """Yield what is wrong with a certificate."""
    service = facts.service
    renew = f"helmctl setup, which renews one of Helm's own (--certificate: another); helmctl restart {service}"
    shown = [
        f"{service} shows a certificate for {', '.join(facts.names) or 'no name'}, "
        f"valid from {facts.valid_from:%Y-%m-%d} until {facts.valid_until:%Y-%m-%d %H:%M} UTC, "
        f"{facts.key} {facts.bits} bits, signed with {facts.hash or 'no separate hash'}"
    ]
    if now >= facts.valid_until:
        sentence = f"the certificate of {service} expired on {facts.valid_until:%Y-%m-%d}"
        yield security_finding("certificate-expired", service, sentence, shown, renew)
    elif now < facts.valid_from:
        sentence = f"the certificate of {service} is not valid before {facts.valid_from:%Y-%m-%d %H:%M} UTC"
        yield security_finding(
            "certificate-expired", service, sentence, shown, f"Check the clock: timedatectl; {renew}"
        )
    elif facts.valid_until - now < EXPIRY_WARNING:
        sentence = f"the certificate of {service} expires on {facts.valid_until:%Y-%m-%d}"
        yield security_finding("certificate-expires", service, sentence, shown, renew)
    if facts.bits < _LEAST_BITS.get(facts.key, 0):
        sentence = f"the key of the certificate of {service} is weak: {facts.key} with {facts.bits} bits"
        yield security_finding("certificate-weak", service, sentence, shown, renew)
    elif facts.hash in _BROKEN_HASHES and not facts.self_signed:
        sentence = f"the certificate of {service} is signed with {facts.hash}, which can be forged"
        yield security_finding("certificate-weak", service, sentence, shown, renew)
    if not any(matches_host(name, facts.host) for name in facts.names):
        sentence = f"the certificate of {service} is not for {facts.host}, by which users reach it"
        yield security_finding("certificate-name", service, sentence, shown, renew)
    if facts.self_signed and not only_local(facts.host):
        sentence = f"the certificate of {service} is signed by itself"
        fix = "Install one of an authority that users' browsers know: helmctl setup --certificate CERTIFICATE KEY"
        yield security_finding("certificate-self-signed", service, sentence, shown, fix)


def matches_host(name: str, host: str) -> bool:
    """Return whether a certificate for NAME is one for HOST (RFC 9525: ``*`` stands for one label at the beginning)."""
    name, host = name.lower().rstrip("."), host.lower().rstrip(".")
    try:
        return ip_address(host) == ip_address(name)
    except ValueError:
        if name.startswith("*."):
            return "." in host and host.split(".", 1)[1] == name[2:]
        return name == host
