"""The record of a module: its source, its versions with their states, and its history.

The state of a version is what the record says, never what the names of directories suggest. The file is hostile until
it was parsed: a backup may have brought it from elsewhere.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from helmd.model.config.validators import git_ref, git_source
from helmd.model.errors import HelmError
from helmd.model.modules.source import COMMIT
from helmd.model.suite.names import fault_in_name

VersionState = Literal["building", "built", "active", "kept", "failed", "removed"]
VERSION_STATES: tuple[VersionState, ...] = get_args(VersionState)
"""``building``: its directory is not complete. ``built``: it could run, and never has. ``active``: the service runs
from it. ``kept``: it was active before. ``failed``: it could not be built, or was rolled back. ``removed``: it has no
directory any more.
"""

GOOD_VERSIONS = 3
"""How many versions are kept that have served, the active one among them."""
MAX_HISTORY = 200
MAX_RECORD = 1 << 20
"""Bytes of a record that are read."""

_VERSION_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}\Z")
_MAX_TEXT = 2000

Made = TypeVar("Made", "Version", "HistoryEntry")


class RecordError(HelmError):
    """The record of a module can't be read, or says what can't be."""

    code = "module_record"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a module. ``detail`` says why it failed, as a sentence. Times are seconds since the epoch."""

    id: str
    commit: str
    state: VersionState
    made_at: float
    detail: str = ""
    served_at: float = 0.0
    """When the service first ran from it and was found well; 0 for never."""
    data: str = ""
    """The stamp of the copies of database and shared files from when it ended to serve; empty for none."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An operation on a module (install, update, rollback, hold ...) and its result."""

    at: float
    action: str
    sentence: str
    version: str = ""
    previous: str = ""
    by: str = ""
    ok: bool = True
    downtime: float = 0.0
    """Seconds for which the module did not serve."""


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """One module. ``ref`` is the branch, tag or commit that it follows; empty for the default branch."""

    name: str
    source: str
    ref: str = ""
    commit: str = ""
    """The commit of the active version."""
    active: str = ""
    """The id of the active version; empty for none."""
    held: bool = False
    held_reason: str = ""
    trusted: bool = False
    """Whether it was installed although its unit guards nothing (``--trust``)."""
    versions: tuple[Version, ...] = ()
    """The oldest first."""
    history: tuple[HistoryEntry, ...] = ()
    """The oldest first."""

    def version(self, version: str) -> Version | None:
        """Return the version with this id."""
        return next((each for each in self.versions if each.id == version), None)

    def other_ref(self, ref: str) -> str:
        """REF, where it is not what the module follows; else empty."""
        return "" if ref == self.ref else ref

    @property
    def active_version(self) -> Version | None:
        return self.version(self.active) if self.active else None

    @property
    def previous(self) -> Version | None:
        """The version that was active last before this one, and is still there."""
        kept = [each for each in self.versions if each.state == "kept"]
        return max(kept, key=lambda each: (each.served_at, each.id), default=None)

    def with_version(self, version: Version) -> "ModuleRecord":
        """This record with VERSION added, or in place of the one with its id."""
        others = [each for each in self.versions if each.id != version.id]
        return replace(self, versions=tuple(sorted((*others, version), key=lambda each: each.id)))

    def activated(self, version: str, at: float) -> "ModuleRecord":
        """This record with VERSION active, and the one that was so kept."""
        changed = []
        for each in self.versions:
            if each.id == version:
                each = replace(each, state="active", served_at=each.served_at or at, detail="")
            elif each.state == "active":
                each = replace(each, state="kept")
            changed.append(each)
        chosen = self.version(version)
        return replace(self, versions=tuple(changed), active=version, commit=chosen.commit if chosen else "")

    def noted(self, entry: HistoryEntry) -> "ModuleRecord":
        """This record with ENTRY in its history; the oldest entries are forgotten."""
        return replace(self, history=(*self.history, entry)[-MAX_HISTORY:])

    @property
    def superfluous(self) -> tuple[Version, ...]:
        """Versions whose directories are not needed once the active one serves: kept ones beyond `GOOD_VERSIONS`, and
        those that failed or were left unfinished before it did.
        """
        kept = sorted((each for each in self.versions if each.state == "kept"), key=lambda each: each.served_at)
        spare = kept[: max(0, len(kept) + bool(self.active) - GOOD_VERSIONS)]
        active = self.active_version
        done = [
            each
            for each in self.versions
            if active is not None and each.state in ("failed", "building", "built") and each.made_at <= active.served_at
        ]
        return (*spare, *done)


