"""Archives as streams of parts, written and read in one pass; every member is checked before it is used.

An archive is an encrypted, compressed tar archive, so that ``age --decrypt -i KEY FILE | tar -xz`` extracts it without
Helm. A dump, whose size is not known in advance, is split into members of equal size.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Protocol

from helmd.files.tar import CHUNK, END, Member, TarError, header, padding, read_members
from helmd.model.backup.manifest import (
    DATABASES,
    MANIFEST_FILE,
    MAX_MANIFEST,
    PART_KINDS,
    ROLES_PART,
    SERVICES,
    SIGNATURE_FILE,
    ArchivePart,
    BackupError,
    Manifest,
    PartDigest,
    kind_of_part,
    link_fault,
    manifest_text,
    part_of_member,
    read_manifest,
    signature_of,
    signed_by,
)
from helmd.operations.backup.encryption import AgeIdentity, decrypted

DUMP_MEMBER = 4 << 20
_LEVEL = 3
"""Compression level: higher ones take much time for little gain with dumps."""
_MAX_MEMBERS = 2_000_000
_MAX_MEMBER = 256 << 30


class ArchiveWriter:
    """Writes an archive to STREAM, part by part. MTIME is in seconds since the epoch."""

    def __init__(self, stream: IO[bytes], mtime: float) -> None:
        self._stream = stream
        self._mtime = int(mtime)
        self._compress = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
        self._digest: PartDigest | None = None
        self.parts: list[ArchivePart] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Write the members of the part NAME within this context. A part without members is omitted."""
        if kind_of_part(name) is None:
            raise BackupError(f"{name!r} can't be a part of a backup")
        self._digest = PartDigest(name)
        yield
        if (part := self._digest.part).members:
            self.parts.append(part)
        self._digest = None

    def member(self, part: str, member: Member, chunks: Iterator[bytes]) -> None:
        """Write a member of the current part."""
        assert self._digest is not None
        self._digest.member(member.name, member.kind, member.mode, member.size, member.target)
        name = f"{part}/{member.name}"
        self._write(header(Member(name, member.kind, member.mode, member.size, member.target), self._mtime))
        for data in chunks:
            self._digest.content(data)
            self._write(data)
        self._write(padding(member.size))

    def finish(self, manifest: Manifest, key: str) -> None:
        """Write the manifest, signed with KEY, and end the archive."""
        text = manifest_text(manifest)
        for name, content in ((MANIFEST_FILE, text), (SIGNATURE_FILE, signature_of(text, key).encode())):
            self._write(
                header(Member(name, "file", 0o600, len(content)), self._mtime) + content + padding(len(content))
            )
        self._write(END)
        self._stream.write(self._compress.flush())

    def _write(self, data: bytes) -> None:
        if compressed := self._compress.compress(data):
            self._stream.write(compressed)


