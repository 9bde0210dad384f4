"""Archives of backups: what is written is read again, and everything else is refused before it is used."""

import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helmd.files.tar import Member, header, padding
from helmd.model.backup.manifest import (
    FORMAT,
    BackupError,
    EnvironmentRef,
    Manifest,
    ServiceRef,
    manifest_text,
    signature_of,
)
from helmd.operations.backup.archive import ArchiveWriter, ReadArchive, read_archive
from helmd.operations.backup.encryption import AUTHENTICATION, AgeIdentity, encrypted_to, new_identity, recipient_of

KEY = "a key"
MADE, RECIPIENT = new_identity()
IDENTITY = AgeIdentity(f"{AUTHENTICATION}{KEY}\n{MADE.text}")
MANIFEST = Manifest(
    FORMAT, "1.2.0", "host", "hive", "/home/hive", 1.5, 0, "", (), (),
    (ServiceRef("core", "python", "~/core", 5000, "whole", "https://example.org/core", "a" * 40, True,
                EnvironmentRef("pyenv", "3.13", True, ("flask==3.0.0",))),), ("one thing",),
)  # fmt: skip
FILES = {
    "configuration": (("config", "directory", b""), ("config/helm.toml", "file", b"[http]\n")),
    "state": (),
    "services/core": (
        ("run.py", "file", b"print()\n" * 200_000),
        ("a \u2713 \udcff", "file", b""),
        ("x" * 200, "file", b"1"),
    ),
}


class Taken:
    """A visitor that keeps what it gets."""

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {}
        self.ended: list[str] = []

    def part(self, name: str) -> None:
        self.members.setdefault(name, b"")

    def member(self, part: str, member: Member, chunks: Iterator[bytes]) -> None:
        self.members[f"{part}/{member.name}"] = b"".join(chunks)

    def end(self, part: str) -> None:
        self.ended.append(part)


def archive(path: Path, key: str = KEY, recipients: tuple[str, ...] = (RECIPIENT,)) -> Manifest:
    """Return a good archive."""
    with path.open("wb") as file, encrypted_to(recipients, file.fileno()) as stream:
        writer = ArchiveWriter(stream, 0)
        for part, members in FILES.items():
            with writer.part(part):
                for name, kind, content in members:
                    member = Member(name, "directory" if kind == "directory" else "file", 0o640, len(content))
                    writer.member(part, member, iter((content,)))
        manifest = replace(MANIFEST, parts=tuple(writer.parts))
        writer.finish(manifest, key)
    return manifest


def opened(path: Path, identity: AgeIdentity = IDENTITY, **how: object) -> tuple[ReadArchive, Taken]:
    taken = Taken()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_archive(descriptor, identity, taken, **how), taken  # type: ignore[arg-type]
    finally:
        os.close(descriptor)


def refused(path: Path, identity: AgeIdentity = IDENTITY, **how: object) -> str:
    with pytest.raises(BackupError) as caught:
        opened(path, identity, **how)
    return caught.value.sentence


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    manifest = archive(path)
    for known in (None, manifest):
        read, taken = opened(path, known=known)
        assert read == ReadArchive(manifest, True)
        assert taken.members["services/core/run.py"] == b"print()\n" * 200_000
        assert taken.members["configuration/config/helm.toml"] == b"[http]\n"
        assert {"services/core/a \u2713 \udcff", f"services/core/{'x' * 200}"} <= set(taken.members)
        assert taken.ended == ["configuration", "services/core"]
    assert b"print" not in path.read_bytes()


