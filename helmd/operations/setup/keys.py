"""Keys that services prove who they are with: the gateway's certificate, the signing key of Core. Made when missing.

Nothing that is there is replaced or changed: what can't be used is an error.
"""

import datetime
import socket
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from helmd.files.beneath import opened_directory
from helmd.files.durable import write_in
from helmd.files.key_pair import PUBLIC_PEM, CertificateRequest, Folder, check_pair, ensure_certificate, half, pem

VALID_DAYS = 825
"""What browsers accept at most of a certificate that an admin trusts by hand."""
RSA_BITS = 2048


def signing_key(directory: Path) -> Path | None:
    """Core's RSA keys for tokens, ``keys/jwt_private.pem`` and ``jwt_public.pem`` in its checkout; the path of the
    private one when it was made now.

    A public key that is missing is derived. Raises KeyFileError for keys that can't be used, and for a public one whose
    private half is missing.
    """
    folder = Folder(directory / "keys")
    path, public = folder.path / "jwt_private.pem", folder.path / "jwt_public.pem"
    if folder.finish_interrupted(path.name, public.name):
        return path
    content, public_content = folder.read(path.name), folder.read(public.name)
    if content is not None:
        derived = check_pair(path, content, public, public_content)
        if public_content is None and derived is not None:
            with opened_directory(folder.path) as descriptor:
                write_in(descriptor, public.name, derived, 0o644, replace=False)
        return None
    if public_content is not None:
        raise half(public, path)
    made = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    public_pem = made.public_key().public_bytes(*PUBLIC_PEM)
    folder.write_pair((path.name, pem(made), 0o600), (public.name, public_pem, 0o644))
    return path


def gateway_certificate(directory: Path, now: datetime.datetime | None = None) -> Path | None:
    """A self-signed certificate, ``certs/nexus.crt`` and ``.key`` in the checkout of Nexus; its path when made now.

    A certificate of the admin's own is left alone. Raises KeyFileError when a half of a pair is missing or can't be
    used, or when the two don't belong together.
    """
    certificate, key_file = directory / "certs/nexus.crt", directory / "certs/nexus.key"
    host = socket.gethostname()[:64] or "localhost"
    begin = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(hours=1)
    others = (host,) if host != "localhost" and host.isascii() else ()
    wanted = CertificateRequest(host, others, begin, begin + datetime.timedelta(days=VALID_DAYS))
    return certificate if ensure_certificate(certificate, key_file, wanted) else None
