"""``helmctl keycloak``: the realm of the suite in Keycloak."""

import sys
from typing import TYPE_CHECKING

import click

from helmd.cli import exits, output
from helmd.cli.context import Context
from helmd.model.counted import counted
from helmd.model.errors import UsageError

if TYPE_CHECKING:
    from helmd.operations.identity.access import AdminLogin


@click.group("keycloak", short_help="Set up Keycloak's realm, and compare it.")
def keycloak_command() -> None:
    """Set up the suite's realm in Keycloak, and compare it with what the suite needs."""


@keycloak_command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def realm_status_command(context: Context, as_json: bool) -> int:
    """Print where the realm differs from what the suite needs.

    Nothing is changed. Exit code 0 without a difference, else 1: also when Keycloak is not running or can't be asked.
    """
    from helmd.operations.identity.keycloak import realm_status

    found = realm_status(context.suite, context.layout, context.settings, context.manager)
    if as_json:
        rows = [
            {"subject": each.subject, "setting": each.setting, "found": each.found, "wanted": each.wanted}
            for each in found.differences
        ]
        output.print_json({"realm": found.realm, "url": found.url, "differences": rows})
    else:
        for difference in found.differences:
            output.print_line(str(difference))
    if found.differences:
        output.print_message(f"{counted(len(found.differences), 'difference')}. To repair: helmctl keycloak setup")
        return exits.FAILED
    output.print_message(f"Realm {found.realm} has all that the suite needs. Users reach it at {found.url}")
    return exits.OK


@keycloak_command.command("setup")
@click.option("--login", "admin", metavar="NAME",
              help="Log in as this admin of the realm master; the password is read from stdin.")  # fmt: skip
@click.pass_obj
def realm_setup_command(context: Context, admin: str | None) -> int:
    """Start Keycloak, and make its realm what the suite needs: settings, clients, groups, a first admin.

    What differs is printed, then changed; anything else in the realm stays as it is. The first admin's password is
    printed once, on stdout, and must be changed at the first login. Can be run again at any time.
    """
    from helmd.operations.identity.keycloak import password_printed, set_up_realm

    login = _login(admin) if admin else None
    first = set_up_realm(context.suite, context.layout, context.settings, context.manager, _notify, login)
    if first:
        output.print_line(f"The first admin is {first.username}, with the password {first.password}")
        sys.stdout.flush()
        password_printed(context.layout)
        output.print_message("It is not stored, and must be changed at the first login.")
    output.print_message("Keycloak is set up.")
    return exits.OK


def _notify(sentence: str) -> None:
    output.print_message(f"• {sentence}")


def _login(name: str) -> "AdminLogin":
    from helmd.operations.identity.access import AdminLogin

    if sys.stdin.isatty():
        password = click.prompt(f"Password of {name}", hide_input=True, err=True)
    else:
        password = sys.stdin.readline().removesuffix("\n")
    if not password:
        raise UsageError("the password is empty", hint=f"Run: helmctl keycloak setup --login {name} < FILE")
    return AdminLogin(name, password)
