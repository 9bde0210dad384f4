"""``helmctl jobs``: operations that were requested over the API. Works without helmd, from their files and systemd."""

import time
from collections.abc import Callable
from typing import Any

import click

from helmd.cli import exits, output
from helmd.cli.arguments import CommandGroup
from helmd.cli.context import Context
from helmd.journal.query import this_boot
from helmd.model.api.json_codec import to_json
from helmd.model.errors import BusError, UsageError
from helmd.model.jobs.record import JOB_ENDED, JobLine, Requester
from helmd.model.units.unit_state import shown_time
from helmd.operations.jobs.directory import JobDirectory
from helmd.operations.jobs.states import JobView, cancel_job, look_up, look_up_all, newest_first
from helmd.operations.jobs.units import stop_seconds
from helmd.systemd.bus import Manager

_LOOK_SECONDS = 0.2


def _ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from helmd.cli.completion import names_of_account

    return names_of_account(lambda layout: JobDirectory(layout.jobs).ids(), incomplete)


def _job_argument(command: Any) -> Any:
    return click.argument("job", metavar="JOB", shell_complete=_ids)(command)


@click.group("jobs", cls=CommandGroup, short_help="Show operations requested over the API, cancel one.")
def jobs_command() -> None:
    """Show operations that were requested over the API and their results, and cancel a running one.

    JOB is the id of a job, or how it begins if no other one begins so. The last 200 jobs of 90 days are kept.
    """


@jobs_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def jobs_list_command(context: Context, as_json: bool) -> int:
    """List jobs, the newest first."""
    directory = JobDirectory(context.suite_layout.jobs)
    views = newest_first(look_up_all(directory, _manager(context), directory.ids(), this_boot()))
    if as_json:
        output.print_json([to_json(view.reply) for view in views])
        return exits.OK
    rows = [
        (
            view.record.request.id,
            view.verdict.state,
            view.record.request.kind,
            view.record.request.target,
            shown_time(view.record.request.requested_at),
            view.record.request.by.name,
        )
        for view in views
    ]
    for parts in output.table(("JOB", "STATE", "KIND", "TARGET", "REQUESTED", "BY"), rows, state=1):
        output.print_line(*parts)
    return exits.OK


@jobs_command.command("show")
@_job_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def jobs_show_command(context: Context, job: str, as_json: bool) -> int:
    """Show a job: who requested it, its steps, its result. Exit code 1 if it failed."""
    directory = JobDirectory(context.suite_layout.jobs)
    view = look_up(directory, _manager(context), _chosen(directory, job), this_boot())
    if as_json:
        output.print_json(to_json(view.reply))
    else:
        _print_job(view)
    return exits.FAILED if view.verdict.state in JOB_ENDED - {"succeeded"} else exits.OK


@jobs_command.command("log")
@_job_argument
@click.option("-f", "--follow", is_flag=True, help="Wait for more until the job has ended.")
@click.pass_obj
def jobs_log_command(context: Context, job: str, follow: bool) -> int:
    """Print what a job has printed."""
    directory = JobDirectory(context.suite_layout.jobs)
    job_id = _chosen(directory, job)
    shown = 0
    while True:
        # Looked at first: what is written before its end is printed.
        ended = not follow or look_up(directory, _manager(context), job_id, this_boot()).ended
        for number, event in directory.log(job_id):
            if number > shown and isinstance(event, JobLine):
                shown = number
                output.print_line(f"{time.strftime('%H:%M:%S', time.localtime(event.at))} {event.text}")
        if ended:
            return exits.OK
        time.sleep(_LOOK_SECONDS)


@jobs_command.command("cancel")
@_job_argument
@click.pass_obj
def jobs_cancel_command(context: Context, job: str) -> int:
    """Cancel a job, and wait until it has ended.

    What systemd has begun for it goes on; services that it had not come to stay as they are.
    """
    from helmd.cli.audit import recorded
    from helmd.cli.caller import origin_here, person

    directory, boot = JobDirectory(context.suite_layout.jobs), this_boot()
    job_id = _chosen(directory, job)
    origin = origin_here()
    by = Requester(person(), origin.via, unit=origin.unit)
    with recorded(context, "jobs cancel", "", f"job {job_id}"):
        cancel_job(directory, context.manager, job_id, by, boot)
    seconds = stop_seconds(directory.read(job_id).request.kind)
    view = _until_ended(lambda: look_up(directory, context.manager, job_id, boot), seconds)
    output.print_message(f"{job_id}: {view.verdict.state}")
    return exits.OK if view.ended else exits.TIMEOUT


def _until_ended(look: Callable[[], JobView], seconds: float) -> JobView:
    until = time.monotonic() + seconds + 1
    while not (view := look()).ended and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    return view


def _manager(context: Context) -> Manager | None:
    """Return the user manager, or None, with a warning, while it can't be reached: then states are read from files."""
    try:
        return context.manager
    except BusError as error:
        output.print_message(f"warning: {error.sentence}; jobs that it runs are shown as they were last written")
        return None


def _chosen(directory: JobDirectory, given: str) -> str:
    """Return the id that begins with what is GIVEN. Raises UsageError when several do."""
    ids = directory.ids()
    begun = [job_id for job_id in ids if job_id.startswith(given)]
    if given in ids or len(begun) < 2:
        return begun[0] if len(begun) == 1 else given
    raise UsageError(f"{len(begun)} jobs begin with '{given}'", hint="List them: helmctl jobs list")


def _print_job(view: JobView) -> None:
    job = view.reply
    by = view.record.request.by.described
    output.print_line(f"{job.id}: {job.kind} {job.target}, ", output.Painted(job.state, _colour(job.state)))
    output.print_line(
        f"  requested {shown_time(view.record.request.requested_at)} by {by}"
        + (f": {job.reason}" if job.reason else "")
    )
    if job.started_at:
        output.print_line(f"  started   {shown_time(job.started_at.timestamp())}")
    if job.ended_at:
        detail = f": {job.result.detail}" if job.result and job.result.detail else ""
        output.print_line(f"  ended     {shown_time(job.ended_at.timestamp())}{detail}")
    output.print_line(f"  unit      {job.unit}")
    for step in job.steps:
        took = f" ({step.seconds:.2f} s)" if step.seconds else ""
        output.print_line(f"  {step.kind:<11} {step.service}: {step.sentence}{took}")
        for line in step.lines:
            output.print_line(f"    | {line}")


def _colour(state: str) -> str:
    return output.STATE_COLOURS.get(state, "yellow")
