"""What services need to prove who they are: the gateway's certificate, the signing key of Core. Made when missing."""

import datetime
import ipaddress
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from helmd.files.durable import write_atomically
from helmd.model.errors import DeniedError

VALID_DAYS = 825
"""What browsers accept at most of a certificate that an admin trusts by hand."""
RSA_BITS = 2048


def signing_key(directory: Path) -> Path | None:
    """Core's RSA key for tokens, ``keys/private.pem`` in its checkout; the path when it was made now."""
    path = directory / "keys/private.pem"
    if path.exists():
        return None
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    _write_key(path, key)
    return path


def gateway_certificate(directory: Path, now: datetime.datetime | None = None) -> Path | None:
    """A self-signed certificate, ``certs/nexus.crt`` and ``.key`` in the checkout of Nexus; its path when made now.

    An admin's own certificate in that place is left alone.
    """
    certificate, key_file = directory / "certs/nexus.crt", directory / "certs/nexus.key"
    if certificate.exists() and key_file.exists():
        return None
    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()[:64] or "localhost"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    begin = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(hours=1)
    alternatives: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    if host != "localhost" and host.isascii():
        alternatives.append(x509.DNSName(host))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_file, key)
    write_atomically(certificate, built.public_bytes(serialization.Encoding.PEM).decode(), 0o644)
    return certificate


def _write_key(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    if path.parent.is_symlink():
        # The service writes its own directory; it must not choose where a key goes.
        raise DeniedError(f"{path.parent} is a link", hint="Remove it, then run helmctl setup again.")
    os.chmod(path.parent, 0o700)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    write_atomically(path, text, 0o600)
