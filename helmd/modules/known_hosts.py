"""The known host keys of servers of modules' repositories (known_hosts, sshd(8))."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from helmd.model.errors import ModuleError
from helmd.model.layout import ModulePlaces

_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class HostKey:
    """A known host key, with its fingerprint as printed by ssh-keygen(1)."""

    host: str
    type: str
    fingerprint: str


def known_hosts(places: ModulePlaces) -> tuple[HostKey, ...]:
    """Return the known host keys for a module's repository."""
    text = read_file(places.known_hosts, _MAX) or ""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0].startswith(("#", "@")):
            continue
        try:
            found.append(HostKey(words[0], words[1], fingerprint_of(base64.b64decode(words[2], validate=True))))
        except (ValueError, binascii.Error):
            continue
    return tuple(found)


def fingerprint_of(blob: bytes) -> str:
    """Return the fingerprint of an SSH public key, as printed by ssh-keygen(1)."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def read_file(place: Path, most: int) -> str | None:
    """Return the text of a file, up to MOST bytes, or None without one. Raises ModuleError."""
    try:
        with place.open("rb") as file:
            return file.read(most).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise ModuleError(f"{place} can't be read: {problem.strerror}") from None
