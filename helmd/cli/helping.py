"""``helmctl help|version``: the same as ``--help`` and ``--version``, as other programs have them."""

import click

from helmd import __version__
from helmd.cli import exits, output


@click.command("help", short_help="Print help about a command.")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> int:
    """Print help about helmctl or about COMMAND."""
    shown = ctx.find_root()
    for word in words:
        assert isinstance(shown.command, click.MultiCommand)
        name, command, _ = shown.command.resolve_command(shown, [word])
        assert command is not None
        shown = click.Context(command, info_name=name, parent=shown)
        if not isinstance(command, click.MultiCommand):
            break
    output.print_text(shown.get_help())
    return exits.OK


@click.command("version", short_help="Print the version.")
def version_command() -> int:
    """Print the version of helmctl."""
    output.print_line(f"helmctl, version {__version__}")
    return exits.OK
