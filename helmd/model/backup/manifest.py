"""The manifest of a backup: what is in the archive, of which suite, and by what a restore is checked.

It is the last member but one of the archive, since only then all sizes and hashes are known. What follows it is an HMAC
of it (RFC 2104), by which a restore recognizes an archive of its own: whoever has the public key can encrypt another.
An archive may come from anywhere, so everything in a manifest is checked when it is read.
"""

import hashlib
import hmac
import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from helmd.model.errors import HelmError

FORMAT = 1
"""Of the archive. A later one than this is refused."""
MANIFEST_FILE, SIGNATURE_FILE = "manifest.json", "manifest.hmac"
MAX_MANIFEST = 16 << 20
CONFIGURATION, STATE_PART, SERVICES, ROLES_PART, DATABASES = "configuration", "state", "services", "roles", "databases"
"""Kinds of parts, in the order in which they are in an archive. Names of parts begin with their kind."""
PART_KINDS = (CONFIGURATION, STATE_PART, SERVICES, ROLES_PART, DATABASES)
SUITE, STORE = "suite", "store"
"""Clusters: the suite's, and that of the log store."""

Made = TypeVar("Made")


class BackupError(HelmError):
    """A backup could not be made, read or restored."""

    code: ClassVar[str] = "backup"


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """A part of an archive: its members' names begin with ``name`` and a slash. Sizes are in bytes."""

    name: str
    members: int
    size: int
    sha256: str
    """Of names, modes, sizes and contents, in the order of the archive (`PartDigest`)."""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """A database as its dump must restore it."""

    cluster: Literal["suite", "store"]
    name: str
    taken_at: float
    """When its snapshot was taken, in seconds since the epoch."""
    tables: Mapping[str, int]
    """Rows by table, all schemas and partitions."""
    schema_sha256: str
    """Of what the catalogue says about tables, columns, constraints, functions, owners and rights."""

    @property
    def part(self) -> str:
        return f"{DATABASES}/{self.cluster}/{self.name}"


@dataclass(frozen=True, slots=True)
class EnvironmentRef:
    """A virtual environment, which is not in the archive but made again. ``packages`` are like ``flask==3.0.0``."""

    directory: str
    version: str
    system_site_packages: bool
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """A service's directory: in the archive as a whole, or its shared paths and where git has the rest."""

    name: str
    type: str
    path: str
    port: int
    """0 without one."""
    saved: Literal["whole", "shared", "nothing"]
    remote: str = ""
    commit: str = ""
    changed: bool = False
    """Whether files differ from the commit."""
    environment: EnvironmentRef | None = None
    disabled: bool = False
    """Whether the admin has taken its unit out of what starts with the suite."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive is. ``created_at`` is in seconds since the epoch."""

    format: int
    helm_version: str
    host: str
    account: str
    home: str
    created_at: float
    postgresql: int
    """Major version of the suite's PostgreSQL, 0 without one."""
    realm: str
    """Keycloak's realm that must be in its database; empty without a Keycloak of the suite's own."""
    parts: tuple[ArchivePart, ...]
    databases: tuple[DatabaseFacts, ...]
    services: tuple[ServiceRef, ...]
    left_out: tuple[str, ...]
    """What could not be taken, each as a sentence."""

    def part(self, name: str) -> ArchivePart | None:
        return next((part for part in self.parts if part.name == name), None)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def database_size(self) -> int:
        return sum(part.size for part in self.parts if part.name.startswith(f"{DATABASES}/"))


