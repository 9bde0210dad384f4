"""``helmctl why``: one paragraph about a service."""

import click

from helmd.cli import exits
from helmd.cli.arguments import one_service_argument
from helmd.cli.context import Context
from helmd.operations.diagnostics.why import why


@click.command("why", short_help="Say what a service does, or why not, and what to do.")
@one_service_argument
@click.pass_obj
def why_command(context: Context, service: str) -> int:
    """Say what a service is doing, or why it is not, and what to do about it."""
    import shutil
    import textwrap

    registry = context.suite_or_installed
    (name,) = context.chosen((service,), registry, unregistered=True)
    paragraph, lines = why(name, registry, context.manager)
    width = min(100, shutil.get_terminal_size().columns)
    click.echo(textwrap.fill(paragraph, width, break_on_hyphens=False, break_long_words=False))
    for line in lines:
        click.echo(f"  | {line}")
    return exits.OK
