"""``helmctl start|stop|restart|reload|up|down``."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click

from helmd.cli import exits, output
from helmd.cli.arguments import Duration, some_services_argument
from helmd.cli.caller import origin_here, person
from helmd.cli.context import Context
from helmd.cli.job import current_job
from helmd.model.suite.effects import effect_text
from helmd.model.suite.names import MODES, Mode, timer_of, unit_of
from helmd.model.suite.service import Registry
from helmd.model.units.health import NOT_YET
from helmd.operations.lifecycle import control
from helmd.operations.lifecycle.changes import changed_since
from helmd.operations.lifecycle.driver import Driver, mark_target
from helmd.operations.lifecycle.steps import OperationResult, Options, Step
from helmd.systemd.bus import Finished, Signals

PROGRESS_INTERVAL = 10.0
"""Seconds without an event after which, and then at which interval, a step in progress is reported."""

RECENT_LINES = 50
"""Number of a starting service's last lines in which a line of its health check is searched for."""
LINE_SHOWN = 400
"""Maximum number of characters shown of that line."""
LAST_SHOWN = 100
"""Maximum number of characters shown of another line."""

STEP_MARKS = {
    "in_progress": ("…", "cyan"),
    "done": ("✓", "green"),
    "already": ("✓", "green"),
    "queued": ("✓", "green"),
    "killed": ("!", "yellow"),
    "failed": ("✗", "red"),
    "skipped": ("-", "yellow"),
}


