"""``helmctl import``: the services of an older Helm."""

from pathlib import Path

import click

from helmd.cli import exits, output
from helmd.cli.arguments import ExistingPath
from helmd.cli.audit import audited
from helmd.cli.context import Context


@click.command("import", short_help="Take over an older Helm's services.json.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--base",
    type=ExistingPath(directory=True),
    metavar="DIR",
    help="Where relative paths start from. [default: the directory of each FILE, which was the older Helm's]",
)
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Replace an earlier import.")
@click.pass_obj
@audited("import")
def import_command(context: Context, files: tuple[Path, ...], base: Path | None, dry_run: bool, force: bool) -> int:
    """Take over services from an older Helm's services.json.

    They are written to services.d/imported.toml beside services.toml. With any fault nothing is written. The older
    Helm's files stay as they are; master_services.json may be given as well, for its descriptions.
    """
    from helmd.operations.configuration.import_json import plan_import, write_import
    from helmd.operations.configuration.load import load_settings

    # Not those of the context: it may be done before set-up.
    planned = plan_import(files, base, context.layout, load_settings(context.layout))
    for remark in planned.remarks:
        output.print_message(f"warning: {remark}")
    if dry_run:
        output.print_text(planned.text)
        return exits.OK
    write_import(planned, force)
    output.print_message(f"{planned.target}: {', '.join(planned.services)}")
    output.print_message("See what that changes: helmctl diff; then run: helmctl apply")
    return exits.OK
