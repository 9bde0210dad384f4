"""``helmctl setup``: set up a suite for this account, or for a dedicated one."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from helmd.cli import account, exits, output
from helmd.cli.arguments import ExistingPath
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.cli.keycloak import notify, set_up_and_print
from helmd.cli.progress import DownloadProgress
from helmd.model.config.secrets import holds_password
from helmd.model.config.settings import Settings
from helmd.model.errors import UsageError
from helmd.model.identity.realm import GATEWAY
from helmd.model.suite.names import MODES, unit_of
from helmd.model.suite.service import Registry

if TYPE_CHECKING:
    from helmd.operations.modules.install import WantedModule
    from helmd.operations.setup.setup import SetupOptions


@click.command("setup", short_help="Set up a suite for this account.")
@click.option("--account", "dedicated", metavar="NAME", help="As root: create this system account and set it up.")
@click.option("--registry", type=ExistingPath(), metavar="FILE",
              help="Install FILE as services.toml.")  # fmt: skip
@click.option("--keycloak-archive", type=ExistingPath(), metavar="FILE",
              help="Use this file instead of downloading Keycloak.")  # fmt: skip
@click.option("--database", metavar="URI|-",
              help="Store logs in this PostgreSQL instead of a private one; - reads the URI from stdin.")  # fmt: skip
@click.option("--url", metavar="URL",
              help="The one URL by which users reach the suite, such as https://desk.example.org.")  # fmt: skip
@click.option("--certificate", type=ExistingPath(), nargs=2,
              metavar="CERTIFICATE KEY",
              help="The gateway's certificate with its chain, and its key (PEM), for a self-signed one.")  # fmt: skip
@click.option("--mode", type=click.Choice(MODES),
              help="The mode of services in a new helm.toml: production with --suite, else development.")  # fmt: skip
@click.option("--suite", is_flag=True, help="Also install the modules of the catalogue, and start all of it.")
@click.option("--without", multiple=True, metavar="NAME", help="With --suite: leave this module out.")
@click.option("--allow-file", is_flag=True, help="With --suite: allow repositories on this machine.")
@click.option("--trust", is_flag=True, help="With --suite: install modules on a host that guards nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
@audited("setup")
def setup_command(
    context: Context,
    dedicated: str | None,
    registry: Path | None,
    keycloak_archive: Path | None,
    database: str | None,
    url: str | None,
    certificate: tuple[Path, Path] | None,
    mode: str | None,
    suite: bool,
    without: tuple[str, ...],
    allow_file: bool,
    trust: bool,
    yes: bool,
) -> int:
    """Set up a suite for this account: directories, PostgreSQL, keys, units, Keycloak and its realm.

    With --suite, the modules of the catalogue are installed from their git repositories, and all of it is started.
    Can be run again at any time. The password of a first admin of the suite is printed once, on stdout.
    """
    from helmd.operations.configuration.load import load_settings
    from helmd.operations.setup.setup import SetupOptions, create_account, public_origin, set_up

    if database and holds_password(database):
        raise UsageError(
            "the URI must not contain a password: every process can read the command line",
            hint="Pass it on standard input instead: helmctl setup --database - < FILE",
        )
    if url is not None:
        url = public_origin(url)
    if dedicated and os.geteuid() != 0:
        account.become(dedicated)
    elif dedicated:
        create_account(dedicated, notify)
        account.hand_over(dedicated, [path for path in (registry, keycloak_archive, *(certificate or ())) if path])
        account.remember(dedicated)
        notify(f"helmctl run by root now acts for {dedicated}")
        if suite:
            _allow_gateway_port(registry, yes)
        account.become(dedicated)
    elif os.geteuid() == 0:
        if (owner := account.owner(None)) and owner != "root":
            account.hand_over(owner, [path for path in (registry, keycloak_archive, *(certificate or ())) if path])
            account.become(owner)
        more = " --suite" if suite else ""
        raise UsageError(
            "root cannot own a suite",
            hint="Run helmctl setup as the account that will own the suite, or: "
            f"helmctl setup --account hivematrix{more}",
        )
    if database == "-":
        database = sys.stdin.readline().strip()
    options = SetupOptions(registry, keycloak_archive, database, url, certificate, mode=mode or _mode(context, suite))
    modules = _suite_modules(context, options, without, allow_file) if suite else []
    options = replace(options, coming=frozenset(module.name for module in modules))
    made = set_up(context.layout, options, notify, DownloadProgress())
    if suite:
        from helmd.cli.module_install import install_suite, start_suite
        from helmd.operations.configuration.load import load_suite

        names, code = install_suite(context, modules, trust)
        made = load_suite(context.layout, load_settings(context.layout))
        # Files of modules that were just installed lack the secret of Keycloak's client.
        _set_up_realm(context, made, load_settings(context.layout), bool(url or names))
        code = start_suite(context, names) or code
        _print_end(code, bool(names))
        return code
    _set_up_realm(context, made, load_settings(context.layout), bool(url))
    if any(not service.external for service in made.services.values()):
        output.print_message("Set-up is complete. To start the suite, run: helmctl up")
    else:
        output.print_message(
            f"Set-up is complete. Add your services to {context.layout.registry_file}, then run helmctl setup again."
        )
    return exits.OK


def _mode(context: Context, suite: bool) -> str:
    """Return the mode of services whose account has no helm.toml yet: those of a whole suite are there to be used."""
    return "production" if suite and not context.layout.settings_file.exists() else ""


def _print_end(code: int, changed: bool) -> None:
    """Print what is degraded, and where users log in, or the next step."""
    from helmd.operations.monitoring.status import observe_services

    context = Context()
    suite = context.suite
    for view in observe_services(suite, list(suite.services), context.manager, context.layout):
        if view.word == "degraded":
            output.print_message(f"{view.service.name} is degraded: {view.verdict.sentence}")
    if code:
        output.print_message("Not all of the suite runs. Correct that, and run the same command again: it goes on.")
        return
    if not changed:
        output.print_message("Nothing was to be installed.")
    if GATEWAY not in suite:
        return
    url = suite[GATEWAY].url
    output.print_message(f"The suite is running. Log in at {url}")
    if urlsplit(url).hostname in ("localhost", "127.0.0.1"):
        output.print_message(
            "That is for browsers on this machine; for others, give the name by which they reach it: "
            "helmctl setup --url https://NAME"
        )


def _suite_modules(
    context: Context, options: "SetupOptions", without: tuple[str, ...], allow_file: bool
) -> "list[WantedModule]":
    """Return the modules that a whole suite has; before, the account's files, in which Keycloak is part of the
    suite.
    """
    from helmd.files.durable import write_atomically
    from helmd.operations.modules.install import suite_modules
    from helmd.operations.setup.setup import REGISTRY_TEMPLATE, SUITE_TEMPLATE, prepare_files

    prepare_files(context.layout, options, notify)
    file = context.layout.registry_file
    if file.read_text() == REGISTRY_TEMPLATE:
        write_atomically(file, SUITE_TEMPLATE)
    return suite_modules(context.layout, context.settings, without, allow_file)


def _allow_gateway_port(registry: Path | None, yes: bool) -> None:
    """As root: offer to allow the gateway's port to the account that is to own the suite."""
    import tomllib

    from helmd.cli.context import SHARE
    from helmd.operations.setup.ports import allow_port, lowest_port

    port = 0
    for file in (SHARE / "services.toml", Path("/etc/hivematrix/services.toml"), registry):
        try:
            found = tomllib.loads(file.read_text())["services"]["nexus"]["port"] if file else port
            port = found if isinstance(found, int) else port
        except (OSError, ValueError, LookupError, TypeError):
            continue
    if not 0 < port < lowest_port():
        return
    question = f"The gateway listens on port {port}, which only root may. Allow all accounts ports from {port} on?"
    if yes or (sys.stdin.isatty() and click.confirm(question, default=True, err=True)):
        allow_port(port)
        notify(f"ports from {port} on may be used by every account (net.ipv4.ip_unprivileged_port_start)")
    else:
        notify(f"the gateway will not start: only root may listen on port {port}; run the command again with --yes")


def _set_up_realm(context: Context, suite: Registry, settings: Settings, url_given: bool) -> None:
    """The realm of the Keycloak that the suite runs, unless that is stopped and has its realm already."""
    from helmd.operations.setup.setup import realm_service

    keycloak = realm_service(suite)
    if keycloak is None:
        return
    made = context.layout.admin_client_secret.exists()
    if made and not url_given and not context.manager.facts(unit_of(keycloak.name)).active:
        notify(f"{keycloak.name} is stopped; to compare its realm with what the suite needs: helmctl keycloak setup")
        return
    set_up_and_print(context, suite, settings)