class PartDigest:
    """The hash of a part, fed member by member."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hash = hashlib.sha256()
        self._members = self._size = 0

    def member(self, name: str, kind: str, mode: int, size: int, target: str = "") -> None:
        """A member begins; its SIZE bytes follow."""
        words = "\0".join((name, kind, f"{mode:o}", str(size), target))
        raw = words.encode("utf-8", "surrogateescape")
        self._hash.update(b"%d:" % len(raw) + raw)
        self._members += 1
        self._size += size

    def content(self, data: bytes) -> None:
        self._hash.update(data)

    @property
    def part(self) -> ArchivePart:
        return ArchivePart(self._name, self._members, self._size, self._hash.hexdigest())


def manifest_text(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest), indent=1).encode() + b"\n"


def signature_of(text: bytes, key: str) -> str:
    """Return the HMAC-SHA-256 of a manifest, in hexadecimal."""
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()


def signed_by(text: bytes, signature: str, key: str) -> bool:
    return hmac.compare_digest(signature_of(text, key).encode(), signature.encode("utf-8", "surrogateescape"))


def read_manifest(text: bytes) -> Manifest:
    """Raise BackupError for what is not a manifest of a format that this Helm knows."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
        if isinstance(known := found.get("format"), int) and known > FORMAT:
            raise BackupError(
                f"the archive has format {known}, and this Helm knows formats up to {FORMAT}",
                hint="Install the version of Helm that made it, or a later one.",
            )
        manifest = _strict(Manifest, found)
        _check(manifest)
    except (ValueError, RecursionError) as problem:
        raise BackupError(f"the archive's manifest can't be read: {problem}") from None
    return manifest


def _check(manifest: Manifest) -> None:
    names = [part.name for part in manifest.parts]
    if len(set(names)) != len(names):
        raise ValueError("two parts have the same name")
    for name in names:
        if kind_of_part(name) is None:
            raise ValueError(f"a part has the name {name[:60]!r}")
    for facts in manifest.databases:
        if facts.part not in names:
            raise ValueError(f"the database {facts.name[:60]!r} has no part")


def kind_of_part(name: str) -> str | None:
    """Return the kind of the part NAME, or None if no part can have that name."""
    words = name.split("/")
    lengths = {CONFIGURATION: 1, STATE_PART: 1, SERVICES: 2, ROLES_PART: 2, DATABASES: 3}
    if any(word in ("", ".", "..") or "\0" in word for word in words):
        return None
    return words[0] if lengths.get(words[0]) == len(words) else None


def part_of_member(name: str) -> tuple[str, str] | None:
    """Return the part that the member NAME belongs to, and its name in that part, or None if it belongs to none."""
    words = name.split("/")
    for count in (1, 2, 3):
        if kind_of_part(part := "/".join(words[:count])) is not None:
            rest = words[count:]
            if not rest or any(word in ("", ".", "..") or "\0" in word for word in rest):
                return None
            return part, "/".join(rest)
    return None


def link_fault(name: str, target: str) -> str:
    """Return why a symbolic link NAME in a part may not lead to TARGET; empty if that stays in the part."""
    if not target or target.startswith("/") or "\0" in target:
        return "it leads out of its directory"
    depth = name.count("/")
    for word in target.split("/"):
        if word == "..":
            depth -= 1
        elif word not in ("", "."):
            depth += 1
        if depth < 0:
            return "it leads out of its directory"
    return ""


def _strict(kind: type[Made], given: Any) -> Made:
    """Return a dataclass of JSON whose types must fit. Raises ValueError."""
    if not isinstance(given, dict):
        raise ValueError(f"{kind.__name__} is not an object")
    hints = get_type_hints(kind)
    values = {
        each.name: _value(hints[each.name], given[each.name], each.name)
        for each in fields(kind)  # type: ignore[arg-type]
        if each.name in given
    }
    try:
        return kind(**values)
    except TypeError:
        raise ValueError(f"{kind.__name__} lacks a field") from None


def _value(kind: Any, given: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if given is None else _value(arguments[0], given, name)
    if origin is tuple and isinstance(given, list):
        return tuple(_value(arguments[0], item, name) for item in given)
    if origin is Literal and isinstance(given, str) and given in arguments:
        return given
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(given, dict):
        return {key: _value(arguments[1], value, name) for key, value in given.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return _strict(kind, given)
    if kind is float and isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    if kind in (str, int, bool) and type(given) is kind:
        return given
    raise ValueError(f"{name} has a value of another type")
