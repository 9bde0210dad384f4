"""Whole directory trees that others write to, read and written without following their links."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from helmd.files.beneath import opened_directory
from helmd.files.tar import CHUNK, Member

_MAX_DEPTH = 60


class ChangedFileError(OSError):
    """A file became shorter while it was read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What `entries` found: a member by its path below the directory, with its content; or why there is none."""

    member: Member
    chunks: Iterator[bytes]
    left_out: str = ""


def entries(directory: Path, skipped: Callable[[str], bool] = lambda name: False) -> Iterator[Entry]:
    """Yield all files, directories and links below DIRECTORY, a directory before what is in it, in the order of names.

    SKIPPED says of a relative path that it is not wanted. Take the content of each before the next. Raises OSError if
    DIRECTORY itself can't be read, and ChangedFileError.
    """
    with opened_directory(directory) as top:
        yield from _entries(top, "", skipped)


def entry_of(directory: Path, name: str, skipped: Callable[[str], bool] = lambda name: False) -> Iterator[Entry]:
    """As `entries`, of the one file or directory NAME below DIRECTORY, and what is in it; nothing if there is none."""
    place = directory / name
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(opened_directory(place.parent))
            os.stat(place.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as problem:
            yield _left_out(name, problem.strerror)
            return
        yield from _entry(folder, place.name, name, skipped)


def _entries(folder: int, above: str, skipped: Callable[[str], bool]) -> Iterator[Entry]:
    for name in sorted(os.listdir(folder)):
        relative = f"{above}{name}"
        if not skipped(relative):
            with suppress(FileNotFoundError):
                yield from _entry(folder, name, relative, skipped)


def _entry(folder: int, name: str, relative: str, skipped: Callable[[str], bool]) -> Iterator[Entry]:
    facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    mode = stat.S_IMODE(facts.st_mode) & 0o777
    if stat.S_ISLNK(facts.st_mode):
        yield Entry(Member(relative, "link", 0o777, 0, os.readlink(name, dir_fd=folder)), iter(()))
    elif stat.S_ISDIR(facts.st_mode):
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError as problem:
            yield _left_out(relative, problem.strerror)
            return
        try:
            yield Entry(Member(relative, "directory", mode, 0), iter(()))
            if relative.count("/") >= _MAX_DEPTH:
                yield _left_out(relative, "what is in it is nested too deeply")
                return
            yield from _entries(inner, f"{relative}/", skipped)
        finally:
            os.close(inner)
    elif stat.S_ISREG(facts.st_mode):
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        except OSError as problem:
            yield _left_out(relative, problem.strerror)
            return
        try:
            now = os.fstat(descriptor)
            if not stat.S_ISREG(now.st_mode):
                yield _left_out(relative, "it is not a regular file")
                return
            yield Entry(Member(relative, "file", mode, now.st_size), _content(descriptor, now.st_size, relative))
        finally:
            os.close(descriptor)
    else:
        yield _left_out(relative, "it is neither a file, a directory nor a link")


def _left_out(relative: str, why: str | None) -> Entry:
    return Entry(Member(relative, "file", 0, 0), iter(()), why or "it can't be read")


def _content(descriptor: int, size: int, name: str) -> Iterator[bytes]:
    left = size
    while left:
        data = os.read(descriptor, min(left, CHUNK))
        if not data:
            raise ChangedFileError(errno.EIO, "became shorter while it was read", name)
        left -= len(data)
        yield data


def put_member(directory: Path, member: Member, chunks: Iterable[bytes]) -> None:
    """Make what MEMBER says below DIRECTORY, which is made; a file or link that is there is replaced.

    Flushed is nothing: call os.sync() once for all. Raises OSError, with the path at fault.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / member.name
    with opened_directory(path.parent, directory) as folder:
        try:
            if member.kind == "directory":
                with suppress(FileExistsError):
                    os.mkdir(path.name, 0o700, dir_fd=folder)
                inner = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                try:
                    os.fchmod(inner, member.mode | 0o700)
                finally:
                    os.close(inner)
            elif member.kind == "link":
                with suppress(FileNotFoundError):
                    os.unlink(path.name, dir_fd=folder)
                os.symlink(member.target, path.name, dir_fd=folder)
            else:
                _put_file(folder, path.name, member.mode, chunks)
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, str(path)) from None


def _put_file(folder: int, name: str, mode: int, chunks: Iterable[bytes]) -> None:
    temporary = f".{name[:200]}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for data in chunks:
                file.write(data)
            os.fchmod(file.fileno(), mode)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def size_below(directory: Path, skipped: Callable[[str], bool] = lambda name: False) -> int:
    """Return bytes in the files below DIRECTORY; 0 if there is none."""
    try:
        return sum(entry.member.size for entry in entries(directory, skipped))
    except FileNotFoundError:
        return 0
