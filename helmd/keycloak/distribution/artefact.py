"""The Keycloak distribution that Helm runs: version, origin and checksum."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from helmd.model.errors import FetchError

DownloadCallback = Callable[[int, int], None]
"""Called with the number of bytes done and the total number of bytes."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Artefact:
    """A published archive. ``size`` (bytes) and ``sha256`` are pinned; any other file is refused."""

    version: str
    size: int
    sha256: str
    url: str
    group: str = "org.keycloak"
    name: str = "keycloak-quarkus-dist"

    @property
    def directory(self) -> str:
        """Name of the archive's only top-level directory."""
        return f"keycloak-{self.version}"

    @property
    def file(self) -> str:
        return f"{self.directory}.tar.gz"

    @property
    def coordinates(self) -> str:
        """Coordinates for Maven's dependency plugin."""
        return f"{self.group}:{self.name}:{self.version}:tar.gz"


KEYCLOAK = Artefact(
    version="26.4.0",
    size=159790935,
    sha256="9fe5f9213ecf83f24b53b27409f3e0f20e10edce36aaa0828778a57c80f07a87",
    url="https://github.com/keycloak/keycloak/releases/download/26.4.0/keycloak-26.4.0.tar.gz",
)


def verify_artefact(file: BinaryIO, artefact: Artefact, what: str) -> None:
    """Check size and SHA-256 of FILE, and leave it positioned at its beginning. WHAT names it in errors.

    Raises FetchError if it is not the artefact.
    """
    file.seek(0, 2)
    size = file.tell()
    if size != artefact.size:
        raise FetchError(
            f"{what} is not {artefact.file}: it has {size} bytes instead of {artefact.size}",
            hint="Remove it and retry.",
        )
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    if digest.hexdigest() != artefact.sha256:
        raise FetchError(
            f"{what} is not {artefact.file}: its SHA-256 is {digest.hexdigest()} instead of {artefact.sha256}",
            hint="It was modified, or damaged in transfer. Remove it and retry, or use another copy.",
        )
