"""``helmctl backup``, ``helmctl restore`` and ``helmctl verify``: the suite in one encrypted archive, and back."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helmd.cli import account, exits, output
from helmd.cli.arguments import CommandGroup, ExistingPath
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.model.counted import counted
from helmd.model.errors import UsageError

if TYPE_CHECKING:
    from helmd.operations.backup.encryption import AgeIdentity

_FILE = ExistingPath()


def _notify(sentence: str) -> None:
    output.print_message(f"• {sentence}")


@click.group("backup", cls=CommandGroup, short_help="Back up the suite into encrypted archives.")
def backup_command() -> None:
    """Back up the suite: databases, realm, configuration, secrets and state, in one archive encrypted by age(1).

    Each backup is restored on trial into a cluster of its own and compared before it counts. What opens the archives is
    made by "helmctl backup key", and belongs elsewhere; from then on a timer makes backups (backup.schedule).
    """


@backup_command.command("key", short_help="Make the key that backups need.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
@audited("backup key")
def backup_key_command(context: Context, as_json: bool) -> int:
    """Make the key for backups, unless there is one, and print where it is.

    Keep the file with the identity where this machine's end does not reach it: without it no backup can be opened.
    Making backups needs its public key only, so the file can be moved away.
    """
    from helmd.model.errors import NotSetUpError
    from helmd.model.suite.names import BACKUP_TIMER
    from helmd.operations.backup.encryption import AUTHENTICATION, new_identity
    from helmd.operations.backup.kept import BackupKey, backup_key, put_backup_key
    from helmd.operations.configuration.apply import apply, changes

    layout = context.layout
    settings, suite = context.settings, context.suite
    try:
        key = backup_key(layout)
    except NotSetUpError:
        import secrets

        identity, recipient = new_identity()
        key = BackupKey(recipient, secrets.token_urlsafe(32))
        put_backup_key(layout, key, f"{AUTHENTICATION}{key.authentication}\n{identity.text}")
    # Also with a key that was there: the run that made it may not have come to this.
    timer = [change for change in changes(suite, layout, settings) if change.unit == BACKUP_TIMER]
    if any(change.pending for change in timer):
        apply(timer, suite, layout, settings, context.manager)
    present = layout.backup_identity.exists()
    if as_json:
        output.print_json({"recipient": key.recipient, "identity": str(layout.backup_identity) if present else None})
        return exits.OK
    output.print_line(f"Backups are encrypted for {key.recipient}")
    if present:
        output.print_line(f"What opens them: {layout.backup_identity}")
        output.print_message(
            "Move that file off this machine, and keep a second copy: with this machine it would be lost, and no backup"
            " could be opened."
        )
    else:
        output.print_message("What opens them is not on this machine any more, as it should be.")
    return exits.OK


@backup_command.command("create", short_help="Make a backup now, and restore it on trial.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
@audited("backup create")
def backup_create_command(context: Context, as_json: bool) -> int:
    """Make a backup now, restore it on trial, and delete those that are not kept any longer."""
    from helmd.operations.backup.create import create_backup

    made = create_backup(context.layout, context.settings, context.suite, _notify)
    for backup in made.deleted:
        _notify(f"deleted {backup.name}")
    if as_json:
        output.print_json(
            {
                "path": str(made.path),
                "size": made.size,
                "seconds": round(made.seconds, 1),
                "databases": [facts.name for facts in made.manifest.databases],
                "services": {ref.name: ref.saved for ref in made.manifest.services},
                "left_out": list(made.manifest.left_out),
                "deleted": [backup.name for backup in made.deleted],
            }
        )
    else:
        output.print_line(f"{made.path} ({made.size / 1e6:.1f} MB, {made.seconds:.0f} s)")
    return exits.OK


@backup_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def backup_list_command(context: Context, as_json: bool) -> int:
    """List the backups, the newest first."""
    from helmd.model.units.unit_state import shown_time
    from helmd.operations.backup.kept import directory_of, stored_backups

    directory = directory_of(context.layout, context.settings)
    found = stored_backups(directory)
    if as_json:
        rows = [{"path": str(directory / each.name), "made_at": each.made_at, "size": each.size} for each in found]
        output.print_json(rows)
        return exits.OK
    cells = [(shown_time(each.made_at), f"{each.size / 1e6:.1f} MB", str(directory / each.name)) for each in found]
    for parts in output.table(("MADE", "SIZE", "ARCHIVE"), cells):
        output.print_line(*parts)
    return exits.OK


@backup_command.command("prune", short_help="Delete backups that are not kept any longer.")
@click.option("--dry-run", is_flag=True, help="Only print what would be deleted.")
@click.pass_obj
@audited("backup prune")
def backup_prune_command(context: Context, dry_run: bool) -> int:
    """Delete the backups that are not kept any longer (backup.keep, backup.keep_days)."""
    from helmd.files.lock import locked
    from helmd.model.backup.kept import expired
    from helmd.operations.backup.kept import directory_of, prune, remove_partial, stored_backups

    settings, directory = context.settings, directory_of(context.layout, context.settings)
    if dry_run:
        gone = expired(stored_backups(directory), settings.backup_keep, settings.backup_keep_days, time.time())
    else:
        with locked(context.layout.backup_lock, "a backup is being made"):
            remove_partial(directory)
            gone = list(prune(directory, settings))
    for backup in gone:
        output.print_line(backup.name)
    output.print_message(f"{counted(len(gone), 'backup')} {'would be' if dry_run else ''} deleted".replace("  ", " "))
    return exits.OK


@click.command("verify", short_help="Check an archive that helmctl backup has made.")
@click.argument("archive", type=_FILE)
@click.option("--identity", required=True, metavar="FILE|-", help="What opens it; - reads it from stdin.")
@click.option("--quick", is_flag=True, help="Do not restore its databases on trial.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify_command(context: Context, archive: Path, identity: str, quick: bool, as_json: bool) -> int:
    """Check ARCHIVE: that it is whole, authentic and complete, and that its databases can be restored.

    The databases are restored into a cluster that is then removed. Nothing else is changed, and no suite is needed
    here. Exit code 0 for a good one, else 1.
    """
    from helmd.operations.backup.archive import read_archive
    from helmd.operations.backup.checking import restored_on_trial
    from helmd.postgres.binaries import newest

    if os.geteuid() == 0 and not quick:
        raise UsageError(
            "root can't restore the databases on trial, since PostgreSQL does not run as root",
            hint="Run helmctl verify in another account, or with --quick.",
        )
    opened_by = _identity(identity)
    with _opened(archive) as descriptor:
        if quick:
            read = read_archive(descriptor, opened_by)
        else:
            read = restored_on_trial(descriptor, opened_by, context.layout.backup_scratch, newest(), _notify)
    manifest = read.manifest
    if as_json:
        output.print_json(
            {
                "host": manifest.host,
                "account": manifest.account,
                "created_at": manifest.created_at,
                "helm_version": manifest.helm_version,
                "signed": read.signed,
                "restored": not quick,
                "size": manifest.size,
                "databases": {facts.name: sum(facts.tables.values()) for facts in manifest.databases},
                "services": {ref.name: ref.saved for ref in manifest.services},
                "left_out": list(manifest.left_out),
            }
        )
        return exits.OK
    _describe(archive, manifest.host, manifest.created_at, read.signed)
    restored = "" if quick else ", and its databases could be restored"
    output.print_line(f"It is whole{restored}: {counted(len(manifest.parts), 'part')}, {manifest.size / 1e6:.1f} MB.")
    for sentence in manifest.left_out:
        output.print_message(f"not in it: {sentence}")
    return exits.OK


def _describe(archive: Path, host: str, at: float, signed: bool | None) -> None:
    from helmd.model.units.unit_state import shown_time

    output.print_line(f"{archive.name}: the suite of {host}, {shown_time(at)}")
    if signed is None:
        output.print_message(
            "warning: the identity's file has no authentication key, so that anybody who has the public key may have"
            " made the archive"
        )


@click.command("restore", short_help="Restore the suite from an archive.")
@click.argument("archive", type=_FILE)
@click.option("--identity", required=True, metavar="FILE|-", help="What opens it; - reads it from stdin.")
@click.option("--dry-run", is_flag=True, help="Only check the archive and this machine, and print what would be done.")
@click.option("--replace", is_flag=True, help="Replace the suite that this account has, after a backup of it.")
@click.option("--account", "dedicated", metavar="NAME", help="As root: create this system account and restore into it.")
@click.option("--keycloak-archive", type=_FILE, metavar="FILE", help="Use this file instead of downloading Keycloak.")
@click.option("--no-start", is_flag=True, help="Do not start the suite.")
@click.pass_obj
@audited("restore")
def restore_command(
    context: Context,
    archive: Path,
    identity: str,
    dry_run: bool,
    replace: bool,
    dedicated: str | None,
    keycloak_archive: Path | None,
    no_start: bool,
) -> int:
    """Restore the suite in ARCHIVE to this account, and start it.

    First the whole archive and this machine are checked; nothing is changed unless all is as it must be. A restore that
    was interrupted goes on when it is run again with the same archive.
    """
    from helmd.operations.backup.restore import check_archive, plan, restore_backup

    _become(dedicated, [path for path in (archive, keycloak_archive) if path])
    layout, began = context.layout, time.monotonic()
    with _opened(archive) as descriptor:
        _notify(f"checking {archive.name}")
        restoring, signed = check_archive(descriptor, _identity(identity), layout)
        manifest = restoring.manifest
        _describe(archive, manifest.host, manifest.created_at, signed)
        planned = plan(layout, manifest, replace)
        output.print_message("What would be done:" if dry_run else "What is done:")
        for step in planned.steps:
            output.print_message(f"  - {step}")
        for fault in planned.faults:
            output.print_message(output.Painted("✗ ", "red"), fault)
        if planned.faults:
            from helmd.model.backup.manifest import BackupError

            raise BackupError(f"the suite can't be restored here: {planned.faults[0]}", hint="Nothing was changed.")
        if dry_run:
            output.print_message("Nothing was changed.")
            return exits.OK
        from helmd.cli.progress import DownloadProgress

        progress = DownloadProgress()
        restore_backup(restoring, layout, context.manager, replace, _notify, progress, keycloak_archive)
    code = exits.OK
    if not no_start:
        from helmd.cli.control import operate

        options = {"json": False, "as_json": False, "quiet": False, "dry_run": False, "reason": "restore",
                   "timeout": None, "no_block": False}  # fmt: skip
        code = operate(Context(), "start", ("all",), options, whole=True)
    output.print_message(f"The suite of {manifest.host} is restored ({time.monotonic() - began:.0f} s).")
    return code


def _become(dedicated: str | None, files: list[Path]) -> None:
    """Go on as the account that is to own the suite."""
    if dedicated and os.geteuid() == 0:
        from helmd.operations.setup.setup import create_account

        create_account(dedicated, _notify)
        account.check_readable(dedicated, files)
        account.remember(dedicated)
        account.become(dedicated)
    elif dedicated:
        account.become(dedicated)
    elif os.geteuid() == 0:
        if (owner := account.owner(None)) and owner != "root":
            account.check_readable(owner, files)
            account.become(owner)
        raise UsageError(
            "root cannot own a suite",
            hint="Run helmctl restore as the account that will own it, or: helmctl restore --account hivematrix ...",
        )


@contextmanager
def _opened(archive: Path) -> Iterator[int]:
    descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _identity(given: str) -> "AgeIdentity":
    """Return what opens an archive, from a file or from stdin. Raises UsageError."""
    from helmd.operations.backup.encryption import AgeIdentity

    try:
        text = sys.stdin.read(65536) if given == "-" else Path(given).read_text(errors="replace")
    except OSError as problem:
        raise UsageError(
            f"{given} can't be read: {problem.strerror}", hint="Or give it on standard input: --identity - < FILE"
        ) from None
    if "AGE-SECRET-KEY-" not in text:
        raise UsageError(
            f"{'what was given on standard input' if given == '-' else given} has no identity of age",
            hint="It is the file that helmctl backup key has made, with a line that begins with AGE-SECRET-KEY-1.",
        )
    return AgeIdentity(text)
