"""The SSH key for reading a module's repository, and the known host keys of its servers.

The private key is a file of mode 0600 that only git's sandbox sees; ssh gets its path. Formats: PROTOCOL.key of
OpenSSH, and sshd(8) for known_hosts.
"""

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helmd.files.durable import fsync_directory, write_atomically
from helmd.files.lock import locked
from helmd.model.errors import ModuleError
from helmd.model.layout import Layout, ModulePlaces
from helmd.modules.known_hosts import HostKey, fingerprint_of, known_hosts, read_file
from helmd.modules.records import places_of

MAX_KEY = 64 << 10
"""Maximum size of a private key file in bytes."""
_ASK_HINT = "Make a key without a passphrase for this machine alone: helmctl modules key make {name}"


@dataclass(frozen=True, slots=True)
class DeployKey:
    """The public facts of a module's key. ``public_key`` is a line for the git host."""

    name: str
    public_key: str
    fingerprint: str
    replacing: bool
    """Whether the previous key is kept until the repository was read with this one."""
    hosts: tuple[HostKey, ...]


def deploy_key(layout: Layout, name: str) -> DeployKey:
    """Return the key of the module NAME, which need not be installed. Raises UsageError and ModuleError."""
    places = places_of(layout, name)
    text = read_file(places.deploy_key, MAX_KEY)
    if text is None:
        raise ModuleError(f"{name} has no deploy key", hint=f"To make one: helmctl modules key make {name}")
    public = public_line(text, name)
    fingerprint = fingerprint_of(base64.b64decode(public.split()[1]))
    return DeployKey(name, public, fingerprint, places.deploy_key_before.exists(), known_hosts(places))


def make_key(layout: Layout, name: str, replace: bool = False) -> DeployKey:
    """Generate a key for the module NAME. With REPLACE, the old one is kept until the new one was used successfully.

    Raises UsageError, ModuleError and LockedError.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()
    return _put(layout, name, text, replace)


def add_key(layout: Layout, name: str, text: str, replace: bool = False) -> DeployKey:
    """Take over the private key TEXT for the module NAME, as `make_key` does. Raises as that does."""
    text = text.replace("\r\n", "\n").strip() + "\n"
    public_line(text, name)
    return _put(layout, name, text, replace)


@contextmanager
def trial_key(layout: Layout, name: str, text: str) -> Iterator[Path]:
    """Yield a temporary file with the private key TEXT; the key of the module NAME is not changed.

    Raises UsageError, ModuleError and OSError.
    """
    text = text.replace("\r\n", "\n").strip() + "\n"
    public_line(text, places_of(layout, name).root.name)
    layout.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    # In memory, so that it does not survive a reboot if this process is killed.
    with NamedTemporaryFile("w", dir=layout.runtime, prefix=f"deploy-key-{name}-") as file:
        file.write(text)
        file.flush()
        yield Path(file.name)


def _put(layout: Layout, name: str, text: str, replace: bool) -> DeployKey:
    places = places_of(layout, name)
    with _locked(places, name):
        if places.deploy_key.exists():
            if not replace:
                raise ModuleError(
                    f"{name} has a deploy key already",
                    hint=f"To see its public part: helmctl modules key show {name}; to replace it: --rotate",
                )
            # The key known to be accepted is kept, if the newer one was never used.
            if not places.deploy_key_before.exists():
                # By link(2), so that the module keeps its key on a full disk.
                os.link(places.deploy_key, places.deploy_key_before)
        places.deploy_key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(places.deploy_key, text, 0o600)
    return deploy_key(layout, name)


def remove_key(layout: Layout, name: str) -> bool:
    """Remove the keys of the module NAME; False if there was none. Raises UsageError and LockedError."""
    places = places_of(layout, name)
    with _locked(places, name):
        found = [place for place in (places.deploy_key, places.deploy_key_before) if place.exists()]
        for place in found:
            place.unlink()
        if found:
            fsync_directory(places.deploy_key.parent)
    return bool(found)


def forget_hosts(layout: Layout, name: str) -> bool:
    """Remove the known host keys of a module's repository; return False if there were none."""
    places = places_of(layout, name)
    with _locked(places, name):
        known = bool(known_hosts(places))
        places.known_hosts.unlink(missing_ok=True)
    return known


def _locked(places: ModulePlaces, name: str) -> AbstractContextManager[None]:
    return locked(places.lock, f"{name} is being changed")


def public_line(text: str, name: str) -> str:
    """Return the public part of a private key, as the git host wants it.

    Raises ModuleError for keys that ssh can't use non-interactively.
    """
    try:
        data = text.encode()
        load = (
            serialization.load_ssh_private_key if "OPENSSH PRIVATE KEY" in text else serialization.load_pem_private_key
        )
        key = load(data, password=None)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (TypeError, ValueError, AttributeError, UnsupportedAlgorithm) as problem:
        # This error has no type of its own.
        if "password" in str(problem).lower():
            raise ModuleError(
                f"the key for {name} has a passphrase, which nobody could type in", hint=_ASK_HINT.format(name=name)
            ) from None
        hint = "Give the file with BEGIN OPENSSH PRIVATE KEY in it, not the one that ends in .pub."
        raise ModuleError(f"what was given for {name} is not a private key of ssh", hint=hint) from None
    return f"{public.decode()} hivematrix-{name}@{socket.gethostname()}"
