"""The directory of backups, their key, and the result of the last run."""

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from helmd.files.durable import create_atomically, write_atomically
from helmd.model.api.backups import BackupBody, BackupList, BackupRunBody
from helmd.model.backup.kept import PARTIAL, LastRun, StoredBackup, expired, made_at
from helmd.model.backup.manifest import BackupError
from helmd.model.config.settings import Settings
from helmd.model.errors import DeniedError, NotSetUpError
from helmd.model.layout import Layout

MAKE_KEY = "helmctl backup key"


@dataclass(frozen=True, slots=True)
class BackupKey:
    """The public key for encryption, and the secret key that signs manifests."""

    recipient: str
    authentication: str = field(repr=False)


def directory_of(layout: Layout, settings: Settings) -> Path:
    """Return the directory of backups."""
    return layout.resolve(settings.backup_directory) if settings.backup_directory else layout.backups


def backup_key(layout: Layout) -> BackupKey:
    """Return the key for backups.

    Raises NotSetUpError while there is none, and DeniedError for one that can't be used.
    """
    text = _private_text(layout.backup_key)
    if text is None:
        raise NotSetUpError(
            "no key for backups has been made yet", hint=f"Run: {MAKE_KEY}; and keep what it makes elsewhere"
        )
    try:
        return BackupKey(**json.loads(text))
    except (ValueError, TypeError):
        raise DeniedError(
            f"{layout.backup_key} can't be read", hint="Restore it, or remove it and make a new key."
        ) from None


def put_backup_key(layout: Layout, key: BackupKey, identity: str) -> None:
    """Store a new key and its IDENTITY, mode 0600. Raises DeniedError if there is one already."""
    if not create_atomically(layout.backup_identity, identity):
        raise DeniedError(
            f"{layout.backup_identity} is there already", hint="Move it to where keys are kept, then run this again."
        )
    write_atomically(layout.backup_key, json.dumps(asdict(key)) + "\n", 0o600)


def _private_text(path: Path) -> str | None:
    """Return the content of a file of this account that nobody else can read, or None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise DeniedError(f"{path} can't be read: {problem.strerror}", hint=f"ls -l {path}") from problem
    with os.fdopen(descriptor, errors="replace") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise DeniedError(f"{path} is not a file that only this account can read", hint=f"chmod 600 {path}")
        return file.read(65536)


def stored_backups(directory: Path) -> list[StoredBackup]:
    """Return the archives in DIRECTORY, the newest first. Raises BackupError where they can't be read."""
    found = []
    try:
        with suppress(FileNotFoundError), os.scandir(directory) as listed:
            for entry in listed:
                at = made_at(entry.name)
                if at is not None and entry.is_file(follow_symlinks=False):
                    found.append(StoredBackup(entry.name, at, entry.stat(follow_symlinks=False).st_size))
    except OSError as problem:
        raise BackupError(f"{directory} can't be read: {problem.strerror}", hint=f"ls -ld {directory}") from problem
    return sorted(found, key=lambda backup: backup.made_at, reverse=True)


def remove_partial(directory: Path) -> None:
    """Remove leftover files of interrupted runs."""
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if PARTIAL.match(name):
                (directory / name).unlink(missing_ok=True)


def prune(directory: Path, settings: Settings, now: float | None = None) -> Iterator[StoredBackup]:
    """Delete expired archives; return them."""
    stored = stored_backups(directory)
    for backup in expired(stored, settings.backup_keep, settings.backup_keep_days, time.time() if now is None else now):
        try:
            (directory / backup.name).unlink(missing_ok=True)
        except OSError as problem:
            raise BackupError(f"{directory / backup.name} can't be deleted: {problem.strerror}") from problem
        yield backup


def record_last(layout: Layout, run: LastRun) -> None:
    """Record the result of a run."""
    write_atomically(layout.last_backup, json.dumps(asdict(run)) + "\n", 0o600)


def last_run(layout: Layout) -> LastRun | None:
    """Return the result of the last run, or None if there was none, or it is unknown."""
    try:
        return LastRun(**json.loads(layout.last_backup.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def backups_listed(layout: Layout, settings: Settings) -> BackupList:
    """Return the API's list of backups."""
    directory, last = directory_of(layout, settings), last_run(layout)
    try:
        recipient = backup_key(layout).recipient
    except (NotSetUpError, DeniedError):
        recipient = None
    return BackupList(
        tuple(BackupBody(each.name, _time(each.made_at), each.size) for each in stored_backups(directory)),
        str(directory),
        recipient,
        settings.backup_schedule,
        None if last is None else BackupRunBody(_time(last.at), last.good, last.archive, last.sentence),
    )


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
