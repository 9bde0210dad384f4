"""Secrets that others can read, and files of the suite that others can write."""

import grp
import os
import pwd
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from helmd.model.config.secrets import holds_password, password_files
from helmd.model.security.findings import SecurityFinding
from helmd.model.security.permissions import FileFacts, FileOwner, judge_secret, judge_writable
from helmd.operations.configuration.module_files import FLASKENV
from helmd.operations.diagnostics.context import DoctorContext

_ACL, _CAPABILITY = "system.posix_acl_access", "security.capability"
_NAMES = (FLASKENV, ".env", ".pgpass", "id_rsa", "id_ed25519", "id_ecdsa", "credentials.json")
_SUFFIXES = (".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx")
_MAYBE = (".pem", ".conf", ".ini", ".toml", ".yaml", ".yml", ".json", ".env")
"""Suffixes of files that are secret only if they contain a key or a password."""
_PRIVATE_KEY = b"PRIVATE KEY-----"
_LARGEST = 256 << 10
_MOST_FILES = 200_000
_SECONDS = 20.0
_MOST_FINDINGS = 25
"""Maximum number of findings of a kind per directory."""
_WITHOUT = {".git", "__pycache__", "node_modules", "site-packages"}
"""Directories that are not searched for secrets."""


def file_owner(context: DoctorContext) -> FileOwner:
    """Return the account, and the groups of which it is the only member."""
    entry = pwd.getpwuid(context.uid)
    # Not all accounts of a directory service can be listed, so that only a group of the account's own name counts.
    group = grp.getgrgid(entry.pw_gid)
    alone = group.gr_name == entry.pw_name and set(group.gr_mem) <= {entry.pw_name}
    return FileOwner(context.uid, entry.pw_name, (0, entry.pw_gid) if alone else (0,))


@dataclass(slots=True)
class FileAudit:
    """The findings, and what was not checked, as sentences without a full stop."""

    owner: FileOwner
    findings: list[SecurityFinding] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    _barriers: dict[Path, str] = field(default_factory=dict)
    _files: int = 0
    _deadline: float = field(default_factory=lambda: time.monotonic() + _SECONDS)

    def secret(self, path: Path, what: str) -> None:
        """Check PATH, which contains a secret; a link is followed."""
        facts = self.facts(path)
        if facts is not None:
            self.findings += judge_secret(facts, self.owner, what)

    def writable(self, path: Path, what: str) -> None:
        facts = self.facts(path)
        if facts is not None:
            self.findings += judge_writable(facts, self.owner, what)

    def facts(self, path: Path, entry: os.stat_result | None = None) -> FileFacts | None:
        """Return the facts of the file at PATH, or None if there is none."""
        try:
            found = os.stat(path) if entry is None else entry
        except OSError:
            return None
        return FileFacts(
            str(path),
            stat.S_IMODE(found.st_mode),
            found.st_uid,
            found.st_gid,
            _attribute(path, _ACL),
            self._barrier(path.parent),
            stat.S_ISDIR(found.st_mode),
            not stat.S_ISDIR(found.st_mode) and bool(found.st_mode & 0o111 and _attribute(path, _CAPABILITY)),
        )

    def _barrier(self, directory: Path) -> str:
        """Return the topmost parent of DIRECTORY that other accounts can't enter."""
        if directory not in self._barriers:
            above = self._barrier(directory.parent) if directory != directory.parent else ""
            if not above:
                try:
                    facts = os.stat(directory)
                    group = 0 if facts.st_gid in self.owner.groups else stat.S_IXGRP
                    open_to_others = facts.st_mode & (stat.S_IXOTH | group) or _attribute(directory, _ACL)
                    above = "" if open_to_others else str(directory)
                except OSError:
                    above = str(directory)
            self._barriers[directory] = above
        return self._barriers[directory]

    def tree(self, top: Path, what: str) -> None:
        """Check all files in the directory TOP, the code of WHAT, for write access and secrets."""
        if not top.is_dir():
            return
        found: list[SecurityFinding] = []
        self.writable(top, what)
        for path, facts, secrets in self._walk(top, True):
            if stat.S_ISLNK(facts.st_mode):
                continue
            if facts.st_mode & 0o6022 or facts.st_uid not in (0, self.owner.uid) or _has_capabilities(path, facts):
                looked = self.facts(path, facts)
                if looked is not None and (stat.S_ISREG(facts.st_mode) or looked.directory):
                    found += judge_writable(looked, self.owner, what)
            shown = facts.st_mode & 0o077 or facts.st_uid != self.owner.uid
            if secrets and shown and stat.S_ISREG(facts.st_mode) and (kind := _secret_kind(path, facts)):
                looked = self.facts(path, facts)
                if looked is not None:
                    found += judge_secret(looked, self.owner, f"{kind} of {what}")
        self.findings += _some(found)

    def _walk(self, top: Path, secrets: bool) -> Iterator[tuple[Path, os.stat_result, bool]]:
        pending = [(top, secrets)]
        while pending:
            directory, look = pending.pop()
            if self._files > _MOST_FILES or time.monotonic() > self._deadline:
                self.missing.append(
                    f"files of {top}: more than {_MOST_FILES:,}, or not looked at within {_SECONDS:g} s"
                )
                return
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        self._files += 1
                        facts = entry.stat(follow_symlinks=False)
                        path = Path(entry.path)
                        yield path, facts, look
                        if stat.S_ISDIR(facts.st_mode):
                            pending.append((path, look and entry.name not in _WITHOUT and not _is_environment(path)))
            except OSError as error:
                self.missing.append(f"{directory}: {error.strerror}")