class StepPrinter:
    """Prints each step on stderr as it happens, and reports long ones at intervals."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._under_way: dict[str, float] = {}

    def __call__(self, step: Step) -> None:
        if step.kind == "in_progress":
            self._under_way[step.service] = time.monotonic()
        else:
            self._under_way.pop(step.service, None)
        if self._quiet and not step.bad:
            return
        took = f" ({step.seconds:.2f} s)" if step.seconds else ""
        self._print(step.kind, f"{step.service}: {step.sentence}{took}")
        for line in step.lines:
            output.print_message(f"    | {line}")
        if step.hint:
            output.print_message(f"    {step.hint}")

    def _print(self, kind: str, sentence: str) -> None:
        mark, colour = STEP_MARKS[kind]
        output.print_message(output.Painted(mark, colour), f" {sentence}")

    def print_progress(self) -> None:
        """Print how long steps have been in progress, with the last log line of each."""
        if self._quiet:
            return
        for name, since in self._under_way.items():
            waited = time.monotonic() - since
            if waited >= PROGRESS_INTERVAL:
                from helmd.journal.lines import last_lines

                lines = [line.message for line in last_lines(unit_of(name), RECENT_LINES, time.time() - waited)]
                # What its health check says comes before what it printed after that.
                said = next((line for line in reversed(lines) if line.startswith(NOT_YET)), "")
                ended = f", its last line: {shorten_line(lines[-1])}" if lines else ""
                last = f": {said[:LINE_SHOWN]}" if said else ended
                self._print("in_progress", f"{name}: {waited:.0f} s so far{last}")

    def wait(self, wait: Callable[[float], list[Finished]], until: float) -> list[Finished]:
        """Call WAIT with times until UNTIL (`time.monotonic`), and print progress in between; return its result."""
        while True:
            finished = wait(min(until, time.monotonic() + PROGRESS_INTERVAL))
            if finished or time.monotonic() >= until:
                return finished
            self.print_progress()


def shorten_line(line: str) -> str:
    """Return LINE, shortened to LAST_SHOWN characters."""
    return line if len(line) <= LAST_SHOWN else f"{line[: LAST_SHOWN - 1].rstrip()}…"


def _common_options(command: Any) -> Any:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="Print only failures and warnings."),
        click.option("--dry-run", is_flag=True, help="Only print what would be done."),
        click.option("--reason", default="", metavar="TEXT", help="Reason, for the log."),
        click.option(
            "--timeout", type=Duration(), metavar="TIME", help="Stop waiting after this time (exit code 124)."
        ),
        click.option("--no-block", is_flag=True, help="Queue the jobs and return at once."),
    ):
        command = option(command)
    return command


def _start_options(command: Any) -> Any:
    command = click.option("-f", "--follow", is_flag=True, help="Then follow the log.")(command)
    command = click.option("--no-deps", is_flag=True, help="Leave the services that it needs alone.")(command)
    return click.option("--mode", type=click.Choice(MODES), help="Switch to this mode first.")(command)


@click.command("start", short_help="Start services and what they need, in order.")
@some_services_argument
@_start_options
@_common_options
@click.pass_obj
def start_command(context: Context, services: tuple[str, ...], **options: Any) -> int:
    """Start services and what they need, in order, each once the one before is healthy."""
    return operate(context, "start", services, options)


@click.command("restart", short_help="Restart services, each until it is healthy.")
@some_services_argument
@_start_options
@_common_options
@click.pass_obj
def restart_command(context: Context, services: tuple[str, ...], **options: Any) -> int:
    """Restart services, one after another, each until it is healthy."""
    return operate(context, "restart", services, options)


@click.command("try-restart", short_help="Restart services that are active.")
@some_services_argument
@_start_options
@_common_options
@click.pass_obj
def try_restart_command(context: Context, services: tuple[str, ...], **options: Any) -> int:
    """Restart those of the services that are active, as systemctl try-restart does; leave the others alone."""
    names = context.chosen(services, context.suite)
    active = [name for name in names if context.manager.facts(unit_of(name)).active]
    if not active:
        output.print_message("None of them is active.")
        return exits.OK
    return operate(context, "restart", active, options)


@click.command("stop", short_help="Stop services, dependents first.")
@some_services_argument
@_common_options
@click.pass_obj
def stop_command(context: Context, services: tuple[str, ...], **options: Any) -> int:
    """Stop services, those that depend on others first."""
    return operate(context, "stop", services, options)


@click.command("reload", short_help="Make services reread their configuration.")
@some_services_argument
@_common_options
@click.pass_obj
def reload_command(context: Context, services: tuple[str, ...], **options: Any) -> int:
    """Make services reread their configuration, if their units have an ExecReload=."""
    return operate(context, "reload", services, options)


@click.command("up", short_help="Apply the configuration, start the suite.")
@_start_options
@_common_options
@click.pass_obj
def up_command(context: Context, **options: Any) -> int:
    """Apply the configuration and start the whole suite; with --mode, restart what runs in another one."""
    return operate(context, "start", ("all",), options, whole=True)


@click.command("down")
@_common_options
@click.pass_obj
def down_command(context: Context, **options: Any) -> int:
    """Stop the whole suite, in reverse order. Helm itself keeps running and storing logs."""
    return operate(context, "stop", ("all",), options, whole=True)


def operate(
    context: Context,
    verb: str,
    services: Sequence[str],
    options: dict[str, Any],
    whole: bool = False,
    schedules: bool = False,
) -> int:
    """Carry out VERB (start, stop, restart, reload) for SERVICES; return the exit status.

    WHOLE: for the suite, whose units are applied first. With SCHEDULES, or for all services, the timer of a service
    with a schedule is started or stopped, instead of the service.
    """
    schedules = schedules or "all" in services
    registry = context.suite_or_installed
    names = context.chosen(services, registry, unregistered="all" not in services)
    registry = context.with_unregistered(registry, names)
    say = _say_nothing if options["quiet"] else output.print_message
    if whole and verb == "start":
        names = _without_disabled(context, registry, names, say)
    no_deps = options.get("no_deps", False)
    if options["dry_run"]:
        for name, what in control.dry_run(registry, names, verb, not no_deps, schedules).items():
            output.print_line(f"{name}: {what}")
        _print_effect(registry, names, verb)
        return exits.OK
    if verb == "stop" and not options["quiet"]:
        _print_effect(registry, names, verb)
    switched: Sequence[str] = ()
    if verb in ("start", "restart"):
        ours = [name for name in names if name in context.suite]
        _recover_modules(context, ours)
        if verb == "start" and options.get("mode"):
            switched = _running_in_another_mode(context, ours, options["mode"], whole)
        _apply_units(context, ours, verb, options.get("mode"), not no_deps, whole, say)
    refused = _refused(context, registry, verb, names, options) if verb in ("start", "restart") else {}
    how = Options(not options["no_block"], not no_deps, options["timeout"], refused, schedules)
    report = OperationResult(())
    if switched:
        report = _run_operation(context, registry, "restart", switched, how, options["quiet"], options["reason"])
    if report.good:
        begun = report.steps
        report = _run_operation(context, registry, verb, names, how, options["quiet"], options["reason"])
        report = OperationResult((*begun, *report.steps))
    if verb == "start" and whole and report.good:
        mark_target(context.manager)
    if options["as_json"]:
        output.print_json([{key: getattr(step, key) for key in step.__slots__} for step in report.steps])
    if report.good and options.get("follow"):
        from helmd.cli.logs.command import follow_services

        return follow_services(context, names)
    cause = report.cause
    if report.good and whole and verb == "start" and context.effective.faults:
        return exits.FAILED
    return exits.OK if report.good else exits.exit_of(cause.code if cause else "failed")


def _print_effect(registry: Registry, names: Sequence[str], verb: str) -> None:
    if text := effect_text(verb, names, registry):
        output.print_message(f"note: {text}")


def _recover_modules(context: Context, names: Sequence[str]) -> None:
    """Recover interrupted changes of the modules among NAMES; changes in progress are skipped."""
    found = [name for name in names if context.layout.module(name).intent.exists()]
    if not found:
        return
    from helmd.cli.module_update import recover_each, recover_modules
    from helmd.operations.modules.recover import interrupted

    chosen = [name for name in interrupted(context.layout) if name in found]
    if len(names) > 1:
        # The unit of a module that can't be recovered refuses to start; the others are started.
        recover_each(context, chosen)
    else:
        recover_modules(context, chosen)


def _refused(
    context: Context, registry: Registry, verb: str, names: Sequence[str], options: dict[str, Any]
) -> dict[str, str]:
    """Return the services that can't be started as they are configured, with the reason for each."""
    from helmd.model.suite.effective import service_of_fault
    from helmd.operations.configuration.load import path_faults

    touched = control.to_start(registry, names, not options.get("no_deps", False)) if verb == "start" else names
    found = {name: faults for name, faults in context.effective.refused.faults.items() if name in touched}
    reasons = {
        name: str(faults[0])
        for name, faults in found.items()
        if (options.get("mode") and name in names) or not context.layout.unit_file(unit_of(name)).exists()
    }
    for fault in path_faults(context.suite, context.layout, touched):
        if name := service_of_fault(fault):
            reasons.setdefault(name, str(fault))
    return reasons


