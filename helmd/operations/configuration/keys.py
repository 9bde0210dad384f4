"""Generates missing keys of services: the gateway's TLS certificate, and the key with which Core signs tokens.

An existing key is never changed; one that can't be used is an error. The gateway's certificate, if Helm has issued it,
is renewed before it expires, and when the gateway gets another host name.
"""

import datetime
import socket
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa

from helmd.files.beneath import opened_directory
from helmd.files.durable import write_in
from helmd.files.key_pair import (
    PUBLIC_PEM,
    CertificateRequest,
    Folder,
    KeyFileError,
    check_pair,
    ensure_certificate,
    half,
    install_pair,
    pem,
    renew_certificate,
)
from helmd.model.errors import UsageError
from helmd.model.identity.realm import GATEWAY
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.module_files import CORE, GATEWAY_CERTIFICATE, KEYS, SIGNING_KEY, file_directory

VALID_DAYS = 825
"""Maximum validity in days that browsers accept of a certificate that an admin has marked as trusted."""
RENEWED_BEFORE = datetime.timedelta(days=30)
"""Time before its expiry at which a certificate is renewed."""
_LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names in each certificate that Helm issues."""
RSA_BITS = 2048


def signing_key(directory: Path) -> Path | None:
    """Ensure Core's RSA keys for tokens, ``keys/jwt_private.pem`` and ``jwt_public.pem`` in DIRECTORY, its checkout.

    Return the path of the private key if it was generated now. A missing public key is derived. Raises KeyFileError for
    keys that can't be used, and for a public key without its private one.
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


def gateway_certificate(directory: Path, host: str = "", now: datetime.datetime | None = None) -> Path | None:
    """Ensure a self-signed certificate, ``certs/nexus.crt`` and ``.key`` in DIRECTORY, the checkout of Nexus.

    It is for this machine's name, and HOST, by which users reach it. Return its path if it was issued or renewed now.
    An admin's own certificate is not changed. Raises KeyFileError if one of the two files is missing or can't be used,
    or if they don't match.
    """
    certificate, key_file = (directory / name for name in GATEWAY_CERTIFICATE)
    name = socket.gethostname()[:64] or "localhost"
    present = now or datetime.datetime.now(datetime.UTC)
    begin = present - datetime.timedelta(hours=1)
    others = tuple(dict.fromkeys(each for each in (name, host) if each not in ("", *_LOCAL) and each.isascii()))
    wanted = CertificateRequest(name, others, begin, begin + datetime.timedelta(days=VALID_DAYS))
    made = ensure_certificate(certificate, key_file, wanted)
    made = made or renew_certificate(certificate, key_file, wanted, present + RENEWED_BEFORE)
    return certificate if made else None


def make_keys(name: str, registry: Registry, layout: Layout) -> str:
    """Generate the keys of the service NAME if they are missing, or renew its certificate if that is due.

    Return what was done, as a sentence; empty for nothing. Raises KeyFileError.
    """
    directory = file_directory(registry[name], layout, KEYS[name][0])
    if name == CORE:
        made = signing_key(directory)
        return f"created the signing key of {name} ({made})" if made else ""
    there = (directory / GATEWAY_CERTIFICATE[0]).exists()
    made = gateway_certificate(directory, urlsplit(registry[name].url).hostname or "")
    if made and there:
        return f"renewed the certificate of {name} ({made}); to show it: helmctl restart {name}"
    return f"created the certificate of {name} ({made})" if made else ""


def install_certificate(certificate: Path, key: Path, registry: Registry, layout: Layout) -> str:
    """Install an admin's own CERTIFICATE for the gateway, with its chain, and its KEY; return what was done.

    That is a sentence, empty if nothing has changed. Raises KeyFileError, and UsageError if the suite has no gateway.
    """
    directory = file_directory(registry[GATEWAY], layout, GATEWAY_CERTIFICATE[0]) if GATEWAY in registry else None
    if directory is None or not directory.is_dir():
        raise UsageError("the suite has no gateway that could show a certificate", hint=f"Add [services.{GATEWAY}]")
    content, key_content = (Folder(file.parent).read(file.name) for file in (certificate.resolve(), key.resolve()))
    if content is None or key_content is None:
        raise KeyFileError(f"{certificate if content is None else key} is not there")
    places = [directory / name for name in GATEWAY_CERTIFICATE]
    if not install_pair(places[0], places[1], content, key_content):
        return ""
    return f"installed {certificate} as the certificate of {GATEWAY}; to show it: helmctl restart {GATEWAY}"