class DumpMembers:
    """Splits a dump, given in chunks of any size, into members."""

    def __init__(self, writer: ArchiveWriter, part: str) -> None:
        self._writer, self._part = writer, part
        self._waiting = bytearray()
        self._number = 0

    def take(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= DUMP_MEMBER:
            self._put(bytes(self._waiting[:DUMP_MEMBER]))
            del self._waiting[:DUMP_MEMBER]

    def end(self) -> None:
        if self._waiting:
            self._put(bytes(self._waiting))

    def _put(self, content: bytes) -> None:
        member = Member(_number(self._number), "file", 0o600, len(content))
        self._writer.member(self._part, member, iter((content,) if content else ()))
        self._number += 1


def _number(number: int) -> str:
    return f"{number:08}"


class Visitor(Protocol):
    """Callbacks for reading an archive."""

    def part(self, name: str) -> None:
        """The part NAME begins."""

    def member(self, part: str, member: Member, chunks: Iterator[bytes]) -> None:
        """A member of the part; its name is that in the part."""

    def end(self, part: str) -> None:
        """The part has ended."""


class Nothing:
    """A visitor that does nothing, to only check an archive."""

    def part(self, name: str) -> None:
        return

    def member(self, part: str, member: Member, chunks: Iterator[bytes]) -> None:
        return

    def end(self, part: str) -> None:
        return


@dataclass(frozen=True, slots=True)
class ReadArchive:
    """The manifest of an archive. ``signed`` says whether the identity's key has signed it; None without a key."""

    manifest: Manifest
    signed: bool | None


def read_archive(
    descriptor: int,
    identity: AgeIdentity,
    visitor: Visitor | None = None,
    known: Manifest | None = None,
    limit: Callable[[], int] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> ReadArchive:
    """Read the whole archive behind DESCRIPTOR, with VISITOR, and check it against its manifest.

    KNOWN is the manifest of an earlier reading, by which each part is checked as soon as it has ended. LIMIT is
    the maximum size in bytes. Raises BackupError for an archive that is damaged, incomplete, not allowed, or signed
    with another key.
    """
    reading = _Reading(visitor or Nothing(), known, limit, progress)
    with decrypted(descriptor, identity) as stream:
        plain = _Inflated(stream.read)
        try:
            for member, chunks in read_members(plain.read):
                reading.member(member, chunks)
            plain.check()
        except (TarError, zlib.error) as problem:
            stream.check()
            raise BackupError(
                f"the archive is damaged: {problem}", hint="Use another copy, or an older backup."
            ) from None
        stream.check()
        return reading.end(identity.authentication)


class _Inflated:
    """Decompresses a stream with bounded memory."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._inflate = zlib.decompressobj(31)
        self._ready = b""

    def read(self, count: int) -> bytes:
        parts = []
        while count:
            if not self._ready and not self._more():
                break
            parts.append(self._ready[:count])
            self._ready = self._ready[count:]
            count -= len(parts[-1])
        return b"".join(parts)

    def _more(self) -> bool:
        while not self._ready and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._read(CHUNK)
            if not data:
                return False
            self._ready = self._inflate.decompress(data, CHUNK)
        return bool(self._ready)

    def check(self) -> None:
        """Raise TarError if the compressed stream does not end here."""
        if self._more() or not self._inflate.eof or self._inflate.unused_data:
            raise TarError("it does not end where it should")


class _Reading:
    def __init__(
        self,
        visitor: Visitor,
        known: Manifest | None,
        limit: Callable[[], int] | None,
        progress: Callable[[int], None],
    ) -> None:
        self._visitor, self._known, self._limit, self._progress = visitor, known, limit, progress
        self._part = ""
        self._digest: PartDigest | None = None
        self._parts: list[ArchivePart] = []
        self._names: set[str] = set()
        self._links: set[str] = set()
        self._total = self._count = 0
        self._manifest = self._signature = b""

    def member(self, member: Member, chunks: Iterator[bytes]) -> None:
        self._count += 1
        self._total += member.size
        if member.size > _MAX_MEMBER or self._count > _MAX_MEMBERS:
            raise BackupError(f"the archive has more in it than a backup can have: {member.name[:200]!r}")
        if self._limit is not None and self._total > self._limit():
            raise BackupError(
                f"the archive unpacks to more than {self._total >> 20} MB, and there is less free space than that",
                hint="Free some space and run this again; nothing was changed.",
            )
        if self._signature:
            raise BackupError(f"the archive has something after its manifest: {member.name[:200]!r}")
        if member.name in (MANIFEST_FILE, SIGNATURE_FILE):
            self._own(member, chunks)
            return
        found = part_of_member(member.name)
        if found is None or self._manifest:
            raise BackupError(f"the archive has a member that no backup has: {member.name[:200]!r}")
        self._check(*found, member)
        part, name = found
        if part != self._part:
            self._begin(part)
        digest = self._digest
        assert digest is not None
        digest.member(name, member.kind, member.mode, member.size, member.target)

        def hashed() -> Iterator[bytes]:
            for data in chunks:
                digest.content(data)
                self._progress(self._total)
                yield data

        given = hashed()
        self._visitor.member(part, Member(name, member.kind, member.mode, member.size, member.target), given)
        for _ in given:
            pass

    def _own(self, member: Member, chunks: Iterator[bytes]) -> None:
        if (
            member.kind != "file"
            or member.size > MAX_MANIFEST
            or (member.name == MANIFEST_FILE) == bool(self._manifest)
        ):
            raise BackupError("the archive's manifest is not where it should be, or too large")
        content = b"".join(chunks)
        if member.name == MANIFEST_FILE:
            self._finish()
            self._manifest = content
        else:
            self._signature = content

    def _begin(self, part: str) -> None:
        self._finish()
        order = [PART_KINDS.index(str(kind_of_part(each.name))) for each in self._parts]
        if any(each.name == part for each in self._parts) or (
            order and PART_KINDS.index(str(kind_of_part(part))) < order[-1]
        ):
            raise BackupError(f"the archive's parts are not in order: {part[:200]!r}")
        if self._known is not None and self._known.part(part) is None:
            raise BackupError(f"the archive has another part than before: {part[:200]!r}")
        self._part, self._digest = part, PartDigest(part)
        self._names, self._links = set(), set()
        self._visitor.part(part)

    def _finish(self) -> None:
        if self._digest is None:
            return
        part, self._digest = self._digest.part, None
        if self._known is not None and self._known.part(part.name) != part:
            raise BackupError(f"the archive was changed while it was read: {part.name}")
        self._parts.append(part)
        self._visitor.end(part.name)

    def _check(self, part: str, name: str, member: Member) -> None:
        """Raise BackupError for a member that could be written outside of its part."""
        names = self._names if part == self._part else set()
        links = self._links if part == self._part else set()
        kind = kind_of_part(part)
        if name in names:
            raise BackupError(f"the archive has a member twice: {member.name[:200]!r}")
        if len(member.name.encode("utf-8", "surrogateescape")) > 4096 or any(len(w) > 255 for w in name.split("/")):
            raise BackupError(f"the archive has a member whose name is too long: {member.name[:200]!r}")
        if kind in (DATABASES, ROLES_PART) and (member.kind != "file" or "/" in name):
            raise BackupError(f"the archive has a member that no dump has: {member.name[:200]!r}")
        if kind == DATABASES and name != _number(len(names)):
            raise BackupError(f"a chunk of a dump is missing before {member.name[:200]!r}")
        above = name.split("/")
        if any("/".join(above[:count]) in links for count in range(1, len(above))):
            raise BackupError(f"the archive has a member below a symbolic link: {member.name[:200]!r}")
        if member.kind == "link":
            fault = link_fault(name, member.target) if kind == SERVICES else "only the files of services have such"
            if fault:
                raise BackupError(f"the archive has a symbolic link that is refused, {member.name[:200]!r}: {fault}")
        if part != self._part:
            self._begin(part)
        self._names.add(name)
        if member.kind == "link":
            self._links.add(name)

    def end(self, key: str) -> ReadArchive:
        if not self._manifest or not self._signature:
            raise BackupError("the archive has no manifest", hint="Use another copy of it, or an older backup.")
        signed = None
        if key:
            signed = signed_by(self._manifest, self._signature.decode(errors="replace"), key)
            if not signed:
                raise BackupError(
                    "the archive is not signed with the key in the identity's file: somebody else has made it",
                    hint="Use an archive that your own Helm made. To trust it nevertheless, remove the line with the"
                    " authentication key from a copy of that file.",
                )
        manifest = read_manifest(self._manifest)
        found = {part.name: part for part in self._parts}
        wanted = {part.name: part for part in manifest.parts}
        if missing := [name for name in wanted if name not in found]:
            raise BackupError(f"parts of the archive are missing: {', '.join(missing)[:300]}")
        if surplus := [name for name in found if name not in wanted]:
            raise BackupError(f"the archive has parts that its manifest does not name: {', '.join(surplus)[:300]}")
        if wrong := [name for name in wanted if found[name] != wanted[name]]:
            raise BackupError(f"parts of the archive are not what its manifest says: {', '.join(wrong)[:300]}")
        if self._known is not None and manifest != self._known:
            raise BackupError("the archive was changed while it was read")
        return ReadArchive(manifest, signed)
