"""``helmctl setup``: set up a suite for this account, or for a dedicated one."""

import os
import sys
import time
from pathlib import Path

import click

from helmd.cli import account, exits, output
from helmd.cli.context import Context
from helmd.model.config.secrets import holds_password
from helmd.model.errors import UsageError


class DownloadProgress:
    """Progress of a download: one line rewritten on a terminal, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + (0.1 if self._live else 3.0)
        output.print_progress(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB", last=done >= total)


def _notify(sentence: str) -> None:
    output.print_message(f"• {sentence}")


@click.command("setup", short_help="Set up a suite for this account.")
@click.option("--account", "dedicated", metavar="NAME", help="As root: create this system account and set it up.")
@click.option("--registry", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Install FILE as services.toml.")  # fmt: skip
@click.option("--keycloak-archive", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Use this file instead of downloading Keycloak.")  # fmt: skip
@click.option("--database", metavar="URI|-",
              help="Store logs in this PostgreSQL instead of a private one; - reads the URI from stdin.")  # fmt: skip
@click.pass_obj
def setup_command(
    context: Context, dedicated: str | None, registry: Path | None, keycloak_archive: Path | None, database: str | None
) -> int:
    """Set up a suite for this account: directories, PostgreSQL, Keycloak, keys, units. Can be run again at any time."""
    from helmd.operations.setup.setup import SetupOptions, create_account, needs_realm, set_up

    if database and holds_password(database):
        raise UsageError(
            "the URI must not contain a password: every process can read the command line",
            hint="Pass it on standard input instead: helmctl setup --database - < FILE",
        )
    if dedicated and os.geteuid() != 0:
        account.become(dedicated)
    elif dedicated:
        create_account(dedicated, _notify)
        account.check_readable(dedicated, [path for path in (registry, keycloak_archive) if path])
        account.remember(dedicated)
        _notify(f"helmctl run by root now acts for {dedicated}")
        account.become(dedicated)
    elif os.geteuid() == 0:
        if (owner := account.owner(None)) and owner != "root":
            account.become(owner)
        raise UsageError(
            "root cannot own a suite",
            hint="Run helmctl setup as the account that will own the suite, or: helmctl setup --account hivematrix",
        )
    if database == "-":
        database = sys.stdin.readline().strip()
    options = SetupOptions(registry, keycloak_archive, database)
    suite = set_up(context.layout, options, _notify, DownloadProgress())
    services = [name for name, service in suite.services.items() if not service.external]
    if services and needs_realm(suite, context.layout):
        output.print_message(
            "Set-up is complete. Next, run: helmctl keycloak setup; then, to start the suite: helmctl up"
        )
    elif services:
        output.print_message("Set-up is complete. To start the suite, run: helmctl up")
    else:
        output.print_message(
            f"Set-up is complete. Add your services to {context.layout.registry_file}, then run helmctl setup again."
        )
    return exits.OK