def version_id(seconds: float, commit: str) -> str:
    """Return the id of a version of COMMIT that is made at a time: ``20261128T221502Z-0123456789ab``."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(seconds))}-{commit[:12]}"


def is_version_id(text: str) -> bool:
    return _VERSION_ID.match(text) is not None


def record_text(record: ModuleRecord) -> str:
    """Return the content of the file."""
    return json.dumps(asdict(record), indent=1) + "\n"


def record_of(text: str, name: str) -> ModuleRecord:
    """Return the record of the module NAME that TEXT is. Raises RecordError for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong(name, "is not JSON") from None
    if not isinstance(found, dict):
        raise _wrong(name, "is not an object")
    try:
        record = _record(found, name)
    except (TypeError, ValueError) as problem:
        raise _wrong(name, str(problem)) from None
    return record


def _wrong(name: str, why: str) -> RecordError:
    return RecordError(
        f"the record of module {name} (module.json) {why}", hint=f"Install it again: helmctl modules install {name}"
    )


def _record(found: Mapping[str, Any], name: str) -> ModuleRecord:
    if found.get("name") != name or fault_in_name(name):
        raise ValueError("is that of another module")
    versions = tuple(_version(each) for each in _list(found, "versions"))
    if len({each.id for each in versions}) != len(versions):
        raise ValueError("has a version twice")
    record = ModuleRecord(
        name=name,
        source=git_source(found.get("source")),
        ref=git_ref(found["ref"]) if found.get("ref") else "",
        commit=_commit(found["commit"]) if found.get("commit") else "",
        active=_text(found, "active"),
        held=_flag(found, "held"),
        held_reason=_text(found, "held_reason"),
        trusted=_flag(found, "trusted"),
        versions=versions,
        history=tuple(_made(HistoryEntry, each) for each in _list(found, "history")[-MAX_HISTORY:]),
    )
    if record.active and record.active_version is None:
        raise ValueError("has no version that is called the active one")
    return record


def _version(value: object) -> Version:
    version = _made(Version, value)
    if not is_version_id(version.id):
        raise ValueError("has a version whose id is not one")
    if version.state not in VERSION_STATES:
        raise ValueError(f"has a version whose state is not one of {', '.join(VERSION_STATES)}")
    return replace(version, commit=_commit(version.commit))


def _commit(value: object) -> str:
    if not isinstance(value, str) or not COMMIT.match(value):
        raise ValueError("has a commit that is not one")
    return value


def _list(found: Mapping[str, Any], key: str) -> list[Any]:
    value = found.get(key, [])
    if not isinstance(value, list) or len(value) > 10_000:
        raise ValueError(f"has no list of {key}")
    return value


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"has no text as {key}")
    return value


def _flag(found: Mapping[str, Any], key: str) -> bool:
    value = found.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"has neither true nor false as {key}")
    return value


def _made(kind: type[Made], value: object) -> Made:
    """Return a value of KIND from an object.

    Members that it does not know, of another version of Helm, are left out.
    """
    if not isinstance(value, dict):
        raise ValueError("has an entry that is not an object")
    given: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in value:
            continue
        member = value[field.name]
        if field.type in (float, "float"):
            right = isinstance(member, int | float) and not isinstance(member, bool) and abs(member) < 1e11
        elif field.type in (bool, "bool"):
            right = isinstance(member, bool)
        else:
            right = isinstance(member, str) and len(member) <= _MAX_TEXT
        if not right:
            raise ValueError(f"has an entry with a wrong {field.name}")
        given[field.name] = member
    try:
        return kind(**given)
    except TypeError:
        raise ValueError("has an entry that is not complete") from None
