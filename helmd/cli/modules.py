"""``helmctl modules``: the modules of the suite, installed from git and updated."""

import click

from helmd.cli import exits, output
from helmd.cli.context import Context
from helmd.cli.module_install import modules_install_command


@click.group("modules", short_help="Show the modules of the suite, and what can be installed.")
def modules_command() -> None:
    """Show the modules of the suite, and those that the catalogue knows how to install."""


modules_command.add_command(modules_install_command)


@modules_command.command("available")
@output.format_option("table", "json")
@click.pass_obj
def modules_available_command(context: Context, as_json: bool, **options: str) -> int:
    """List the modules that the catalogue has, with the git repository of each."""
    from helmd.model.api.json_codec import to_json
    from helmd.operations.modules.listing import available_modules

    found = available_modules(context.layout, context.suite_or_installed)
    if as_json or options["output"] == "json":
        output.print_json([to_json(module) for module in found])
        return exits.OK
    rows = [(each.name, "yes" if each.present else "no", each.description, each.source) for each in found]
    for parts in output.table(("MODULE", "IN THE SUITE", "WHAT IT IS", "SOURCE"), rows):
        output.print_line(*parts)
    return exits.OK
