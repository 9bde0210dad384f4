"""``helmctl setup``: make a suite out of this account, or of a dedicated one."""

import os
import re
import sys
import time
from pathlib import Path

import click

from helmd.cli import account, exits
from helmd.cli.context import Context
from helmd.model.errors import UsageError

PASSWORD_IN_URI = re.compile(r"://[^/@\s]*:[^/@\s]+@|[?&]password=")


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
        last = done >= total
        click.echo(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB" + ("\r" if self._live and not last else ""), err=True,
                   nl=not self._live or last)  # fmt: skip


def _notify(sentence: str) -> None:
    click.echo(f"• {sentence}", err=True)


@click.command("setup", short_help="Make a suite out of this account.")
@click.option("--account", "dedicated", metavar="NAME", help="As root: create this system account and set it up.")
@click.option("--registry", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Install FILE as services.toml.")  # fmt: skip
@click.option("--keycloak-archive", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Take Keycloak from this file instead of fetching it.")  # fmt: skip
@click.option("--database", metavar="URI|-", help="Keep logs in this PostgreSQL instead of a private one; - reads it.")
@click.pass_obj
def setup_command(
    context: Context, dedicated: str | None, registry: Path | None, keycloak_archive: Path | None, database: str | None
) -> int:
    """Make a suite out of this account: directories, PostgreSQL, Keycloak, keys, units. Safe to run again."""
    from helmd.operations.setup.setup import SetupOptions, create_account, set_up

    if database and PASSWORD_IN_URI.search(database):
        raise UsageError(
            "a command line can be read by everybody, so a password has no place in it",
            hint="Let it be read instead: helmctl setup --database - < FILE",
        )
    if dedicated and os.geteuid() != 0:
        account.become(dedicated)
    elif dedicated:
        create_account(dedicated, _notify)
        account.check_readable(dedicated, [path for path in (registry, keycloak_archive) if path])
        account.remember(dedicated)
        _notify(f"root's helmctl acts for {dedicated} from now on")
        account.become(dedicated)
    elif os.geteuid() == 0:
        raise UsageError(
            "root should not own the suite",
            hint="Run it as the account that shall, or: helmctl setup --account hivematrix",
        )
    if database == "-":
        database = sys.stdin.readline().strip()
    options = SetupOptions(registry, keycloak_archive, database)
    suite = set_up(context.layout, options, _notify, DownloadProgress())
    services = [name for name, service in suite.services.items() if not service.external]
    if services:
        click.echo("Set up. Start the suite: helmctl up", err=True)
    else:
        click.echo(
            f"Set up. Name your services in {context.layout.registry_file}, then once more: helmctl setup", err=True
        )
    return exits.OK