def test_age_and_tar_alone_open_it(tmp_path: Path) -> None:
    """Where there is no Helm."""
    import subprocess

    archive(tmp_path / "a")
    (tmp_path / "key").write_text(IDENTITY.text)
    command = f"age --decrypt --identity {tmp_path}/key {tmp_path}/a | tar -xz -C {tmp_path}"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)
    assert (tmp_path / "services/core/run.py").stat().st_size == 1_600_000
    assert (tmp_path / "manifest.json").read_bytes() == manifest_text(archive(tmp_path / "b"))


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a"
    archive(path)
    good = path.read_bytes()
    for place in (0, 30, 100, 180, len(good) // 2, len(good) - 1):
        changed = bytearray(good)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert refused(path)
    path.write_bytes(good)
    opened(path)


@pytest.mark.parametrize("left", [0, 10, 250, 70_000, -1])
def test_one_that_is_cut_short_is_found(tmp_path: Path, left: int) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file, encrypted_to((RECIPIENT,), file.fileno()) as stream:
        writer = ArchiveWriter(stream, 0)
        content = os.urandom(300_000)
        with writer.part("configuration"):
            writer.member("configuration", Member("config/x", "file", 0o600, len(content)), iter((content,)))
        writer.finish(replace(MANIFEST, services=(), parts=tuple(writer.parts)), KEY)
    opened(path)
    path.write_bytes(path.read_bytes()[:left])
    assert refused(path)


def test_another_key_does_not_open_it(tmp_path: Path) -> None:
    archive(tmp_path / "a")
    assert refused(tmp_path / "a", new_identity()[0]) == "the key does not open this archive"


def test_what_is_no_identity_is_said(tmp_path: Path) -> None:
    archive(tmp_path / "a")
    assert "the identity can't be used" in refused(tmp_path / "a", AgeIdentity("AGE-SECRET-KEY-1NONSENSE\n"))
    with pytest.raises(BackupError, match="the identity can't be used"):
        recipient_of(AgeIdentity("nonsense"))
    assert "AGE-SECRET" not in repr(IDENTITY)


def test_somebody_else_s_archive_is_refused(tmp_path: Path) -> None:
    """Whoever has the public key can encrypt one; only the owner can sign it."""
    archive(tmp_path / "a", key="another")
    assert "not signed with the key" in refused(tmp_path / "a")
    assert opened(tmp_path / "a", MADE)[0].signed is None


def test_one_that_unpacks_to_more_than_fits_is_refused(tmp_path: Path) -> None:
    archive(tmp_path / "a")
    assert "less free space than that" in refused(tmp_path / "a", limit=lambda: 1_000_000)


def test_a_full_disk_ends_the_writing_with_its_reason() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(BackupError, match=r"[Nn]o space left on device"):
            with encrypted_to((RECIPIENT,), descriptor) as stream:
                for _ in range(100):
                    stream.write(os.urandom(1 << 20))
    finally:
        os.close(descriptor)


def put(path: Path, plain: bytes, level: int = 1) -> None:
    """An archive with this plain content of its tar stream."""
    with path.open("wb") as file, encrypted_to((RECIPIENT,), file.fileno()) as stream:
        packing = zlib.compressobj(level, zlib.DEFLATED, 31)
        stream.write(packing.compress(plain) + packing.flush())


def blocks(name: str, content: bytes = b"", kind: bytes = b"0", target: str = "", mode: int = 0o600) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, mode, len(content)
    return info.tobuf(tarfile.PAX_FORMAT) + content + padding(len(content))


GOOD = blocks("configuration/config/helm.toml", b"[http]\n")
SERVICE = "services/core"
HOSTILE = {
    "an absolute name": blocks("/etc/passwd", b"x"),
    "a name that leads out": blocks(f"{SERVICE}/../../../.ssh/authorized_keys", b"x"),
    "a name that leads out of its service": blocks("services/../x", b"x"),
    "a part that is unknown": blocks("other/x", b"x"),
    "a file that is a part": blocks("configuration", b"x"),
    "a dot": blocks(f"{SERVICE}/./x", b"x"),
    "two slashes": blocks(f"{SERVICE}//x", b"x"),
    "a device": blocks(f"{SERVICE}/null", kind=tarfile.CHRTYPE),
    "a pipe": blocks(f"{SERVICE}/pipe", kind=tarfile.FIFOTYPE),
    "a hard link": blocks(f"{SERVICE}/passwd", kind=tarfile.LNKTYPE, target="/etc/passwd"),
    "a link to an absolute path": blocks(f"{SERVICE}/x", kind=tarfile.SYMTYPE, target="/etc/passwd"),
    "a link that leads out": blocks(f"{SERVICE}/a/x", kind=tarfile.SYMTYPE, target="../../y"),
    "a link in the configuration": blocks("configuration/config/x", kind=tarfile.SYMTYPE, target="y"),
    "a file below a link": blocks(f"{SERVICE}/d", kind=tarfile.SYMTYPE, target="e") + blocks(f"{SERVICE}/d/x", b"x"),
    "a file in place of a link": blocks(f"{SERVICE}/d", kind=tarfile.SYMTYPE, target="e")
    + blocks(f"{SERVICE}/d", b"x"),
    "a file twice": GOOD + GOOD,
    "a part twice": GOOD + blocks(f"{SERVICE}/x", b"x") + blocks("configuration/config/y", b"x"),
    "a name that is too long": blocks(f"{SERVICE}/{'x' * 300}", b"x"),
    "a path that is too long": blocks(f"{SERVICE}/{'x/' * 3000}y", b"x"),
    "a large extended header": blocks(f"{SERVICE}/{'x/' * 40_000}y", b"x"),
    "a dump with a directory": blocks("databases/suite/codex/a/b", b"x"),
    "a dump with a chunk missing": blocks("databases/suite/codex/00000001", b"x"),
    "a link among dumps": blocks("databases/suite/codex/00000000", kind=tarfile.SYMTYPE, target="x"),
    "something after the manifest": blocks("manifest.json", b"{}") + GOOD,
    "two manifests": blocks("manifest.json", b"{}") + blocks("manifest.json", b"{}"),
    "a signature without a manifest": blocks("manifest.hmac", b"x"),
    "a manifest that is none": blocks("manifest.json", b"[]")
    + blocks("manifest.hmac", signature_of(b"[]", KEY).encode()),
    "no manifest": GOOD,
    "nothing": b"",
    "a sparse file": blocks(f"{SERVICE}/x", b"x", kind=tarfile.GNUTYPE_SPARSE),
    "a long name of GNU's": blocks(f"{SERVICE}/x", b"x", kind=tarfile.GNUTYPE_LONGNAME),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused(tmp_path: Path, what: str) -> None:
    put(tmp_path / "a", HOSTILE[what] + bytes(1024))
    assert refused(tmp_path / "a")


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a", header(Member(f"{SERVICE}/x", "file", 0o600, 1 << 50)))
    assert "more in it than a backup can have" in refused(tmp_path / "a")


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """Zeros that compress to a thousandth are read in chunks; what is larger than the limit, not at all."""
    import resource

    path = tmp_path / "a"
    with path.open("wb") as file, encrypted_to((RECIPIENT,), file.fileno()) as stream:
        packing = zlib.compressobj(1, zlib.DEFLATED, 31)
        stream.write(packing.compress(header(Member(f"{SERVICE}/x", "file", 0o600, 1 << 31))))
        for _ in range(64):
            stream.write(packing.compress(bytes(1 << 20)))
        stream.write(packing.flush())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("rb") as reading, pytest.raises(BackupError, match="damaged: it ends too early"):
        read_archive(reading.fileno(), MADE)
    assert "less free space" in refused(path, MADE, limit=lambda: 1 << 30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def signed(path: Path, manifest: Manifest, plain: bytes) -> None:
    text = manifest_text(manifest)
    signature = signature_of(text, KEY).encode()
    put(path, plain + blocks("manifest.json", text) + blocks("manifest.hmac", signature) + bytes(1024))


def test_parts_must_be_those_of_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a"
    good = replace(archive(path), services=())
    configuration = tuple(part for part in good.parts if part.name == "configuration")
    content = blocks("configuration/config", kind=tarfile.DIRTYPE, mode=0o640)
    content += blocks("configuration/config/helm.toml", b"[http]\n", mode=0o640)
    signed(path, replace(good, parts=configuration), content)
    assert opened(path)[0].signed is True
    signed(path, good, content)
    assert refused(path) == "parts of the archive are missing: services/core"
    signed(path, replace(good, parts=()), content)
    assert refused(path) == "the archive has parts that its manifest does not name: configuration"
    signed(path, replace(good, parts=configuration), content.replace(b"[http]", b"[httq]"))
    assert refused(path) == "parts of the archive are not what its manifest says: configuration"
    signed(path, replace(good, format=FORMAT + 1, parts=configuration), content)
    assert refused(path) == f"the archive has format {FORMAT + 1}, and this Helm knows formats up to {FORMAT}"


def test_one_that_changes_between_two_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    known = archive(path)
    content = io.BytesIO()
    content.write(blocks("configuration/config/helm.toml", b"[other]\n"))
    signed(path, known, content.getvalue())
    assert "changed while it was read" in refused(path, known=known)
