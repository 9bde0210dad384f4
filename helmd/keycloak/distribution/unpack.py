"""Unpacking the archive: checked member by member, whole or not at all."""

import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from helmd.keycloak.distribution.artefact import KEYCLOAK, Artefact, DownloadCallback, verify_artefact
from helmd.model.errors import FetchError

_MOST_BYTES = 1 << 30
_MOST_MEMBERS = 20_000
WRITABLE = ("data", "lib/quarkus")
"""What Keycloak writes to below its directory: ``data`` while it runs, ``lib/quarkus`` when it is built."""


def unpacked(parent: Path, artefact: Artefact = KEYCLOAK) -> Path | None:
    """The distribution below PARENT when it is there, else None."""
    place = parent / artefact.directory
    return place if (place / "lib" / "quarkus-run.jar").is_file() else None


def unpack(
    archive: Path, parent: Path, artefact: Artefact = KEYCLOAK, progress: DownloadCallback | None = None
) -> Path:
    """The distribution as PARENT/keycloak-VERSION; nothing to do when it is there already.

    The archive is verified first, as the very file that is then read. PROGRESS counts bytes of the archive. Raises
    FetchError when it is not the artefact or holds what has no business in it, and leaves nothing behind then.
    """
    place = parent / artefact.directory
    if unpacked(parent, artefact):
        return place
    if place.exists() or place.is_symlink():
        raise FetchError(f"{place} is there, but holds no Keycloak", hint="Move it away and try again.")
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f".{artefact.directory}.unpacking-*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{artefact.directory}.unpacking-", dir=parent))
    try:
        with archive.open("rb") as file:
            verify_artefact(file, artefact, str(archive))
            extract(file, temporary, artefact, progress)
        made = temporary / artefact.directory
        for name in WRITABLE:
            (made / name).mkdir(parents=True, exist_ok=True)
        os.sync()
        made.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def extract(file: BinaryIO, into: Path, artefact: Artefact, progress: DownloadCallback | None = None) -> None:
    """Plain files and directories below the archive's one directory, into the fresh directory INTO.

    Links, devices, names that lead elsewhere, duplicates and more than 1 GiB are refused (FetchError): the real archive
    has none of them.
    """
    total = 0
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as tar:
            for count, member in enumerate(tar):
                total += member.size
                if count >= _MOST_MEMBERS or total > _MOST_BYTES:
                    raise FetchError(f"{artefact.file} unpacks to more than it may")
                _extract_member(tar, member, into, artefact)
                if progress:
                    progress(min(file.tell(), artefact.size), artefact.size)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as fault:
        raise FetchError(f"{artefact.file} can't be unpacked: {fault}") from fault
    if not (into / artefact.directory).is_dir():
        raise FetchError(f"{artefact.file} holds no {artefact.directory}/")


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, artefact: Artefact) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name or name.parts[:1] != (artefact.directory,):
        raise FetchError(f"{artefact.file} holds a name that leads elsewhere: {member.name!r}")
    target = into / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    source = tar.extractfile(member) if member.isreg() else None
    if source is None:
        raise FetchError(f"{artefact.file} holds something else than files and directories: {member.name!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with source, os.fdopen(os.open(target, flags, mode), "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
