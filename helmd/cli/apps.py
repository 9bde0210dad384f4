"""``helmctl apps``: what of this machine the suite depends on."""

import click

from helmd.cli import exits, output
from helmd.cli.context import Context


@click.command("apps", short_help="Show what of this machine the suite depends on.")
@output.format_option("table", "wide", "json")
@click.pass_obj
def apps_command(context: Context, as_json: bool, **options: str) -> int:
    """Show PostgreSQL, Java, Keycloak and packages that the suite needs: versions, and updates that wait.

    Nothing is fetched: updates are those of the lists that apt has. Services that still run with files that were
    replaced are named where needrestart(1) is installed. Exit code 1 if something that is needed is missing.
    """
    return _show(context, "json" if as_json else options["output"])


def _show(context: Context, wanted: str) -> int:
    from helmd.model.api.json_codec import to_json
    from helmd.operations.modules.apps import InstalledApps

    reply = InstalledApps(context.layout, lambda: context.suite_or_installed).report_here()
    missing = [app for app in reply.apps if app.required and app.version is None]
    if wanted == "json":
        output.print_json(to_json(reply))
        return exits.FAILED if missing else exits.OK
    rows = []
    for app in reply.apps:
        update = f"{app.update}{' (security)' if app.security else ''}" if app.update else ""
        row = [app.title, app.version or ("missing" if app.required else "not installed"), update]
        rows.append([*row, ", ".join(app.needed_by)] + ([app.package or "", app.detail] if wanted == "wide" else []))
    header = ["APP", "VERSION", "UPDATE", "NEEDED BY"] + (["PACKAGE", "DETAIL"] if wanted == "wide" else [])
    for parts in output.table(header, rows):
        output.print_line(*parts)
    for app in reply.apps:
        if app.command:
            output.print_message(f"{app.title}: {app.command}")
    if reply.outdated:
        names = ", ".join(reply.outdated)
        output.print_message(f"These run with files that were replaced since they started: {names}")
    if reply.reboot_required:
        output.print_message("An update waits for a reboot of this machine.")
    if reply.listed_at is None:
        output.print_message("Whether updates wait is not known: apt has no lists yet (sudo apt update).")
    return exits.FAILED if missing else exits.OK
