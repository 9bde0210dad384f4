"""``helmctl modules update|rollback|remove|hold|unhold|recover``."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from helmd.cli import exits, output
from helmd.cli.arguments import Duration
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.cli.job import current_job
from helmd.cli.module_install import agreed, build_options
from helmd.cli.module_others import with_others
from helmd.model.counted import counted
from helmd.model.errors import HelmError, UsageError
from helmd.model.modules.plan import plan_lines
from helmd.model.modules.source import is_commit
from helmd.model.suite.names import unit_of

if TYPE_CHECKING:
    from helmd.model.modules.plan import UpdatePlan
    from helmd.operations.lifecycle.steps import Step
    from helmd.operations.modules.kept import KeptData
    from helmd.operations.modules.update import ModuleOutcome, ModuleUpdates


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from helmd.cli.completion import names_of_account
    from helmd.operations.modules.shown import module_names

    return names_of_account(module_names, incomplete)


def module_argument(command: Any) -> Any:
    """Return the name of an installed module."""
    return click.argument("name", metavar="NAME", shell_complete=_names)(command)


def updates_of(context: Context, name: str, gate: float | None = None, trust: bool = False) -> "ModuleUpdates":
    """Return changes of a module, with their steps printed, and recorded in the job that this is."""
    from helmd.operations.modules.update import ModuleUpdates

    job = current_job()

    def step(step: "Step") -> None:
        if job is not None:
            job.step(step)
        output.print_message(f"{step.service}: {step.sentence}")

    return ModuleUpdates(context.layout, context.settings, context.manager, name, build_options(trust), step, gate)


def _gate_option(command: Any) -> Any:
    text = "How long it is watched before the change is final; by default modules.gate of helm.toml."
    return click.option("--gate", type=Duration(), metavar="TIME", help=text)(command)


def _say(lines: Sequence[str]) -> None:
    # A job's log has messages alone.
    say = output.print_line if current_job() is None else output.print_message
    for line in lines:
        say(line)


def _ended(context: Context, outcome: "ModuleOutcome", what: str, as_json: bool) -> int:
    if outcome.changed:
        down = f", after {outcome.downtime:.1f} s without the module" if outcome.downtime else ""
        # One that was stopped before is so afterwards.
        stopped = not context.manager.facts(unit_of(outcome.name)).active
        more = f"; it is stopped, as before: helmctl start {outcome.name}" if stopped else ""
        output.print_message(f"{outcome.name} {what} (commit {outcome.commit[:12]}){down}{more}")
    else:
        output.print_message(f"{outcome.name} is up to date (commit {outcome.commit[:12]}). Nothing to do.")
    if as_json:
        output.print_json(
            {
                "name": outcome.name,
                "version": outcome.version,
                "commit": outcome.commit,
                "changed": outcome.changed,
                "downtime": round(outcome.downtime, 3),
            }
        )
    return exits.OK


@click.command("update", short_help="Update a module; roll back if it fails.")
@module_argument
@click.option("--ref", default="", metavar="REF", help="Follow this branch, tag or commit from now on.")
@_gate_option
@click.option("--discard-changes", is_flag=True, help="Leave changes of its files behind, with the old version.")
@click.option("--planned", default="", metavar="COMMIT", help="Refuse another commit than that of the plan agreed to.")
@click.option("--dry-run", is_flag=True, help="Only fetch, check, and print what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result, or the plan, as JSON.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("modules update")
def modules_update_command(
    context: Context,
    name: str,
    ref: str,
    gate: float | None,
    discard_changes: bool,
    planned: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    reason: str,
) -> int:
    """Update a module to the newest commit of what it follows, or to REF.

    The new version is built while the old one serves. Then the module is stopped, its database and its state are
    copied, its migration is run, and it is started and watched. If any of that fails, or is cancelled, the version
    before serves again with the data that it had.
    """
    if planned and not is_commit(planned):
        raise UsageError(f"--planned {planned[:60]} is not a commit")
    updates = updates_of(context, name, gate)
    if dry_run:
        plan = updates.plan(ref)
        if as_json:
            from helmd.model.api.json_codec import to_json
            from helmd.operations.modules.shown import plan_body

            output.print_json({"name": name, **to_json(plan_body(plan))})
        else:
            _say([*plan_lines(plan), f"  commit: {plan.after}"])
        return exits.OK
    agreed(f"Update {name}?", yes)
    outcome = with_others(context, name, lambda: updates.update(ref, discard_changes, planned))
    return _ended(context, outcome, "is updated", as_json)


@click.command("check", short_help="Look whether there are updates of modules.")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=_names)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("modules check")
def modules_check_command(context: Context, names: tuple[str, ...], as_json: bool, reason: str) -> int:
    """Fetch the repositories of modules, of all without NAME, and keep what an update of each would do.

    Nothing is changed. "helmctl modules list" and the page of modules then say how many commits each is behind. helmd
    does this once a day (modules.check of helm.toml).
    """
    from helmd.operations.modules.engine import reason_of
    from helmd.operations.modules.shown import module_names

    found: list[dict[str, object]] = []
    code = exits.OK
    for name, plan in plan_each(context, names or module_names(context.suite_layout)):
        if isinstance(plan, Exception):
            if names and isinstance(plan, UsageError):
                raise plan
            output.print_message(f"{name}: {reason_of(plan)}")
            output.print_message(f"    {plan.hint}") if isinstance(plan, HelmError) and plan.hint else None
            found.append({"name": name, "behind_by": None, "trouble": reason_of(plan)})
            code = exits.FAILED
            continue
        found.append({"name": name, "behind_by": plan.behind, "trouble": ""})
        if not as_json:
            text = f"{counted(plan.behind, 'commit')} behind" if not plan.nothing else "up to date"
            _say([f"{name}: {'other commits are followed' if not plan.nothing and not plan.behind else text}"])
    if as_json:
        output.print_json(found)
    return code


@click.command("rollback", short_help="Go back to the version of a module that served before.")
@module_argument
@click.option("--code-only", is_flag=True, help="Keep the data as it is now.")
@click.option("--with-data", is_flag=True, help="Also go back to the data from when that version ended to serve.")
@click.option("--to", "version", default="", metavar="VERSION", help="Go back to this version instead.")
@_gate_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("modules rollback")
def modules_rollback_command(
    context: Context,
    name: str,
    code_only: bool,
    with_data: bool,
    version: str,
    gate: float | None,
    yes: bool,
    as_json: bool,
    reason: str,
) -> int:
    """Go back to the version of a module that served before. As an update, this is rolled back if it fails.

    With its code alone, what was written since stays, and must be of use to the older version. With its data, the
    database and the state are as they were when that version ended to serve; what is there now is copied before.
    """
    if code_only and with_data:
        raise UsageError("--code-only and --with-data exclude one another")
    updates = updates_of(context, name, gate)
    if not (code_only or with_data):
        if current_job() is not None or not sys.stdin.isatty():
            raise UsageError(
                "say whether the data is to go back, too",
                hint="Keep the data as it is now: --code-only. Go back to that of the version: --with-data",
            )
        target = updates.rollback_target(version)
        with_data = bool(target.data) and click.confirm(
            f"Go back to the data as of {target.data} as well?", default=False, err=True
        )
    agreed(f"Roll {name} back?", yes)
    outcome = with_others(context, name, lambda: updates.rollback(with_data, version))
    return _ended(context, outcome, "is rolled back", as_json)


@click.command("remove", short_help="Take a module out of the suite, with its data.")
@module_argument
@click.option("--keep-data", is_flag=True, help="Keep its database, its state and its secrets.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("modules remove")
def modules_remove_command(context: Context, name: str, keep_data: bool, dry_run: bool, yes: bool, reason: str) -> int:
    """Stop a module and take it out of the suite, with its versions, its database, its state and its secrets.

    With --keep-data, an installation of the same name goes on with its data.
    """
    from helmd.operations.modules.remove import removal_plan, remove_module

    updates = updates_of(context, name)
    plan = removal_plan(updates, keep_data)
    lines = [f"{name} is stopped and taken out of the suite", f"  removed: {plan.directory}"]
    lines += [f"  removed: the database {plan.database}"] if plan.database else []
    lines += [f"  kept: {each}" for each in plan.keeps]
    if dry_run:
        _say(lines)
        return exits.OK
    if not yes and current_job() is None:
        if not sys.stdin.isatty():
            raise UsageError(f"removing {name} needs --yes", hint="To see what would be removed: --dry-run")
        for line in lines:
            output.print_message(line)
        agreed(f"Remove {name}?", yes)

    def step(sentence: str) -> None:
        output.print_message(f"{name}: {sentence}")

    with_others(context, name, lambda: remove_module(updates, keep_data, step))
    output.print_message(f"{name} is removed")
    return exits.OK


@click.command("hold", short_help="Have updates leave a module alone.")
@module_argument
@click.option("--reason", default="", metavar="TEXT", help="Why, for who wants to update it, and for the log.")
@click.pass_obj
@audited("modules hold")
def modules_hold_command(context: Context, name: str, reason: str) -> int:
    """Have updates leave a module alone until it is no longer held."""
    return _hold(context, name, True, reason)


@click.command("unhold", short_help="Let a module be updated again.")
@module_argument
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("modules unhold")
def modules_unhold_command(context: Context, name: str, reason: str) -> int:
    """Let a module be updated again."""
    return _hold(context, name, False, reason)


def _hold(context: Context, name: str, held: bool, reason: str) -> int:
    from helmd.cli.caller import person
    from helmd.operations.modules.hold import hold_module

    changed = hold_module(context.layout, name, held, reason, person())
    state = "held" if held else "not held"
    output.print_message(f"{name} is {state}{'' if changed else ' already'}")
    return exits.OK


@click.command("recover", short_help="Go on with changes of modules that were interrupted.")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=_names)
@click.option("--before-start", is_flag=True, help="Start nothing: put code and data of all where they belong.")
@click.pass_obj
def modules_recover_command(context: Context, names: tuple[str, ...], before_start: bool) -> int:
    """Complete changes of modules that were interrupted, by a crash for example, or roll them back.

    hivematrix-recover.service does so before modules are started, so this is needed only where it could not.
    """
    from helmd.operations.modules.recover import interrupted, recover_at_boot

    if before_start:
        options = build_options(False)
        failed = recover_at_boot(context.layout, context.settings, context.manager, options)
        for error in failed:
            output.print_message(error.sentence)
            output.print_message(error.hint) if error.hint else None
        return exits.FAILED if failed else exits.OK
    chosen = names or interrupted(context.layout)
    if len(chosen) > 1:
        found, stuck = recover_each(context, chosen, wait=True)
        if not found and not stuck:
            output.print_message("Nothing was interrupted.")
        return exits.FAILED if stuck else exits.OK
    if not recover_modules(context, chosen, wait=True):
        output.print_message("Nothing was interrupted.")
    return exits.OK


@click.command("prune", short_help="Remove data that is kept of changes that were rolled back.")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=_names)
@click.option("--older", type=Duration(), default=0.0, metavar="TIME", help="Only what is kept for so long.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the log.")
@click.pass_obj
@audited("modules prune")
def modules_prune_command(
    context: Context, names: tuple[str, ...], older: float, dry_run: bool, yes: bool, reason: str
) -> int:
    """Remove what users wrote to versions of modules that were rolled back, of all modules without a NAME.

    After 30 days the next change of the module that succeeds does so.
    """
    from helmd.operations.modules.shown import module_names

    found = [updates_of(context, name) for name in names or module_names(context.suite_layout)]
    going = [(updates, each) for updates in found for each in updates.kept() if each.at <= time.time() - older]
    _say([f"{updates.name}: {kept_text(each)}" for updates, each in going] or ["Nothing is kept."])
    if dry_run or not going:
        return exits.OK
    if not yes and not sys.stdin.isatty():
        raise UsageError("removing data needs --yes", hint="To see what would be removed: --dry-run")
    agreed(f"Remove {'it' if len(going) == 1 else 'them'}?", yes)
    removed = [each for updates in found for each in updates.prune(older)]
    output.print_message(f"removed: {sum(each.size for each in removed) >> 20:,} MB")
    return exits.OK


def kept_text(kept: "KeptData") -> str:
    """Return a description of the data that is kept."""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(kept.at))
    return f"{kept.what} {kept.where}, of {when} UTC, {kept.size / (1 << 20):,.1f} MB"


def recover_modules(context: Context, names: Sequence[str], wait: bool = False) -> bool:
    """Recover modules; return whether there was something to be done.

    A change in progress is skipped, or waited for.
    """
    from helmd.operations.modules.recover import recover_module

    done = False
    for name in names:
        updates = updates_of(context, name)
        done |= recover_module(
            context.layout, context.settings, context.manager, name, updates.options, updates.step, wait
        )
    return done


def plan_each(context: Context, names: Sequence[str]) -> "Iterator[tuple[str, UpdatePlan | HelmError | OSError]]":
    """Yield what an update of each would do, or why that is not known: one that fails keeps no other from being looked
    at.
    """
    for name in names:
        try:
            yield name, updates_of(context, name).plan()
        except (HelmError, OSError) as error:
            yield name, error


def recover_each(context: Context, names: Sequence[str], wait: bool = False) -> tuple[bool, list[str]]:
    """As `recover_modules`, but one that fails keeps no other from being recovered: it is said, and is in the list."""
    from helmd.operations.modules.engine import reason_of

    found, failed = False, []
    for name in names:
        try:
            found |= recover_modules(context, [name], wait)
        except (HelmError, OSError) as error:
            failed.append(name)
            output.print_message(f"{name} is not recovered: {reason_of(error)}")
            output.print_message(f"    {error.hint}") if isinstance(error, HelmError) and error.hint else None
    return found, failed
