"""``helmctl modules key``: deploy keys, by which private repositories are read over ssh."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helmd.cli import output
from helmd.cli.arguments import CommandGroup, ExistingPath
from helmd.cli.audit import audited
from helmd.cli.context import Context

if TYPE_CHECKING:
    from helmd.operations.modules.deploy_key import DeployKey

_name = click.argument("name", metavar="NAME")
_rotate = click.option(
    "--rotate", is_flag=True, help="Replace its key; the old one is used until the new one is accepted."
)


@click.group("key", cls=CommandGroup, short_help="Manage the deploy keys of private repositories.")
def modules_key_command() -> None:
    """Manage the keys by which repositories of modules are read over ssh, one for each module.

    A module need not be installed to have one. The private part is a file of mode 0600 in
    ~/.config/hivematrix/secrets/deploy-keys, which git alone sees.
    """


def _print(key: "DeployKey", as_json: bool) -> None:
    if as_json:
        from helmd.model.api.json_codec import to_json

        output.print_json(to_json(key))
        return
    output.print_line(key.public_key)
    output.print_message(f"Fingerprint: {key.fingerprint}")
    if key.replacing:
        output.print_message("The key from before is used too, until the repository was read with this one.")
    for host in key.hosts:
        output.print_message(f"Known server: {host.host} {host.type} {host.fingerprint}")


def _print_new(key: "DeployKey", as_json: bool) -> None:
    _print(key, as_json)
    if not as_json:
        output.print_message("Add the line above to the repository as a deploy key that may only read.")


@modules_key_command.command("show", short_help="Print the public part of a module's key.")
@_name
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def key_show_command(context: Context, name: str, as_json: bool) -> None:
    """Print the public part of a module's key, for the git host; and the keys by which that is known."""
    from helmd.operations.modules.deploy_key import deploy_key

    _print(deploy_key(context.suite_layout, name), as_json)


@modules_key_command.command("make")
@_name
@_rotate
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
@audited("modules key make")
def key_make_command(context: Context, name: str, rotate: bool, as_json: bool) -> None:
    """Make a key (Ed25519) for a module, and print its public part."""
    from helmd.operations.modules.deploy_key import make_key

    _print_new(make_key(context.suite_layout, name, rotate), as_json)


@modules_key_command.command("add", short_help="Use a private key of one's own for a module.")
@_name
@click.argument("file", metavar="FILE|-", type=ExistingPath(dash=True))
@_rotate
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
@audited("modules key add")
def key_add_command(context: Context, name: str, file: Path, rotate: bool, as_json: bool) -> None:
    """Copy a private key, from FILE or standard input, and use it for a module."""
    from helmd.operations.modules.deploy_key import add_key

    _print_new(add_key(context.suite_layout, name, key_text(file), rotate), as_json)


def key_text(file: Path) -> str:
    """Return the text of a private key that the caller names."""
    from helmd.operations.modules.deploy_key import MAX_KEY

    if str(file) == "-":
        return sys.stdin.read(MAX_KEY)
    with file.open(encoding="utf-8", errors="replace") as opened:
        return opened.read(MAX_KEY)


@modules_key_command.command("remove")
@_name
@click.pass_obj
@audited("modules key remove")
def key_remove_command(context: Context, name: str) -> None:
    """Remove the key of a module. Remove its public part from the git host as well."""
    from helmd.operations.modules.deploy_key import remove_key

    removed = remove_key(context.suite_layout, name)
    output.print_message(f"The deploy key of {name} is removed." if removed else f"{name} has no deploy key.")


@modules_key_command.command("forget-host", short_help="Forget the key of a git host that was replaced.")
@_name
@click.pass_obj
@audited("modules key forget-host")
def key_forget_host_command(context: Context, name: str) -> None:
    """Forget by which key the git host is known, after it was replaced there.

    The next key that it shows is accepted, recorded, and printed with its fingerprint.
    """
    from helmd.operations.modules.deploy_key import forget_hosts

    known = forget_hosts(context.suite_layout, name)
    output.print_message(f"The server's key is forgotten for {name}." if known else f"{name} knows no server's key.")
