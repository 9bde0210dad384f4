"""Checks of the services' certificates for the security audit."""

from collections.abc import Iterator
from datetime import UTC, datetime

from helmd.files.key_pair import valid_from, valid_until
from helmd.model.security.certificates import CertificateFacts, judge_shown_certificate
from helmd.model.security.findings import SecurityFinding
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.diagnostics.services import ShownCertificate, certificates_shown


def audit_certificates(context: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield findings about the services' certificates. Blocks, for some seconds per service at most."""
    now = datetime.now(UTC)
    for shown in certificates_shown(context.suite, context.manager.facts):
        yield from judge_shown_certificate(certificate_facts(shown), now)


def certificate_facts(shown: ShownCertificate) -> CertificateFacts:
    """Return the facts of a certificate. Raises ValueError if it is invalid."""
    # Imported here, since few commands need it.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

    parsed = x509.load_der_x509_certificate(shown.encoded)
    key = parsed.public_key()
    kinds = {rsa.RSAPublicKey: "RSA", dsa.DSAPublicKey: "DSA", ec.EllipticCurvePublicKey: "EC"}
    kind = next((name for each, name in kinds.items() if isinstance(key, each)), type(key).__name__)
    bits = key.key_size if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey | ec.EllipticCurvePublicKey) else 1 << 8
    try:
        used = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        used = None
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        listed = [
            *names.get_values_for_type(x509.DNSName),
            *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
        ]
    except (x509.ExtensionNotFound, ValueError):
        listed = []
    return CertificateFacts(
        service=shown.service,
        host=shown.host,
        names=tuple(listed),
        key=kind,
        bits=bits,
        hash=used.name if used is not None else "",
        valid_from=valid_from(parsed),
        valid_until=valid_until(parsed),
        self_signed=parsed.issuer == parsed.subject,
    )
