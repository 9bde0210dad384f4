"""Which backups there are by their names, which of them are kept, and when one is overdue."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from helmd.model.units.diagnostics import Finding, bad, ok, warn

_NAME = re.compile(r"hivematrix-(\d{8}T\d{6}Z)\.tar\.gz\.age\Z")
PARTIAL = re.compile(r"\.hivematrix-\d{8}T\d{6}Z\.tar\.gz\.age\.partial\Z")
"""An archive that is being written, or whose writing was ended."""
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """An archive in the directory of backups. ``made_at`` is in seconds since the epoch, ``size`` in bytes."""

    name: str
    made_at: float
    size: int


def archive_name(at: float) -> str:
    """Return what the archive of a backup is called that is made at a time."""
    return f"hivematrix-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}.tar.gz.age"


def made_at(name: str) -> float | None:
    """Return when the archive NAME was made, by its name, or None for another file's."""
    found = _NAME.match(name)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def expired(backups: Sequence[StoredBackup], keep: int, days: int, now: float) -> list[StoredBackup]:
    """Return the BACKUPS to delete: those beyond the newest KEEP, and those older than DAYS; never the newest one."""
    newest_first = sorted(backups, key=lambda backup: backup.made_at, reverse=True)
    return [
        backup
        for place, backup in enumerate(newest_first)
        if place and (place >= keep or now - backup.made_at > days * _DAY)
    ]


@dataclass(frozen=True, slots=True)
class LastRun:
    """How the last run of a backup ended. ``sentence`` is the reason of one that failed."""

    at: float
    good: bool
    archive: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What ``helmctl doctor`` judges. Times are in seconds since the epoch, lengths in seconds, sizes in bytes."""

    newest_at: float | None
    total: int
    newest_size: int
    free: int | None
    """On the disk with the archives; None while there are none."""
    last: LastRun | None
    interval: float | None
    """Between two backups by the schedule; None if that is not known, or there is no schedule."""
    scheduled: bool
    identity_here: str
    """The file that opens the archives, if it is on this machine."""
    key_made_at: float
    name: str
    directory: str


def judge_backups(facts: BackupFacts, now: float) -> list[Finding]:
    """Return what is wrong with the backups of a suite that has a key for them."""
    found = []
    if facts.last is not None and not facts.last.good:
        found.append(bad(f"the last backup failed: {facts.last.sentence}", "helmctl backup create"))
    since = facts.key_made_at if facts.newest_at is None else facts.newest_at
    longest = _DAY if facts.interval is None else 2 * facts.interval + _DAY / 4
    if facts.newest_at is None and (not facts.scheduled or now - since > longest):
        found.append(bad("no backup has been made yet", "helmctl backup create"))
    elif facts.newest_at is not None and facts.interval is not None and now - since > longest:
        days = (now - since) / _DAY
        fix = "systemctl --user status helmd-backup.timer helmd-backup.service; helmctl backup create"
        found.append(bad(f"the newest backup is {days:.1f} days old", fix))
    if facts.free is not None and facts.free < 2 * facts.newest_size:
        found.append(
            warn(
                f"{facts.directory} has {facts.free >> 20:,} MB free, and a backup takes"
                f" {facts.newest_size >> 20:,} MB",
                "Keep fewer (backup.keep in helm.toml), or set backup.directory to another disk",
            )
        )
    if facts.identity_here:
        found.append(
            warn(
                f"what opens the backups is on this machine, and would be lost with it: {facts.identity_here}",
                "Move that file to where keys are kept, away from this machine and its backups, and make a second copy",
            )
        )
    if found:
        return found
    if facts.newest_at is None:
        return [ok("the first backup is made by the schedule")]
    return [ok(f"{facts.name} is the newest; all together take {facts.total >> 20:,} MB")]
