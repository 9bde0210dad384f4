"""Atomic file replacement: after a crash or power failure, a file has either its old or its new content."""

import contextlib
import os
from pathlib import Path


def fsync_directory(directory: Path) -> None:
    """Flush DIRECTORY, so that renames in it survive a power failure (fsync(2))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_in(directory: int, name: str, content: bytes, mode: int, *, replace: bool = True) -> None:
    """Create or replace the file NAME in the open DIRECTORY with CONTENT and permissions MODE, atomically and durably.

    A symbolic link at NAME is replaced, not followed. Without REPLACE, raises FileExistsError if NAME exists.
    """
    # With a letter, as no date has it: what is left of it is found by that (helmd.files.leftovers).
    temporary = f".{name}.{os.urandom(4).hex()[:7]}f"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            os.unlink(temporary, dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace PATH by a file with content TEXT and permissions MODE; missing directories are created.

    A symbolic link at PATH is replaced, not followed. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_in(directory, path.name, text.encode("utf-8", "surrogateescape"), mode)
    finally:
        os.close(directory)


def create_atomically(path: Path, text: str, mode: int = 0o600) -> bool:
    """Create PATH with content TEXT, unless it exists; return True if it was created (by one of several processes).

    A missing directory is created with permissions 0700. Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_in(directory, path.name, text.encode(), mode, replace=False)
    except FileExistsError:
        return False
    finally:
        os.close(directory)
    return True


def write_if_changed(path: Path, text: str, mode: int) -> bool:
    """Like `write_atomically`, but if PATH already has content TEXT only set MODE. Return True if it was written."""
    if path.is_file() and not path.is_symlink() and path.read_text(encoding="utf-8", errors="replace") == text:
        path.chmod(mode)
        return False
    write_atomically(path, text, mode)
    return True