def _is_environment(directory: Path) -> bool:
    """Return whether DIRECTORY is a virtual environment."""
    return (directory / "pyvenv.cfg").exists()


def _has_capabilities(path: Path, facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) and bool(facts.st_mode & 0o111 and _attribute(path, _CAPABILITY))


def _attribute(path: Path, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return b""


def _secret_kind(path: Path, facts: os.stat_result) -> str:
    """Return the kind of secret in the file at PATH; empty for none."""
    name = path.name
    if name in _NAMES or (name.startswith((".env.", "id_rsa")) and not name.endswith(".pub")):
        return "settings with secrets" if name.startswith(".") else "a key"
    if name.endswith(_SUFFIXES):
        return "a key"
    if not name.endswith(_MAYBE) or facts.st_size > _LARGEST:
        return ""
    try:
        with open(path, "rb", opener=_opened) as file:
            content = file.read(_LARGEST)
    except OSError:
        return ""
    if _PRIVATE_KEY in content:
        return "a private key"
    return "settings with a password" if holds_password(content.decode("utf-8", "replace")) else ""


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _some(found: Iterable[SecurityFinding]) -> Iterator[SecurityFinding]:
    counts: dict[str, int] = {}
    for finding in found:
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        if counts[finding.kind] <= _MOST_FINDINGS:
            yield finding


def audit_files(context: DoctorContext) -> FileAudit:
    """Check the suite's configuration, secrets, clusters and checkouts."""
    layout, audit = context.layout, FileAudit(file_owner(context))
    for path in (layout.secrets, *sorted(layout.secrets.glob("*"))):
        audit.secret(path, "a secret of the suite")
    for path in (layout.settings_file, layout.registry_file, *sorted(layout.registry_directory.glob("*.toml"))):
        _configuration(path, audit)
        audit.writable(path, "configuration")
    for path in (layout.machine / "helm.toml", layout.machine / "services.toml"):
        _configuration(path, audit)
    audit.writable(layout.config, "configuration")
    for directory in (layout.units, layout.admin_units):
        audit.writable(directory, "units")
        for path in (*directory.glob("hivematrix*"), *directory.glob("helmd*"), *directory.glob("*.d/*.conf")):
            audit.writable(path, "units")
    for path in (layout.sessions, layout.suite_cluster, layout.store_cluster, layout.jobs):
        audit.secret(path, "state of the suite")
    audit.secret(layout.home / ".pgpass", "passwords of PostgreSQL")
    seen: set[Path] = set()
    for name, service in context.suite.services.items():
        if service.external or not service.path:
            continue
        place = layout.resolve(service.path)
        if place not in seen and place not in (layout.home, Path("/")):
            seen.add(place)
            audit.tree(place, name)
            if (module := layout.module_of(place)) is not None:
                audit.tree(module.shared, name)
        audit.tree(layout.home_of(name), f"the home directory of {name}")
    return audit


def _configuration(path: Path, audit: FileAudit) -> None:
    try:
        text = path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return
    if holds_password(text):
        audit.secret(path, "settings with a password")
    for named in password_files(text):
        audit.secret(Path(named), "a password file")