def _say_nothing(sentence: str) -> None:
    """For --quiet."""


def _without_disabled(
    context: Context, registry: Registry, names: Sequence[str], say: Callable[[str], None]
) -> tuple[str, ...]:
    """Return NAMES without disabled services, which are only started as dependencies of others.

    SAY is called with a line about each of these.
    """
    kept = []
    for name in names:
        service = registry[name]
        if not service.external and context.manager.facts(service.enabled_unit).file_state == "disabled":
            say(f"- {name}: disabled, not started (helmctl enable {name})")
        else:
            kept.append(name)
    return tuple(kept)


def _run_operation(
    context: Context, registry: Registry, verb: str, names: Sequence[str], options: Options, quiet: bool, reason: str
) -> OperationResult:
    verbs = {"start": control.start, "stop": control.stop, "restart": control.restart, "reload": control.reload}
    with Signals() as signals:
        context.manager.subscribe()
        printer = StepPrinter(quiet)
        record = _recorder(context, verb, reason)

        def report(step: Step) -> None:
            printer(step)
            record(step)

        driver = Driver(
            context.manager,
            lambda until: printer.wait(signals.wait, until),
            report,
            partial(changed_since, context.layout),
        )
        try:
            return driver.run(verbs[verb](registry, names, options))
        except KeyboardInterrupt:
            output.print_message("Interrupted. systemd continues jobs that it has begun; see: helmctl status")
            raise


