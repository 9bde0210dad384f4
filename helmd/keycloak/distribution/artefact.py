"""The one Keycloak distribution that Helm runs: its version, where it comes from, and how it is known to be itself."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from helmd.model.errors import FetchError

DownloadCallback = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Artefact:
    """A published archive. ``size`` in bytes and ``sha256`` are pinned: anything else is refused."""

    version: str
    size: int
    sha256: str
    url: str
    group: str = "org.keycloak"
    name: str = "keycloak-quarkus-dist"

    @property
    def directory(self) -> str:
        """The single directory in the archive."""
        return f"keycloak-{self.version}"

    @property
    def file(self) -> str:
        return f"{self.directory}.tar.gz"

    @property
    def coordinates(self) -> str:
        """As Maven's dependency plugin names it."""
        return f"{self.group}:{self.name}:{self.version}:tar.gz"


KEYCLOAK = Artefact(
    version="26.4.0",
    size=159790935,
    sha256="9fe5f9213ecf83f24b53b27409f3e0f20e10edce36aaa0828778a57c80f07a87",
    url="https://github.com/keycloak/keycloak/releases/download/26.4.0/keycloak-26.4.0.tar.gz",
)


def verify_artefact(file: BinaryIO, artefact: Artefact, what: str) -> None:
    """Reads FILE from its beginning and leaves it there. Raises FetchError unless it is the artefact, byte for byte."""
    file.seek(0, 2)
    size = file.tell()
    if size != artefact.size:
        raise FetchError(
            f"{what} is not {artefact.file}: it has {size} bytes instead of {artefact.size}",
            hint="Remove it and try again.",
        )
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    if digest.hexdigest() != artefact.sha256:
        raise FetchError(
            f"{what} is not {artefact.file}: its SHA-256 is {digest.hexdigest()} instead of {artefact.sha256}",
            hint="Somebody changed it, or the transfer did. Remove it and try again, or give another copy.",
        )
