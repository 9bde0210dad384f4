"""``helmctl keycloak``: the realm of the suite in Keycloak."""

import sys
from typing import TYPE_CHECKING

import click

from helmd.cli import exits, output
from helmd.cli.arguments import CommandGroup
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.cli.job import current_job
from helmd.model.config.settings import Settings
from helmd.model.counted import counted
from helmd.model.errors import UsageError
from helmd.model.suite.service import Registry

if TYPE_CHECKING:
    from helmd.operations.identity.access import AdminLogin


@click.group("keycloak", cls=CommandGroup, short_help="Set up Keycloak's realm, and compare it.")
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


@keycloak_command.command("setup", short_help="Make the realm what the suite needs.")
@click.option("--login", "admin", metavar="NAME",
              help="Log in as this admin of the realm master; the password is read from stdin.")  # fmt: skip
@click.pass_obj
@audited("keycloak setup")
def realm_setup_command(context: Context, admin: str | None) -> int:
    """Start Keycloak, and make its realm what the suite needs: settings, clients, groups, a first admin.

    What differs is printed, then changed; anything else in the realm stays as it is. The first admin's password is
    printed once, on stdout, and must be changed at the first login. Can be run again at any time.
    """
    set_up_and_print(context, context.suite, context.settings, _login(admin) if admin else None)
    output.print_message("Keycloak is set up.")
    return exits.OK


@keycloak_command.command("recover-admin", short_help="Let an admin log in again, with a new password.")
@click.argument("user", default="admin")
@click.pass_obj
@audited("keycloak recover-admin")
def recover_admin_command(context: Context, user: str) -> int:
    """Let USER (by default admin) log in as an admin of the suite again, with a new password.

    The user is enabled, in the group of admins, and has no second factor any more; one that does not exist is made. The
    password is printed once, on stdout, and must be changed at the first login. If Helm has lost its access to Keycloak
    it gets that back by Keycloak's own means; Keycloak is then stopped for a while.
    """
    from helmd.operations.identity.keycloak import password_printed
    from helmd.operations.identity.recovery import recover_admin

    first = recover_admin(context.suite, context.layout, context.settings, context.manager, notify, user)
    _print_password(f"{first.username} can log in with the password {first.password}")
    password_printed(context.layout)
    return exits.OK


@keycloak_command.command("upgrade", short_help="Move to another version of Keycloak.")
@click.argument("target", metavar="[VERSION|ARCHIVE]", default="")
@click.pass_obj
@audited("keycloak upgrade")
def upgrade_command(context: Context, target: str) -> int:
    """Move to another version of Keycloak, and back by itself if that does not become healthy.

    ARCHIVE is a file keycloak-VERSION.tar.gz, whose checksum is yours to compare; VERSION the one that this Helm knows,
    which is the default. A copy of the database is made while Keycloak is stopped. Files of your own in conf, providers
    and themes are taken over.
    """
    from helmd.cli.progress import DownloadProgress
    from helmd.operations.identity.upgrade import COPY, upgrade

    done = upgrade(context.layout, context.settings, context.manager, notify, target, DownloadProgress())
    output.print_message(f"Keycloak {done.before} -> {done.after}.")
    output.print_message(f"The old one is left in {done.kept}, and its database as {COPY} until the next upgrade.")
    return exits.OK


def set_up_and_print(context: Context, suite: Registry, settings: Settings, login: "AdminLogin | None" = None) -> None:
    """Configure the realm of SUITE, and print the password of the first admin if one was created."""
    from helmd.operations.identity.keycloak import password_printed, set_up_realm

    first = set_up_realm(suite, context.layout, settings, context.manager, notify, login)
    if first and current_job() is not None:
        # What a job prints is stored.
        output.print_message(
            f"The password of the first admin, {first.username}, is printed by: helmctl keycloak setup"
        )
    elif first:
        _print_password(f"The first admin is {first.username}, with the password {first.password}")
        password_printed(context.layout)


def _print_password(line: str) -> None:
    output.print_line(line)
    sys.stdout.flush()
    output.print_message("It is not stored, and must be changed at the first login.")


def notify(sentence: str) -> None:
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
