"""Who may read or write a file besides the account that it belongs to: by its mode and its access control list."""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from helmd.model.security.findings import SecurityFinding, SecuritySeverity, security_finding, shell_word

_READ, _WRITE = 4, 2
_USER, _GROUP_OBJECT, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_ENTRY = struct.Struct("<HHI")
"""An entry of an ACL: its tag, permissions, and whose (linux/posix_acl_xattr.h)."""
_SET_ID = 0o6000
_EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file or directory. ``acl`` is its attribute ``system.posix_acl_access``, empty without one.

    ``barrier`` is a directory above it that other accounts can't enter; empty where they can reach it.
    """

    path: str
    mode: int
    uid: int
    gid: int
    acl: bytes = b""
    barrier: str = ""
    directory: bool = False
    capabilities: bool = False


@dataclass(frozen=True, slots=True)
class FileOwner:
    """The account whose files are looked at. ``groups`` are those without other members."""

    uid: int
    name: str
    groups: Collection[int]


def others_with(facts: FileFacts, right: int, owner: FileOwner) -> Iterator[str]:
    """Yield who else has RIGHT (4 to read, 2 to write), as ``everybody``, ``group N`` or ``uid N``."""
    if facts.mode & right:
        yield _EVERYBODY
    group = facts.mode >> 3
    named = list(_named(facts.acl)) if facts.acl else []
    # With an ACL, the group's bits of the mode are the mask of all entries but the owner's and everybody's.
    mask = next((rights for tag, rights, _ in named if tag == _MASK), 7)
    if named:
        group = next((rights for tag, rights, _ in named if tag == _GROUP_OBJECT), 0) & mask
    if group & right and facts.gid not in owner.groups:
        yield f"group {facts.gid}"
    for tag, rights, who in named:
        if not rights & mask & right:
            continue
        if tag == _USER and who not in (0, owner.uid):
            yield f"uid {who} (ACL)"
        elif tag == _GROUP and who not in owner.groups:
            yield f"group {who} (ACL)"


def _named(acl: bytes) -> Iterator[tuple[int, int, int]]:
    for at in range(4, len(acl) - _ENTRY.size + 1, _ENTRY.size):
        yield _ENTRY.unpack_from(acl, at)


def judge_secret(facts: FileFacts, owner: FileOwner, what: str) -> Iterator[SecurityFinding]:
    """Check whether others can read a file that holds a secret: WHAT it is."""
    if readers := list(others_with(facts, _READ, owner)):
        yield security_finding(
            "readable-secret",
            facts.path,
            f"{facts.path} ({what}) can be read by {', '.join(readers)}",
            _evidence(facts),
            f"{_without_acl(facts)}chmod {'700' if facts.directory else '600'} {shell_word(facts.path)}",
            _severity(facts),
        )
    yield from judge_owner(facts, owner)


def judge_writable(facts: FileFacts, owner: FileOwner, what: str) -> Iterator[SecurityFinding]:
    """Check whether others can write a file, which is part of WHAT; whether it is set-user-ID or set-group-ID."""
    sticky = facts.directory and facts.mode & 0o1000
    if not sticky and (writers := list(others_with(facts, _WRITE, owner))):
        yield security_finding(
            "writable-file",
            facts.path,
            f"{facts.path} ({what}) can be written by {', '.join(writers)}",
            _evidence(facts),
            f"{_without_acl(facts)}chmod go-w {shell_word(facts.path)}",
            _severity(facts),
        )
    if not facts.directory and (facts.mode & _SET_ID or facts.capabilities):
        gives = "capabilities" if facts.capabilities else "the rights of its owner or group (setuid, setgid)"
        fix = (
            f"sudo setcap -r {shell_word(facts.path)}" if facts.capabilities else f"chmod ug-s {shell_word(facts.path)}"
        )
        yield security_finding(
            "setuid-file", facts.path, f"{facts.path} ({what}) gives whoever runs it {gives}", _evidence(facts), fix
        )
    yield from judge_owner(facts, owner)


def judge_owner(facts: FileFacts, owner: FileOwner) -> Iterator[SecurityFinding]:
    if facts.uid not in (0, owner.uid):
        yield security_finding(
            "foreign-owner",
            facts.path,
            f"{facts.path} belongs to uid {facts.uid}",
            _evidence(facts),
            f"sudo chown {owner.name}: {shell_word(facts.path)}",
            _severity(facts),
        )


def _severity(facts: FileFacts) -> SecuritySeverity | None:
    return "medium" if facts.barrier else None


def _without_acl(facts: FileFacts) -> str:
    return f"setfacl -b {shell_word(facts.path)}; " if facts.acl else ""


def _evidence(facts: FileFacts) -> list[str]:
    listed = f"mode {facts.mode & 0o7777:04o}, uid {facts.uid}, gid {facts.gid}"
    return [
        f"{facts.path}: {listed}{', with an ACL' if facts.acl else ''}",
        *([f"at present, other accounts can't enter {facts.barrier}"] if facts.barrier else []),
    ]
