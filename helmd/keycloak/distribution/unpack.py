"""Unpacking the archive: each member is checked, and the directory appears only when complete."""

import hashlib
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from helmd.keycloak.distribution.artefact import KEYCLOAK, Artefact, DownloadCallback, verify_artefact
from helmd.keycloak.launch import WRITABLE
from helmd.model.errors import FetchError

_MAX_BYTES = 1 << 30
_MAX_MEMBERS = 20_000


def unpacked(parent: Path, artefact: Artefact = KEYCLOAK, name: str = "") -> Path | None:
    """Return the distribution's directory below PARENT, or None if it is not there."""
    directory = parent / (name or artefact.directory)
    return directory if (directory / "lib" / "quarkus-run.jar").is_file() else None


def unpack(
    archive: Path,
    parent: Path,
    artefact: Artefact = KEYCLOAK,
    progress: DownloadCallback | None = None,
    name: str = "",
) -> Path:
    """Unpack to PARENT/NAME (by default keycloak-VERSION) unless that exists, and return that path.

    The archive is verified and extracted through the same descriptor. PROGRESS counts bytes of the archive. Raises
    FetchError if it is not the artefact or has a forbidden member; nothing is left behind then.
    """
    directory = parent / (name or artefact.directory)
    if unpacked(parent, artefact, name):
        return directory
    if directory.exists() or directory.is_symlink():
        raise FetchError(f"{directory} exists but does not contain Keycloak", hint="Move it away and retry.")
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(f".{artefact.directory}.unpacking-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{artefact.directory}.unpacking-", dir=parent))
    try:
        with archive.open("rb") as file:
            verify_artefact(file, artefact, str(archive))
            extract(file, temporary, artefact, progress)
        extracted = temporary / artefact.directory
        for name in WRITABLE:
            (extracted / name).mkdir(parents=True, exist_ok=True)
        os.sync()
        extracted.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def extract(file: BinaryIO, into: Path, artefact: Artefact, progress: DownloadCallback | None = None) -> None:
    """Extract regular files and directories into the empty directory INTO.

    Raises FetchError for links, devices, duplicates, names outside the archive's top-level directory, and more than
    1 GiB in total; the real archive has none of these.
    """
    total = 0
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as tar:
            for count, member in enumerate(tar):
                total += member.size
                if count >= _MAX_MEMBERS or total > _MAX_BYTES:
                    raise FetchError(f"{artefact.file} exceeds the size limit when unpacked")
                _extract_member(tar, member, into, artefact)
                if progress:
                    progress(min(file.tell(), artefact.size), artefact.size)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as fault:
        raise FetchError(f"could not unpack {artefact.file}: {fault}") from fault
    if not (into / artefact.directory).is_dir():
        raise FetchError(f"{artefact.file} does not contain {artefact.directory}/")


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, artefact: Artefact) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name or name.parts[:1] != (artefact.directory,):
        raise FetchError(f"{artefact.file} has a member outside {artefact.directory}/: {member.name!r}")
    target = into / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    source = tar.extractfile(member) if member.isreg() else None
    if source is None:
        raise FetchError(f"{artefact.file} has a member that is neither a file nor a directory: {member.name!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with source, os.fdopen(os.open(target, flags, mode), "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)


def artefact_of(archive: Path) -> Artefact:
    """Return what a Keycloak ARCHIVE of any version is, by its content. Raises FetchError if it is none."""
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
            first = tar.next()
            found = _TOP.match(first.name) if first else None
            if found is None:
                raise FetchError(f"{archive} is not a Keycloak archive (keycloak-VERSION.tar.gz)")
            file.seek(0)
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            return Artefact(found[1], file.seek(0, os.SEEK_END), checksum, str(archive))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as fault:
        raise FetchError(f"{archive} can't be read: {fault}") from None


_TOP = re.compile(r"keycloak-(\d+(?:\.\d+){1,3})(?:/|\Z)")
