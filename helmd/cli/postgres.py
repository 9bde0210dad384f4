"""``helmctl postgres``: the private PostgreSQL clusters."""

import shlex
from typing import TYPE_CHECKING

import click

from helmd.cli import exits, output
from helmd.cli.arguments import CommandGroup
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.model.counted import counted
from helmd.model.suite.names import SUITE_CLUSTER_UNIT

if TYPE_CHECKING:
    from helmd.postgres.configuration import Cluster


@click.group("postgres", cls=CommandGroup, short_help="Manage the private PostgreSQL clusters.")
def postgres_command() -> None:
    """Manage the private PostgreSQL clusters."""


@postgres_command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status_command(context: Context, as_json: bool) -> int:
    """Show version, directory and psql command of each cluster."""
    from helmd.operations.setup.upgrade_clusters import clusters, outdated
    from helmd.postgres.binaries import major_of
    from helmd.postgres.cluster import running

    found = clusters(context.suite_or_installed, context.layout, context.settings)
    rows = [
        {
            "unit": unit,
            "version": major_of(cluster.directory),
            "outdated": outdated(cluster),
            "pid": running(cluster),
            "directory": str(cluster.directory),
            "psql": _psql(cluster),
        }
        for unit, cluster in found.items()
    ]
    if as_json:
        output.print_json(rows)
    else:
        cells = [
            (
                r["unit"],
                f"{r['version']}{' (outdated)' if r['outdated'] else ''}",
                r["pid"] or "-",
                r["directory"],
                r["psql"],
            )
            for r in rows
        ]
        table = output.table(
            ("UNIT", "VERSION", "PID", "DIRECTORY", "CONNECT WITH"), [tuple(map(str, row)) for row in cells]
        )
        for parts in table:
            output.print_line(*parts)
    return exits.OK


def admin_command(context: Context) -> str:
    """Return the command line that reaches the PostgreSQL of the suite's services as an admin."""
    from helmd.operations.setup.upgrade_clusters import clusters

    found = clusters(context.suite_or_installed, context.layout, context.settings)
    # What the admin's own server lets in is not known here.
    return _psql(found[SUITE_CLUSTER_UNIT]) if SUITE_CLUSTER_UNIT in found else "psql"


def _psql(cluster: "Cluster") -> str:
    """Return the command line that reaches a cluster as its superuser."""
    passfile = f"PGPASSFILE={shlex.quote(str(cluster.passfile))} " if cluster.passfile else ""
    return f"{passfile}psql -h {shlex.quote(str(cluster.socket))} -p {cluster.port} -U postgres"


@postgres_command.command("upgrade", short_help="Upgrade the clusters to the newest PostgreSQL.")
@click.pass_obj
@audited("postgres upgrade")
def upgrade_command(context: Context) -> int:
    """Upgrade the clusters to the newest PostgreSQL installed, before or after an upgrade of the distribution.

    Services that use a cluster are stopped during its upgrade. The old cluster is kept beside the new one.
    """
    from helmd.operations.setup.upgrade_clusters import upgrade_clusters

    def notify(sentence: str) -> None:
        output.print_message(f"• {sentence}")

    done = upgrade_clusters(context.suite, context.layout, context.settings, context.manager, notify)
    output.print_message(f"{counted(done, 'cluster')} upgraded.")
    return exits.OK
