"""Copies of a module's shared files: made while the module is stopped, restored when its change is rolled back.

Modes, times, links and holes are kept; contents are shared with the original where the file system can do that
(ioctl_ficlonerange(2)). Sockets, pipes and devices are skipped.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helmd.files.beneath import opened_directory
from helmd.files.durable import fsync_directory
from helmd.model.errors import HelmError

_FICLONE = 0x40049409
_CHUNK = 8 << 20
_MAX_DEPTH = 60
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)


class SnapshotError(HelmError):
    """Shared files can't be copied or restored."""


@dataclass(frozen=True, slots=True)
class CopiedTree:
    """A copy. ``size`` is in bytes; ``left_out`` are the paths of what is neither file, directory nor link."""

    files: int
    size: int
    left_out: tuple[str, ...]


class _Count:
    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self.left_out: list[str] = []


def copy_tree(source: Path, target: Path) -> CopiedTree:
    """Copy the directory SOURCE to TARGET atomically and durably. Raises SnapshotError.

    An existing TARGET is replaced. Links are copied and not followed.
    """
    partial = _partial(target)
    remove_copy(target)
    count = _Count()
    try:
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        with opened_directory(source) as old, opened_directory(partial) as new:
            _copy_directory(old, new, "", count)
        _flush(partial)
        os.rename(partial, target)
        fsync_directory(target.parent)
    except OSError as problem:
        remove_tree(partial)
        raise SnapshotError(
            f"{source} can't be copied: {problem.strerror}" + (f" ({problem.filename})" if problem.filename else ""),
            hint="Free space on its disk." if problem.errno in (errno.ENOSPC, errno.EDQUOT) else "",
        ) from None
    return CopiedTree(count.files, count.size, tuple(count.left_out))


def exchange_tree(place: Path, copy: Path, aside: Path) -> bool:
    """Move PLACE to ASIDE and COPY to PLACE; return False if that was done already.

    Can be repeated after an interruption at any point. Raises SnapshotError if neither exists.
    """
    try:
        if not copy.exists():
            if place.exists():
                return False
            raise SnapshotError(f"the copy of {place} is missing: {copy}")
        aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.exists():
            remove_tree(aside)
            os.rename(place, aside)
            fsync_directory(aside.parent)
        os.rename(copy, place)
        fsync_directory(place.parent)
        fsync_directory(copy.parent)
    except OSError as problem:
        raise SnapshotError(f"{place} can't be restored: {problem.strerror} ({problem.filename})") from None
    return True


def remove_tree(directory: Path) -> None:
    """Remove a directory tree, if it exists, also one with read-only directories."""
    if not directory.is_dir() or directory.is_symlink():
        with suppress(FileNotFoundError):
            directory.unlink()
        return

    def forced(function: object, path: str, problem: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            if os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, 0o700)
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)

    shutil.rmtree(directory, onerror=forced)
    if directory.exists():
        raise SnapshotError(f"{directory} can't be removed")


def remove_copy(target: Path) -> None:
    """Remove what `copy_tree` has made at TARGET, complete or not. Raises SnapshotError."""
    remove_tree(_partial(target))
    remove_tree(target)


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def tree_stamp(directory: Path) -> str:
    """Return a digest of names, modes, sizes and times, not contents, to detect changes below DIRECTORY."""
    digest = hashlib.sha256()
    for line in _described(directory):
        digest.update(line)
    return digest.hexdigest()


def _described(directory: Path) -> Iterator[bytes]:
    try:
        with opened_directory(directory) as top:
            yield from _described_below(top, "")
    except FileNotFoundError:
        return


def _described_below(folder: int, above: str) -> Iterator[bytes]:
    for name in sorted(os.listdir(folder)):
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind, changed = stat.S_IFMT(facts.st_mode), facts.st_mtime_ns
        if kind in (stat.S_IFDIR, stat.S_IFLNK):
            # The time of a directory changes when what is in it does, which is seen there.
            changed = 0
        size = 0 if kind == stat.S_IFDIR else facts.st_size
        yield repr((above + name, facts.st_mode, size, changed)).encode(errors="surrogateescape")
        if kind == stat.S_IFDIR and above.count("/") < _MAX_DEPTH:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                yield from _described_below(inner, f"{above}{name}/")
            finally:
                os.close(inner)


def _copy_directory(old: int, new: int, above: str, count: _Count) -> None:
    if above.count("/") > _MAX_DEPTH:
        raise OSError(errno.ELOOP, "it is nested too deeply", above)
    for name in sorted(os.listdir(old)):
        facts = os.stat(name, dir_fd=old, follow_symlinks=False)
        relative = f"{above}{name}"
        if stat.S_ISDIR(facts.st_mode):
            os.mkdir(name, 0o700, dir_fd=new)
            inner_old = inner_new = -1
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                inner_old = os.open(name, flags, dir_fd=old)
                inner_new = os.open(name, flags, dir_fd=new)
                _copy_directory(inner_old, inner_new, f"{relative}/", count)
            finally:
                for descriptor in (inner_old, inner_new):
                    if descriptor >= 0:
                        os.close(descriptor)
        elif stat.S_ISREG(facts.st_mode):
            _copy_file(old, new, name)
            count.files += 1
            count.size += facts.st_size
        elif stat.S_ISLNK(facts.st_mode):
            os.symlink(os.readlink(name, dir_fd=old), name, dir_fd=new)
            continue
        else:
            count.left_out.append(relative)
            continue
        os.utime(name, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=new)
    facts = os.fstat(old)
    os.fchmod(new, stat.S_IMODE(facts.st_mode))


def _copy_file(old: int, new: int, name: str) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=old)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=new)
        try:
            if not _cloned(source, target):
                _copy_data(source, target)
            os.fchmod(target, stat.S_IMODE(os.fstat(source).st_mode))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as problem:
        if problem.errno in _NO_CLONE:
            return False
        raise
    return True


def _copy_data(source: int, target: int) -> None:
    """Copy data and leave out holes, so that a sparse file stays one."""
    size, place = os.fstat(source).st_size, 0
    while place < size:
        try:
            begin = os.lseek(source, place, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(source, begin, os.SEEK_HOLE)
        os.lseek(source, begin, os.SEEK_SET)
        os.lseek(target, begin, os.SEEK_SET)
        while begin < end:
            data = os.read(source, min(end - begin, _CHUNK))
            if not data:
                raise OSError(errno.EIO, "it became shorter while it was copied")
            begin += os.write(target, data)
            os.lseek(source, begin, os.SEEK_SET)
        place = end
    os.ftruncate(target, size)


def _flush(directory: Path) -> None:
    """Flush the file system that DIRECTORY is in: one call instead of one for each file (sync(2))."""
    os.sync()
    fsync_directory(directory)
