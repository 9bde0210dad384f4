"""Files in directories that others write to, such as the checkouts of services: reached without following their links.

A service may put a symbolic link anywhere in its checkout, and so could have Helm, which has all of the account's
rights, write to another place. So directories are opened one after the other, each in the one before (openat(2)). A
link is followed only where no process of this account could have put it: in directories of root's.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helmd.files.durable import write_in

LARGEST = 1 << 20
"""Bytes of a file in a checkout that are read."""


@contextmanager
def opened_directory(path: Path, below: Path | None = None) -> Iterator[int]:
    """Yield a descriptor of the directory at PATH (absolute).

    With BELOW, missing directories below that are made, mode 0700. Raises OSError; with ELOOP and the link's path as
    its file name for a link that is not followed.
    """
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = Path("/")
        rooted = os.geteuid() != 0
        for part in path.parts[1:]:
            rooted = rooted and _only_root_writes(descriptor)
            place /= part
            inner = _enter(descriptor, place, rooted, below is not None and place != below and below in place.parents)
            os.close(descriptor)
            descriptor = inner
        # A descriptor of O_PATH can neither be read nor flushed.
        inner = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(directory: int, place: Path, follow: bool, make: bool) -> int:
    """Return a descriptor of the directory PLACE, which is in the open DIRECTORY."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        return os.open(place.name, flags, dir_fd=directory)
    except FileNotFoundError:
        if not make:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(place)) from None
        os.mkdir(place.name, 0o700, dir_fd=directory)
        return os.open(place.name, flags | os.O_NOFOLLOW, dir_fd=directory)
    except NotADirectoryError:
        # What Linux says of a link, too, with both O_DIRECTORY and O_NOFOLLOW.
        if stat.S_ISLNK(os.stat(place.name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "is a symbolic link", str(place)) from None
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place)) from None


def _only_root_writes(directory: int) -> bool:
    facts = os.fstat(directory)
    return facts.st_uid == 0 and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def read_in(directory: int, name: str) -> bytes | None:
    """Return the content of the file NAME in an open directory, or None if there is none.

    Raises OSError for a link, for what is not a regular file of this account with one name, and for one larger than
    LARGEST.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link", name) from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise OSError(errno.EINVAL, "is not a regular file, or has other names", name)
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(errno.EFBIG, f"is larger than {LARGEST >> 20} MiB", name)
    return content


def write_below(directory: Path, name: str, content: bytes, mode: int) -> bool:
    """Make the file NAME (a relative path) below DIRECTORY have CONTENT and permissions MODE; True if it was written.

    Missing directories in between are made. A link in the place of the file is replaced. Raises OSError, with the path
    at fault as its file name.
    """
    path = directory / name
    with opened_directory(path.parent, directory) as folder:
        try:
            facts = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
            same = facts.st_mode == stat.S_IFREG | mode and read_in(folder, path.name) == content
        except OSError:
            same = False
        if same:
            return False
        try:
            write_in(folder, path.name, content, mode)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
    return True
