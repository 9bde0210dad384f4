"""The settings of backups; part of the tables in `helmd.model.config.schema`."""

from helmd.model.config import validators as values
from helmd.model.config.setting import Setting

SHARED_SETTINGS = (
    Setting(
        "shared_paths",
        values.relative_paths,
        "list of paths",
        '[".flaskenv", "instance"] for python',
        "What of its directory is state, and not code: files and directories, relative to path. A backup has them. Of "
        "a module that Helm installs, they are beside its versions, and what has no dot in its name is made as a "
        "directory.",
    ),
    Setting(
        "backup",
        values.choice("auto", "whole", "shared", "nothing"),
        "choice",
        "auto",
        "What of its directory a backup has: all of it but its virtual environment (whole); shared_paths alone "
        "(shared); nothing; or auto: shared_paths where git can bring back the rest, because it is the unchanged "
        "checkout of a commit that is in its remote repository, else all of it.",
    ),
)
"""Of a service: what of its directory a backup has."""

BACKUP_SETTINGS = (
    Setting(
        "backup.directory",
        values.path,
        "path",
        "~/.local/state/hivematrix/backups",
        "Where backups are kept: absolute, or below ~/. Another machine's disk is better than one of this machine.",
    ),
    Setting("backup.keep", values.integer(1, 1000), "number", "7", "How many backups are kept."),
    Setting(
        "backup.keep_days",
        values.integer(1, 3650),
        "days",
        "30",
        "Backups that are older are deleted. The newest one is kept however old it is.",
    ),
    Setting(
        "backup.schedule",
        values.schedule,
        "calendar event",
        "daily",
        'When a backup is made, once helmctl backup key was run: "daily", "Sun 03:00", or another calendar event of '
        'systemd.time(7); "never" for none.',
    ),
    Setting(
        "backup.include_logs",
        values.boolean,
        "boolean",
        "false",
        "Whether backups have the log store as well, which is by far the largest database.",
    ),
    Setting(
        "backup.recipients",
        values.recipients,
        "list of keys",
        "[]",
        "Public keys of age(1) that can open backups as well, besides that of helmctl backup key.",
    ),
)
"""Of Helm itself."""
