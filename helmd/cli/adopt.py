"""``helmctl adopt``: takes over an installation that was made by hand, and gives it back."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helmd.cli import exits, output
from helmd.cli.arguments import ExistingPath
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.model.errors import UsageError
from helmd.model.suite.names import HELMD_UNIT, SOCKET_UNITS

if TYPE_CHECKING:
    from helmd.operations.modules.adopt import AdoptionPlan

_START_OPTIONS = {"json": False, "as_json": False, "quiet": False, "dry_run": False, "timeout": None, "no_block": False}


def _notify(sentence: str) -> None:
    output.print_message(f"• {sentence}")


@click.command("adopt", short_help="Take over an older installation, reversibly.")
@click.argument("directory", required=False, metavar="[DIR]",
                type=ExistingPath(directory=True))  # fmt: skip
@click.option("--undo", is_flag=True, help="Give back what was taken over.")
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--no-logs", is_flag=True, help="Do not copy the older Helm's log entries.")
@click.option("--import-logs", is_flag=True, help="Only copy these: again, after that has failed.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("adopt")
def adopt_command(
    context: Context,
    directory: Path | None,
    undo: bool,
    dry_run: bool,
    yes: bool,
    no_logs: bool,
    import_logs: bool,
    as_json: bool,
    reason: str,
) -> int:
    """Take over the HiveMatrix in DIR that an older Helm runs: its checkouts stay where they are.

    DIR is where hivematrix-helm with its services.json and the other checkouts are. What runs of it is ended, and the
    services become units. Databases and Keycloak's users stay as they are; the older Helm's log entries are copied.
    With --undo, files, units and processes of DIR are again those that it had before.
    """
    if undo:
        return _undo(context, dry_run, yes)
    if import_logs:
        return _import_logs(context)
    if directory is None:
        raise UsageError("DIR is missing", hint="For example: helmctl adopt ~/hivematrix --dry-run")
    return _take_over(context, directory, dry_run, yes, no_logs, as_json, reason)


def _take_over(
    context: Context, directory: Path, dry_run: bool, yes: bool, no_logs: bool, as_json: bool, reason: str
) -> int:
    from helmd.cli.control import operate
    from helmd.cli.progress import DownloadProgress
    from helmd.operations.configuration.load import load_settings
    from helmd.operations.modules.adopt import adopt_installation, finish, plan_adoption
    from helmd.operations.setup.setup import SetupOptions, prepare_account, prepare_files, set_up

    layout, began = context.layout, time.monotonic()
    plan = plan_adoption(directory, layout, load_settings(layout))
    _print_plan(plan, as_json)
    if dry_run:
        output.print_message("Nothing was changed.")
        return exits.FAILED if plan.faults else exits.OK
    if not plan.faults:
        _confirm(f"Take over {plan.directory}?", yes)
        prepare_account(layout, _notify)
        prepare_files(layout, SetupOptions(), _notify)
    adoption = adopt_installation(plan, layout, lambda: context.manager, _notify)
    undo = "To give it back as it was: helmctl adopt --undo"
    try:
        set_up(layout, SetupOptions(), _notify, DownloadProgress())
        options = {**_START_OPTIONS, "reason": reason or "adopt"}
        code = operate(Context(), "start", adoption.services, options)
    except BaseException:
        output.print_message(undo)
        raise
    if code != exits.OK:
        output.print_message(undo)
        return code
    finish(layout)
    if plan.logs and not no_logs:
        _submit_import(Context(), reason)
    output.print_message(f"{plan.directory} is taken over ({time.monotonic() - began:.0f} s). {undo}")
    return exits.OK


def _print_plan(plan: "AdoptionPlan", as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "directory": str(plan.directory),
                "services": {name: str(place) for name, place in plan.places.items()},
                "databases": dict(plan.databases),
                "logs": plan.logs or None,
                "processes": [
                    {"pid": each.facts.pid, "owner": each.owner, "unit": each.facts.unit, "command": each.facts.command}
                    for each in plan.processes.own
                ],
                "units": list(plan.units),
                "steps": list(plan.steps),
                "remarks": list(plan.remarks),
                "faults": list(plan.faults),
            }
        )
        return
    output.print_message(f"Taking over {plan.directory}:")
    for step in plan.steps:
        output.print_message(f"  - {step}")
    for remark in plan.remarks:
        output.print_message(f"  note: {remark}")
    for fault in plan.faults:
        output.print_message(output.Painted("✗ ", "red"), fault)


def _confirm(question: str, yes: bool) -> None:
    """Raises UsageError where nobody can be asked, and click.Abort for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here", hint="Run it with --dry-run first, then with --yes.")
    click.confirm(question, abort=True, err=True)


def _submit_import(context: Context, reason: str) -> None:
    """Start the job that copies log entries; it continues independently of this command."""
    import asyncio

    from helmd.cli.caller import origin_here, person
    from helmd.journal.query import this_boot
    from helmd.model.jobs.record import Requester
    from helmd.operations.jobs.engine import JobEngine
    from helmd.operations.modules.older_logs import IMPORT_KIND, IMPORT_WORDS

    origin = origin_here()
    by = Requester(person(), origin.via, unit=origin.unit)
    engine = JobEngine(context.layout, this_boot())
    view = asyncio.run(engine.submit(IMPORT_KIND, ("logs",), IMPORT_WORDS, by, reason or "adopt"))
    job = view.record.request.id
    output.print_message(f"Log entries are copied by job {job}; to follow it: helmctl jobs log -f {job}")


def _import_logs(context: Context) -> int:
    from helmd.operations.modules.older_logs import import_adopted_logs

    done = import_adopted_logs(context.layout, context.settings, context.suite, _notify)
    output.print_message(f"{done.taken:,} of {done.found:,} log entries were taken over; the others have expired.")
    return exits.OK


def _undo(context: Context, dry_run: bool, yes: bool) -> int:
    from helmd.model.modules.adoption import OLDER_HELM, AdoptionError
    from helmd.operations.modules.adopt import read_adoption, undo_adoption

    adoption = read_adoption(context.layout)
    if adoption is None:
        raise AdoptionError("nothing was taken over", hint="To take over an installation: helmctl adopt DIR")
    names = ", ".join(adoption.services)
    output.print_message(f"Giving back {adoption.directory}:")
    output.print_message(f"  - stop {names}, and take them out of the suite")
    output.print_message(f"  - restore {sum(each.mode is not None for each in adoption.files)} files as they were")
    for unit in adoption.units:
        output.print_message(f"  - start {unit}")
    output.print_message("  note: what the services wrote since into their databases and files stays")
    if dry_run:
        output.print_message("Nothing was changed.")
        return exits.OK
    _confirm(f"Give back {adoption.directory}?", yes)
    undo_adoption(context.layout, context.manager, _notify)
    units = ", ".join(adoption.units)
    start = (
        f"It runs by {units} again." if units else f"To start it: cd {adoption.directory}/{OLDER_HELM} && ./start.sh"
    )
    output.print_message(f"{adoption.directory} is as it was. {start}")
    output.print_message(
        f"This Helm still runs, and listens on port {context.settings.port}. For the older one to have it, first:"
        f" systemctl --user disable --now {' '.join((HELMD_UNIT, *SOCKET_UNITS))}"
    )
    return exits.OK
