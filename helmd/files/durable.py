"""Files that are either the old or the new one after a power cut, and never half of either."""

import os
import tempfile
from pathlib import Path


def fsync_directory(directory: Path) -> None:
    """Makes renames inside DIRECTORY survive a power cut (fsync(2))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Puts TEXT at PATH with these permissions, making its directory; a symbolic link is replaced, not followed."""
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
    """As `write_atomically`, but leaves a regular file that already says TEXT; True when it wrote."""
    if path.is_file() and not path.is_symlink() and path.read_text(encoding="utf-8", errors="replace") == text:
        path.chmod(mode)
        return False
    write_atomically(path, text, mode)
    return True
