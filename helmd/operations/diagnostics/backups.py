"""The check of ``helmctl doctor`` for backups: existence, age, and whether they can be decrypted."""

import os
import time

from helmd.model.backup.kept import BackupFacts, judge_backups
from helmd.model.errors import HelmError, NotSetUpError
from helmd.model.suite.names import NO_SCHEDULE
from helmd.model.units.diagnostics import Finding, ok, warn
from helmd.operations.backup.kept import MAKE_KEY, backup_key, directory_of, last_run, stored_backups
from helmd.operations.diagnostics.context import DoctorContext
from helmd.systemd.calendar import calendar_interval


def backups(context: DoctorContext) -> list[Finding]:
    """Check whether the suite could be restored after the loss of this machine."""
    layout, settings = context.layout, context.settings
    if not context.suite.services:
        return [ok("there is nothing to back up yet")]
    try:
        backup_key(layout)
    except NotSetUpError:
        fix = f"{MAKE_KEY}; then keep the file that it names elsewhere, and try: helmctl backup create"
        return [warn("no backups are made: with this machine, the suite would be lost", fix)]
    directory = directory_of(layout, settings)
    stored = stored_backups(directory)
    scheduled = settings.backup_schedule != NO_SCHEDULE
    space = os.statvfs(directory) if stored else None
    facts = BackupFacts(
        stored[0].made_at if stored else None,
        sum(backup.size for backup in stored),
        stored[0].size if stored else 0,
        None if space is None else space.f_bavail * space.f_frsize,
        last_run(layout),
        calendar_interval(settings.backup_schedule) if scheduled else None,
        scheduled,
        str(layout.backup_identity) if layout.backup_identity.exists() else "",
        layout.backup_key.stat().st_mtime,
        stored[0].name if stored else "",
        str(directory),
    )
    return judge_backups(facts, time.time())


def backup_troubles(context: DoctorContext) -> list[str]:
    """Return why a recent state of the suite can't be restored: backups that failed, or are overdue, as
    sentences.
    """
    try:
        found = backups(context)
    except HelmError as error:
        return [f"Backups: {error.sentence}. {error.hint}"]
    except OSError as problem:
        return [f"Backups: {problem.filename} can't be read: {problem.strerror}. Run: helmctl doctor"]
    return [f"Backups: {each.sentence}. Run: {each.fix}" for each in found if each.verdict == "bad"]
