"""``helmctl users import`` and ``export``: users as CSV."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helmd.cli import exits, output
from helmd.cli.context import Context
from helmd.cli.job import current_job
from helmd.cli.user_access import JSON_OPTION, REASON_OPTION, audited_change, realm_users
from helmd.model.api.json_codec import to_json
from helmd.model.counted import counted
from helmd.model.errors import DeniedError, UsageError

if TYPE_CHECKING:
    from helmd.model.identity.user_table import RowReport

_SHOWN = 100
"""Faulty rows in a job's result at most; its log has all."""


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--dry-run", is_flag=True, help="Check the rows, and make nobody.")
@click.option("--encoding", metavar="NAME", default="", help="Of a file that is not UTF-8: cp1252, utf-16.")
@click.option("--no-admins", is_flag=True, help="Refuse rows that would make somebody an admin.")
@click.option("--take", type=click.Path(path_type=Path), hidden=True)
@REASON_OPTION
@JSON_OPTION
@click.pass_obj
def users_import_command(
    context: Context, file: Path | None, dry_run: bool, encoding: str, no_admins: bool, take: Path | None,
    reason: str, as_json: bool,
) -> int:  # fmt: skip
    """Make users from a CSV file, or from stdin (-).

    The first row names the columns: username, email, firstName, lastName, enabled, groups (several separated by |),
    password. A password must be changed at the first login; without one the user can't log in until there is one.
    Each faulty row is reported, and all others are imported. Users who are there are left alone, so that a corrected
    file can be imported again. Exit code 1 with a faulty row.
    """
    from helmd.model.identity.user_table import FaultyRowsError, ImportReport, read_user_rows, text_of_csv
    from helmd.operations.identity.user_exchange import ImportFiles, import_users

    if (file is None) == (take is None):
        raise UsageError("which file?", hint="Run: helmctl users import FILE")
    content = ImportFiles(context.layout.user_imports).take(take) if take else _content(file or Path("-"))
    rows = list(read_user_rows(text_of_csv(content, encoding)))
    reports: list[RowReport] = []
    users = realm_users(context, _refuse_admins if no_admins else None)

    def run() -> None:
        reports.extend(import_users(users, rows, dry_run, _print_row))

    if dry_run:
        run()
    else:
        with audited_change(context, "users import", reason, f"{counted(len(rows), 'row')}"):
            run()
    report = ImportReport(tuple(reports), dry_run)
    if as_json:
        output.print_json([to_json(row) for row in report.rows])
    if report.failed:
        # Each was printed already.
        raise FaultyRowsError(report, _SHOWN if current_job() else 0)
    output.print_message(f"{report}.")
    return exits.OK


def _print_row(report: "RowReport") -> None:
    if report.outcome == "failed":
        output.print_message(str(report))


def _refuse_admins(what: str) -> None:
    raise DeniedError(f"{what} needs helmctl, or a recent login at Helm itself")


def _content(file: Path) -> bytes:
    from helmd.model.identity.user_table import MOST_CSV_BYTES

    if str(file) == "-":
        return sys.stdin.buffer.read(MOST_CSV_BYTES + 1)
    with file.open("rb") as opened:
        return opened.read(MOST_CSV_BYTES + 1)


@click.command("export", short_help="Write all users with their groups as CSV.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.pass_obj
def users_export_command(context: Context, file: Path | None) -> None:
    """Write all users with their groups as CSV, as import takes it, to a file (mode 0600) or to stdout.

    There are no passwords in it. What a spreadsheet would take for a formula has an apostrophe before it. On stdout,
    unusual characters are escaped.
    """
    from helmd.files.durable import write_atomically
    from helmd.operations.identity.user_exchange import export_users

    text = export_users(realm_users(context))
    if file is None:
        output.print_text(text.replace("\r\n", "\n"))
    else:
        write_atomically(file.absolute(), text, 0o600)
