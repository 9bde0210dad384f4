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
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.module_files import GATEWAY_CERTIFICATE, SIGNING_KEY

VALID_DAYS = 825
"""What browsers accept at most of a certificate that an admin trusts by hand."""
RSA_BITS = 2048


def signing_key(directory: Path) -> Path | None:
    """Core's RSA keys for tokens, ``keys/jwt_private.pem`` and ``jwt_public.pem`` in its checkout; the path of the
    private one when it was made now.

    A public key that is missing is derived. Raises KeyFileError for keys that can't be used, and for a public one whose
    private half is missing.
    """
    path, public = (directory / name for name in SIGNING_KEY)
    folder = Folder(path.parent)
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
    certificate, key_file = (directory / name for name in GATEWAY_CERTIFICATE)
    host = socket.gethostname()[:64] or "localhost"
    begin = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(hours=1)
    others = (host,) if host != "localhost" and host.isascii() else ()
    wanted = CertificateRequest(host, others, begin, begin + datetime.timedelta(days=VALID_DAYS))
    return certificate if ensure_certificate(certificate, key_file, wanted) else None


_MAKERS = {"core": (signing_key, "signing key"), "nexus": (gateway_certificate, "certificate")}


def make_keys(name: str, registry: Registry, layout: Layout) -> str:
    """Make the keys of the service NAME, if they are missing; what was made, as a sentence. Raises KeyFileError."""
    make, what = _MAKERS[name]
    made = make(layout.resolve(registry[name].path))
    return f"created the {what} of {name} ({made})" if made else ""
