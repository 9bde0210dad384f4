"""``helmctl why``: one paragraph about a service."""

import click

from helmd.cli import exits, output
from helmd.cli.arguments import services_argument
from helmd.cli.context import Context
from helmd.operations.diagnostics.why import why
from helmd.operations.monitoring.status import observe_services

_FINE = ("healthy", "running", "starting", "succeeded", "scheduled")


@click.command("why", short_help="Explain the state of a service.")
@services_argument
@click.pass_obj
def why_command(context: Context, services: tuple[str, ...]) -> int:
    """Explain the state of services: since when, why, and what to do about it.

    Without SERVICE, of all that do not work; and why there is no new backup, if one has failed or is overdue.
    """
    import shutil
    import textwrap

    registry = context.suite_or_installed
    names = context.chosen(services, registry, unregistered=True)
    if not services:
        names = tuple(
            view.service.name
            for view in observe_services(registry, names, context.manager, context.layout)
            if view.word not in _FINE
        )
        if not names:
            output.print_line("All services are healthy.")
    width = min(100, shutil.get_terminal_size().columns)

    def print_paragraph(text: str) -> None:
        for line in textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False):
            output.print_line(line)

    for number, name in enumerate(names):
        paragraph, lines = why(name, registry, context.manager, context.layout)
        if number:
            output.print_line("")
        print_paragraph(paragraph)
        for line in lines:
            output.print_line(f"  | {line}")
    if not services and context.layout.config.is_dir():
        from helmd.operations.diagnostics.backups import backup_troubles
        from helmd.operations.diagnostics.context import DoctorContext

        for sentence in backup_troubles(DoctorContext(context.layout)):
            output.print_line("")
            print_paragraph(sentence)
    return exits.OK
