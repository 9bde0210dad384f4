"""``helmctl modules``: the modules of the suite, installed from git and updated."""

import click

from helmd.cli import exits, output
from helmd.cli.arguments import CommandGroup
from helmd.cli.context import Context
from helmd.cli.module_install import modules_install_command
from helmd.cli.module_key import modules_key_command
from helmd.cli.module_update import (
    kept_text,
    module_argument,
    modules_check_command,
    modules_hold_command,
    modules_prune_command,
    modules_recover_command,
    modules_remove_command,
    modules_rollback_command,
    modules_unhold_command,
    modules_update_command,
    updates_of,
)
from helmd.model.api.modules import ModuleBody
from helmd.model.counted import counted
from helmd.model.errors import HelmError


@click.group("modules", cls=CommandGroup, short_help="Install, update and remove modules of the suite.")
def modules_command() -> None:
    """Install modules of the suite from their git repositories, update them, and roll them back."""


for _command in (
    modules_install_command,
    modules_update_command,
    modules_check_command,
    modules_rollback_command,
    modules_remove_command,
    modules_hold_command,
    modules_unhold_command,
    modules_recover_command,
    modules_key_command,
    modules_prune_command,
):
    modules_command.add_command(_command)


@modules_command.command("available", short_help="List the modules of the catalogue.")
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


@modules_command.command("list", short_help="List installed modules, and how far each is behind.")
@output.format_option("table", "json")
@click.pass_obj
def modules_list_command(context: Context, as_json: bool, **options: str) -> int:
    """List the modules that were installed from git, with the version that each runs, and how far it is behind.

    That is how many commits an update would bring, as of when it was last looked: "helmctl modules check".
    """
    from helmd.model.api.json_codec import to_json
    from helmd.operations.modules.shown import shown_modules

    found = shown_modules(context.suite_layout)
    if as_json or options["output"] == "json":
        output.print_json([to_json(module) for module in found])
        return exits.OK
    rows = [
        (
            each.name,
            each.commit[:12] or "-",
            each.ref or "default",
            "-" if each.behind_by is None else str(each.behind_by),
            "held" if each.held else "",
            each.trouble or each.source,
        )
        for each in found
    ]
    for parts in output.table(("MODULE", "COMMIT", "FOLLOWS", "BEHIND", "", "SOURCE"), rows):
        output.print_line(*parts)
    return exits.OK


def _shown(context: Context, name: str) -> ModuleBody:
    from helmd.operations.modules.shown import not_installed, shown_modules

    found = next((each for each in shown_modules(context.suite_layout) if each.name == name), None)
    if found is None:
        raise not_installed(name)
    return found


@modules_command.command("show")
@module_argument
@output.format_option("table", "json")
@click.pass_obj
def modules_show_command(context: Context, name: str, as_json: bool, **options: str) -> int:
    """Show where a module comes from, and its versions."""
    from helmd.model.api.json_codec import to_json

    found = _shown(context, name)
    if as_json or options["output"] == "json":
        output.print_json(to_json(found))
        return exits.OK
    output.print_line(f"{found.name}: {found.source}, {found.ref or 'default branch'}")
    if found.checked_at is not None:
        behind = "not known how far" if found.behind_by is None else counted(found.behind_by, "commit")
        trouble = f"; {found.check_trouble}" if found.check_trouble else ""
        output.print_line(f"behind: {behind}, looked at {found.checked_at:%Y-%m-%d %H:%M} UTC{trouble}")
    if found.held:
        output.print_line(f"held: {found.held_reason}" if found.held_reason else "held")
    rows = [(each.id, each.state, f"{each.made_at:%Y-%m-%d %H:%M}", each.detail) for each in found.versions]
    for parts in output.table(("VERSION", "STATE", "MADE (UTC)", "WHY"), rows):
        output.print_line(*parts)
    try:
        kept = updates_of(context, name).kept()
    except HelmError as error:
        output.print_message(f"what is kept of changes that were rolled back is not known: {error.sentence}")
        return exits.OK
    for each in kept:
        output.print_line(f"kept of a change that was rolled back: {kept_text(each)}")
    if databases := [each.where for each in kept if each.what == "database"]:
        from helmd.cli.postgres import admin_command

        command = admin_command(context)
        output.print_line("to read such a database, let yourself into it first:")
        for database in databases:
            output.print_line(f"    {command} -c 'ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true'")
            output.print_line(f"    {command} -d {database}")
    if kept:
        from helmd.operations.modules.kept import FAILED_DATA_SECONDS

        days = f"{FAILED_DATA_SECONDS / 86400:g} days"
        output.print_line(
            f"to remove what is kept: helmctl modules prune {name}; after {days}, the next change does so"
        )
    return exits.OK


@modules_command.command("history", short_help="Show what was done to a module.")
@module_argument
@output.format_option("table", "json")
@click.pass_obj
def modules_history_command(context: Context, name: str, as_json: bool, **options: str) -> int:
    """Show what was done to a module, the newest first, with the time that it did not serve for."""
    from helmd.model.api.json_codec import to_json

    found = _shown(context, name)
    if as_json or options["output"] == "json":
        output.print_json([to_json(entry) for entry in found.history])
        return exits.OK
    rows = [
        (
            f"{each.at:%Y-%m-%d %H:%M}",
            each.action,
            "done" if each.succeeded else "failed",
            f"{each.downtime:.1f} s" if each.downtime else "-",
            each.by or "-",
            each.sentence,
        )
        for each in found.history
    ]
    for parts in output.table(("WHEN (UTC)", "WHAT", "RESULT", "DOWN", "BY", "DETAIL"), rows):
        output.print_line(*parts)
    return exits.OK