def _running_in_another_mode(context: Context, names: Sequence[str], mode: Mode, whole: bool) -> Sequence[str]:
    """Return the services that run in another mode than MODE. Raises UsageError if there is one, unless WHOLE."""
    from helmd.model.errors import UsageError
    from helmd.systemd.installed import installed_mode

    found = []
    for name in names:
        installed = None if context.suite[name].external else installed_mode(context.layout, name)
        if installed not in (mode, None) and context.manager.facts(unit_of(name)).active:
            if not whole:
                sentence = f"{name} runs in {installed} mode"
                raise UsageError(sentence, hint=f"To switch, run: helmctl restart {name} --mode {mode}")
            found.append(name)
    return found


def _apply_units(
    context: Context,
    names: Sequence[str],
    verb: str,
    mode: Mode | None,
    with_dependencies: bool,
    whole: bool,
    say: Callable[[str], None],
) -> None:
    """Install missing units; if WHOLE, all that have changed; with MODE, those of NAMES in this mode.

    Otherwise only print a note if units have changed. Raises as `apply`.
    """
    touched = control.to_start(context.suite, names, with_dependencies) if verb == "start" else tuple(names)
    ours = [name for name in touched if not context.suite[name].external and name not in context.effective.refused]
    missing = [name for name in ours if not _installed(context, name)]
    if not (missing or mode or whole):
        if _changed_since_applied(context, ours):
            say("note: the configuration has changed since it was applied; see helmctl diff")
        return
    from helmd.operations.configuration.apply import apply, changes, changes_for

    modes: dict[str, Mode] = dict.fromkeys((name for name in names if name in ours), mode) if mode else {}
    found = changes(context.suite, context.layout, context.settings, modes, context.effective.refused)
    units = {unit_of(name) for name in (*missing, *modes)}
    wanted = found if whole else changes_for(found, units)
    applied = apply(wanted, context.suite, context.layout, context.settings, context.manager)
    for change in applied.done:
        say(f"{change.unit}: {change.done}")
    for notice in applied.notices:
        output.print_message(f"warning: {notice}")


def _installed(context: Context, name: str) -> bool:
    units = {unit_of(name), context.suite[name].enabled_unit}
    return all(context.layout.unit_file(unit).exists() for unit in units)


def _changed_since_applied(context: Context, names: Sequence[str]) -> bool:
    """Return whether units of NAMES differ from the configuration. They are only rendered if a file of it is newer."""
    from helmd.operations.configuration.load import registry_sources

    sources, _ = registry_sources(context.layout)
    newest = max((os.stat(source.file).st_mtime for source in sources), default=0.0)
    files = [context.layout.unit_file(unit) for name in names for unit in (unit_of(name), timer_of(name))]
    if all(file.stat().st_mtime >= newest for file in files if file.exists()):
        return False
    from helmd.operations.configuration.apply import changes

    units = {file.name for file in files}
    found = changes(context.suite, context.layout, context.settings, refused=context.effective.refused)
    return any(change.unit in units and change.pending for change in found)


def _recorder(context: Context, verb: str, reason: str) -> Callable[[Step], None]:
    """Return a function that records steps: changes in the journal, and each step in the job's directory, if any."""
    job = current_job()
    by, origin, about = person(), origin_here(), ""
    if job is not None:
        by, origin, about = job.request.by.name, job.request.by.origin, f"; job {job.request.id}"
        reason = job.request.reason

    def recorded(step: Step) -> None:
        if job is not None:
            job.step(step)
        if step.kind == "in_progress":
            # Imported here, while systemd is working, so that the import takes no extra time.
            import_module("helmd.journal.actions")
        if step.kind in ("done", "failed", "killed", "queued"):
            from helmd.journal.actions import record
            from helmd.journal.keys import JournalKeys

            keys, detail = JournalKeys(context.layout.journal_keys), f"{step.sentence}{about}"
            record(
                keys,
                verb,
                step.service,
                step.kind,
                reason,
                actor="helmctl",
                on_behalf_of=by,
                detail=detail,
                origin=origin,
            )

    return recorded
