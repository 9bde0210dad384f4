"""Atomic file replacement: after a crash or power failure, a file has either its old or its new content."""

import os
import tempfile
from pathlib import Path


def fsync_directory(directory: Path) -> None:
    """Flush DIRECTORY, so that renames in it survive a power failure (fsync(2))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace PATH by a file with content TEXT and permissions MODE; missing directories are created.

    A symbolic link at PATH is replaced, not followed. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_if_changed(path: Path, text: str, mode: int) -> bool:
    """Like `write_atomically`, but if PATH already has content TEXT only set MODE. Return True if it was written."""
    if path.is_file() and not path.is_symlink() and path.read_text(encoding="utf-8", errors="replace") == text:
        path.chmod(mode)
        return False
    write_atomically(path, text, mode)
    return True
