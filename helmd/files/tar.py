"""Tar as a stream (POSIX.1-2001, pax): written member by member, and read without trusting what it says.

tarfile reads extended headers of any size into memory, and knows far more than what Helm writes. Here is only what a
backup has: directories, regular files and symbolic links; whatever else is refused.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

BLOCK = 512
CHUNK = 1 << 20
_MAX_EXTENDED = 32 << 10
_TYPES: dict[bytes, "MemberKind"] = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "link"}

MemberKind = Literal["file", "directory", "link"]


class TarError(ValueError):
    """What is read is not a tar archive of Helm's."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member: its name, without a trailing slash. ``target`` is that of a link."""

    name: str
    kind: MemberKind
    mode: int
    size: int
    target: str = ""


def header(member: Member, mtime: int = 0) -> bytes:
    """Return the blocks before the content of a member."""
    info = tarfile.TarInfo(member.name)
    info.type = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}[member.kind]
    info.mode, info.size, info.linkname, info.mtime = member.mode, member.size, member.target, mtime
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return what follows the content of a member."""
    return bytes(-size % BLOCK)


END = bytes(2 * BLOCK)
"""After the last member."""


def read_members(read: Callable[[int], bytes]) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield the members of a stream, each with its content in chunks; what of it is not taken is skipped.

    READ returns exactly as many bytes as it is asked for, fewer only at the end. Raises TarError.
    """
    extended: dict[str, str] = {}
    while True:
        block = _exactly(read, BLOCK)
        if block == bytes(BLOCK):
            if _exactly(read, BLOCK) != bytes(BLOCK) or read(1):
                raise TarError("there is something after its end")
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as problem:
            raise TarError(f"a header is damaged ({problem})") from None
        if info.type == tarfile.XHDTYPE:
            if extended or not 0 < info.size <= _MAX_EXTENDED:
                raise TarError("an extended header is too large")
            extended = _records(_exactly(read, info.size))
            _exactly(read, len(padding(info.size)))
            continue
        member = _member(info, extended)
        extended = {}
        left = [member.size]

        def content(left: list[int] = left) -> Iterator[bytes]:
            while left[0]:
                data = _exactly(read, min(left[0], CHUNK))
                left[0] -= len(data)
                yield data

        chunks = content()
        yield member, chunks
        for _ in chunks:
            pass
        _exactly(read, len(padding(member.size)))


def _member(info: tarfile.TarInfo, extended: dict[str, str]) -> Member:
    name = extended.get("path", info.name)
    kind = _TYPES.get(info.type)
    if kind is None:
        raise TarError(f"{name[:200]!r} is neither a file, a directory nor a symbolic link")
    size = info.size
    if "size" in extended:
        if not extended["size"].isascii() or not extended["size"].isdigit() or len(extended["size"]) > 18:
            raise TarError(f"the size of {name[:200]!r} is not a number")
        size = int(extended["size"])
    if size < 0 or (size and kind != "file"):
        raise TarError(f"{name[:200]!r} has a size that it can't have")
    target = extended.get("linkpath", info.linkname) if kind == "link" else ""
    return Member(name.removesuffix("/") if kind == "directory" else name, kind, info.mode & 0o777, size, target)


def _records(content: bytes) -> dict[str, str]:
    """Return the records of an extended header: ``LENGTH KEY=VALUE`` and a newline each."""
    found = {}
    while content:
        length, space, _ = content.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6 or not len(length) < int(length) <= len(content):
            raise TarError("an extended header is damaged")
        record, content = content[len(length) + 1 : int(length)], content[int(length) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise TarError("an extended header is damaged")
        found[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
    return found


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count) if count else b""
    if len(data) != count:
        raise TarError("it ends too early")
    return data
