"""Names and places: where a sandbox keeps its files, which cgroup is its own, and who is working on it now.

Every sandbox is one directory under the state root, holding its disk image, its console log and what it was
started with. The cached base and layers are under the cache root. Both roots belong to root alone (0700): the
trees inside hold set-uid programs, which no other account of the host should be able to run.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

DEFAULT_NAME = "helm"
ACCOUNT = "hive"
ACCOUNT_UID = 1000
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,30}")


class SandboxError(Exception):
    """Something a person must read: what happened, and in `hint` what to do next."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


def state_root() -> Path:
    """Where running sandboxes live; $HIVEMATRIX_SANDBOX_STATE moves it (a file system with room for packages)."""
    return _root("HIVEMATRIX_SANDBOX_STATE", Path("/var/lib/hivematrix-sandbox"))


def cache_root() -> Path:
    """Where the base and the layers are cached; $HIVEMATRIX_SANDBOX_CACHE or $XDG_CACHE_HOME move it."""
    shared = os.environ.get("XDG_CACHE_HOME")
    fallback = Path(shared) if shared else Path("/var/cache")
    return _root("HIVEMATRIX_SANDBOX_CACHE", fallback / "hivematrix-sandbox")


def _root(variable: str, fallback: Path) -> Path:
    root = Path(os.environ.get(variable) or fallback)
    # These paths become part of overlayfs' option string, where ':' and ',' separate.
    if not root.is_absolute() or any(mark in str(root) for mark in ":,\\\n"):
        raise SandboxError(f"{root} cannot hold sandboxes", "use an absolute path without ':', ',' and '\\'")
    return root


def private_directory(path: Path) -> Path:
    """Make `path` (and what is above it) if need be, closed to other accounts."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def checked_name(name: str) -> str:
    """A name of a sandbox or layer, fit for a host name, a path and a cgroup."""
    if not NAME_PATTERN.fullmatch(name):
        raise SandboxError(
            f"{name!r} is not a name for a sandbox or layer",
            "use a lower-case letter, then up to 30 lower-case letters, digits or '-'",
        )
    return name


@dataclass(frozen=True)
class Settings:
    """What a sandbox was started with; kept beside it so that reboot and powercut start it the same way."""

    network: str
    base: str
    publish: tuple[tuple[int, int], ...] = ()
    layers: tuple[str, ...] = ()
    started: float = field(default_factory=time.time)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Settings":
        raw = json.loads(path.read_text())
        return cls(
            network=str(raw["network"]),
            base=str(raw["base"]),
            publish=tuple((int(host), int(inside)) for host, inside in raw["publish"]),
            layers=tuple(str(layer) for layer in raw["layers"]),
            started=float(raw["started"]),
        )


@dataclass(frozen=True)
class Place:
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
        """Exists once `up` was through; a sandbox without it is being set up or is a leftover of that."""
        return self.directory / "ready"

    @property
    def cgroup(self) -> str:
        return f"hivematrix-sandbox-{self.name}"


def place_of(name: str) -> Place:
    return Place(checked_name(name), state_root() / name)


def all_places() -> list[Place]:
    """Every sandbox that left a directory under the state root, running or not, by name."""
    try:
        names = sorted(entry.name for entry in state_root().iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    return [place_of(name) for name in names if NAME_PATTERN.fullmatch(name)]


@contextmanager
def lock(place: Place) -> Iterator[None]:
    """Keep two invocations from changing one sandbox at once; the lock file is gone afterwards."""
    root = state_root()
    path = root / f".{place.name}.lock"
    while True:
        private_directory(root)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the last one out has just removed the empty directory
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
        # The holder before us unlinks the file as it goes: a lock on a file without a name guards nothing.
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
    """Is an invocation working on it right now?"""
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
