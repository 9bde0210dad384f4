"""``helmctl why``: one paragraph about a service."""

import click

from helmd.cli import exits, output
from helmd.cli.arguments import one_service_argument
from helmd.cli.context import Context
from helmd.operations.diagnostics.why import why


@click.command("why", short_help="Explain the state of a service.")
@one_service_argument
@click.pass_obj
def why_command(context: Context, service: str) -> int:
    """Explain the state of a service: since when, why, and what to do about it."""
    import shutil
    import textwrap

    registry = context.suite_or_installed
    (name,) = context.chosen((service,), registry, unregistered=True)
    paragraph, lines = why(name, registry, context.manager)
    width = min(100, shutil.get_terminal_size().columns)
    for line in textwrap.wrap(paragraph, width, break_on_hyphens=False, break_long_words=False):
        output.print_line(line)
    for line in lines:
        output.print_line(f"  | {line}")
    return exits.OK
