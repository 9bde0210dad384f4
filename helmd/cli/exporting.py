"""``helmctl export``: JSON documents about the suite for other programs."""

import click

from helmd.cli import exits, output
from helmd.cli.context import Context
from helmd.model.suite.discovery import discovery_document, master_document


@click.command("export", short_help="Print master_services.json.")
@click.option("--discovery", is_flag=True, help="Print services.json instead, which every service gets.")
@click.pass_obj
def export_command(context: Context, discovery: bool) -> int:
    """Print master_services.json, the list of services that older tools read."""
    document = discovery_document if discovery else master_document
    output.print_text(document(context.suite, context.settings))
    return exits.OK
