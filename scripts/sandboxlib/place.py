"""Paths, names and locks of sandboxes.

Every sandbox is a directory in the state root with its disk image, console log and settings. The cached base and layers
are in the cache root. Both are accessible to root only (0700), since the trees contain set-uid programs, which other
accounts of the host must not be able to run.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

DEFAULT_NAME = "helm"
ACCOUNT = "hive"
ACCOUNT_UID = 1000
RELEASES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
DEFAULT_RELEASE = "trixie"
TASKS = 4096
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,30}")


class SandboxError(Exception):
    """An error for the user: what happened, and in `hint` what to do next."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


def state_root() -> Path:
    """Return the directory of running sandboxes; $HIVEMATRIX_SANDBOX_STATE overrides it."""
    return _root("HIVEMATRIX_SANDBOX_STATE", Path("/var/lib/hivematrix-sandbox"))


def cache_root() -> Path:
    """Return the directory of base and layers; $HIVEMATRIX_SANDBOX_CACHE or $XDG_CACHE_HOME override it."""
    shared = os.environ.get("XDG_CACHE_HOME")
    fallback = Path(shared) if shared else Path("/var/cache")
    return _root("HIVEMATRIX_SANDBOX_CACHE", fallback / "hivematrix-sandbox")


def _root(variable: str, fallback: Path) -> Path:
    root = Path(os.environ.get(variable) or fallback)
    # These paths become part of overlayfs mount options, where ':' and ',' are separators.
    if not root.is_absolute() or any(mark in str(root) for mark in ":,\\\n"):
        raise SandboxError(f"{root} cannot hold sandboxes", "use an absolute path without ':', ',' and '\\'")
    return root


def private_directory(path: Path) -> Path:
    """Create `path` and its parents if missing, inaccessible to other accounts."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def checked_name(name: str) -> str:
    """Return `name` if it is valid for a sandbox or layer (as host name, path and cgroup). Raises SandboxError."""
    if not NAME_PATTERN.fullmatch(name):
        raise SandboxError(
            f"{name!r} is not a name for a sandbox or layer",
            "use a lower-case letter, then up to 30 lower-case letters, digits or '-'",
        )
    return name


class Place(NamedTuple):
    """The paths of one sandbox."""

    name: str
    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def disk_mount(self) -> Path:
        return self.directory / "disk"

    @property
    def root_mount(self) -> Path:
        return self.directory / "root"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def settings(self) -> Path:
        return self.directory / "sandbox.json"

    @property
    def ready(self) -> Path:
        """Exists after `up` completed; without it, the sandbox is being set up or was left by an interrupted `up`."""
        return self.directory / "ready"

    @property
    def cgroup(self) -> str:
        return f"hivematrix-sandbox-{self.name}"


def place_of(name: str) -> Place:
    return Place(checked_name(name), state_root() / name)


def all_places() -> list[Place]:
    """Return all sandboxes with a directory in the state root, running or not, by name."""
    try:
        names = sorted(entry.name for entry in state_root().iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    return [place_of(name) for name in names if NAME_PATTERN.fullmatch(name)]


@contextmanager
def lock(place: Place) -> Iterator[None]:
    """Hold the lock for changing a sandbox; the lock file is removed afterwards."""
    root = state_root()
    path = root / f".{place.name}.lock"
    while True:
        private_directory(root)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # another process has just removed the empty directory
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode().strip()
            os.close(descriptor)
            raise SandboxError(
                f"another scripts/sandbox (pid {holder or 'unknown'}) is working on {place.name!r}",
                "wait for it to end, or use another --name",
            ) from None
        # The previous holder unlinks the file when it releases the lock; a lock on an unlinked file is void.
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):
            root.rmdir()


def busy(place: Place) -> bool:
    """Return whether another process holds the lock."""
    try:
        descriptor = os.open(state_root() / f".{place.name}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
