"""``helmctl show|cat|deps|diff|apply|edit|enable|disable|reset-failed``: the units behind the services."""

import os
import time
from typing import TYPE_CHECKING, Any

import click

from helmd.cli import exits, output
from helmd.cli.arguments import one_service_argument, services_argument, some_services_argument
from helmd.cli.audit import audited
from helmd.cli.context import Context
from helmd.cli.output import print_json
from helmd.model.errors import ConfigurationError, UnknownServiceError
from helmd.model.suite.composition import dependencies
from helmd.model.suite.names import STORE_CLUSTER_UNIT, service_of, service_of_timer, unit_of

if TYPE_CHECKING:
    from helmd.operations.configuration.apply import Change

NO_FIGURE = (1 << 64) - 1
"""What systemd says where there is no figure, or no limit."""

WORDS = {
    "new": "would be installed",
    "changed": "would change",
    "foreign": "is not Helm's and stays as it is",
    "refused": "stays as it is, because of a fault in its configuration",
    "orphan": "belongs to no service any more and would be removed, with the service's home directory",
    "timer": "belongs to no schedule any more and would be stopped and removed",
}


def _would(change: "Change") -> str:
    """Return what applying CHANGE would do to its unit."""
    return WORDS["timer" if change.kind == "orphan" and service_of_timer(change.unit) else change.kind]


def _changes(context: Context, services: tuple[str, ...]) -> "list[Change]":
    from helmd.operations.configuration.apply import changes, changes_for

    found = changes(context.suite, context.layout, context.settings, refused=context.effective.refused)
    if not services:
        return found
    return changes_for(found, {unit_of(name) for name in context.chosen(services, context.suite)})


def _print_refused(change: "Change", context: Context) -> None:
    """Name what was not applied and why, as far as the faults of files have not been printed yet."""
    output.print_message(f"{change.unit}: {WORDS['refused']}")
    for fault in change.faults:
        if fault not in context.effective.faults:
            output.print_message(f"  {fault}")


@click.command("diff", short_help="Show what apply would change.")
@services_argument
@click.pass_obj
def diff_command(context: Context, services: tuple[str, ...]) -> int:
    """Show what "helmctl apply" would change. Exit code 0 when nothing, 1 otherwise."""
    import difflib

    pending = False
    for change in _changes(context, services):
        for path in sorted((context.layout.admin_units / f"{change.unit}.d").glob("*.conf")):
            output.print_message(f"{change.unit}: the drop-in {path} stays as it is")
        if change.kind == "foreign":
            output.print_message(f"{change.unit}: {WORDS['foreign']} ({context.layout.unit_file(change.unit)})")
        if change.kind == "refused":
            _print_refused(change, context)
            pending = True
        if not change.pending:
            continue
        pending = True
        output.print_message(f"{change.unit}: {_would(change)}")
        old, new = change.before.splitlines(), change.after.splitlines()
        files = f"installed/{change.unit}", f"services.toml/{change.unit}"
        for line in difflib.unified_diff(old, new, *files, lineterm=""):
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            output.print_line(output.Painted(line, colour) if colour else line)
    if not pending:
        output.print_message("Nothing would change.")
    return exits.FAILED if pending or context.effective.faults else exits.OK


def _renamed_databases(context: Context) -> list[str]:
    from helmd.operations.configuration.databases import rename_databases

    return list(rename_databases(context.suite, context.layout, context.settings, context.manager.facts))


@click.command("apply", short_help="Bring units in line with services.toml.")
@services_argument
@click.option("--dry-run", is_flag=True, help="Only name the units that would change.")
@click.pass_obj
@audited("apply")
def apply_command(context: Context, services: tuple[str, ...], dry_run: bool) -> int:
    """Bring the installed units in line with services.toml.

    Running services go on as they are until they are restarted. Drop-ins are never touched.
    """
    from helmd.operations.configuration.apply import apply

    reports = [] if dry_run else _renamed_databases(context)
    found = _changes(context, services)
    for change in found:
        if change.kind == "foreign" or (dry_run and change.pending):
            output.print_message(f"{change.unit}: {_would(change)}")
        if dry_run and change.kind == "refused":
            _print_refused(change, context)
    if dry_run:
        return exits.OK
    done, refused, notices = apply(found, context.suite, context.layout, context.settings, context.manager)
    for change in refused:
        _print_refused(change, context)
    for notice in (*reports, *notices):
        output.print_message(f"warning: {notice}")
    stale = []
    for change in done:
        output.print_message(f"{change.unit}: {change.done}")
        facts = context.manager.facts(change.unit)
        if change.kind == "changed" and facts.runs and facts.active:
            stale.append(change.unit)
        if change.kind == "new" and (name := service_of_timer(change.unit)) and not facts.active:
            output.print_message(f"To begin its schedule: helmctl enable --now {name}")
    for change in found:
        if change.kind == "orphan" and change not in done:
            output.print_message(f"{change.unit}: still running, its unit is kept; stop it and apply again")
    if not done and not refused:
        output.print_message("Nothing to change.")
    if again := [name for unit in stale if (name := service_of(unit)) and name != "helm"]:
        output.print_message(f"To take effect: helmctl restart {' '.join(again)}")
    if STORE_CLUSTER_UNIT in stale:
        output.print_message(f"To take effect: systemctl --user restart {STORE_CLUSTER_UNIT}")
    return exits.FAILED if refused or context.effective.faults else exits.OK


@click.command("show", short_help="Show all that systemd knows of a unit.")
@one_service_argument
@click.option("-p", "--property", "wanted", multiple=True, metavar="NAME,...", help="Only these properties.")
@output.format_option("table", "json")
@click.pass_obj
def show_command(context: Context, service: str, wanted: tuple[str, ...], output: str, as_json: bool) -> int:
    """Show all that systemd knows of a service's unit, as "systemctl show" does."""
    found = context.manager.properties(_unit(context, service))
    if wanted:
        names = {name for each in wanted for name in each.split(",")}
        found = {key: value for key, value in found.items() if key in names}
    if as_json or output == "json":
        print_json(found)
    else:
        _print_properties(found)
    return exits.OK


def _print_properties(found: dict[str, Any]) -> None:
    for key in sorted(found):
        output.print_line(f"{key}={_readable(key, found[key])}")


def _readable(key: str, value: Any) -> str:
    """Return the value of a property; times as systemctl(1) shows them."""
    if key.endswith("Timestamp") and isinstance(value, int):
        return time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(value / 1e6)) if value else ""
    if key.endswith("USec") and isinstance(value, int):
        return "infinity" if value == NO_FIGURE else output.format_duration(value / 1e6)
    return _plain(value)


def _unit(context: Context, service: str) -> str:
    """Return the unit of SERVICE. Raises UnknownServiceError, also for an external one, which has none."""
    registry = context.suite_or_installed
    name = context.chosen_one(service, registry, unregistered=True)
    if name in registry and registry[name].external:
        raise UnknownServiceError(f"{name} is external: it has no unit here", hint=f"See: helmctl status {name}")
    return unit_of(name)


def _controlled(context: Context, services: tuple[str, ...]) -> list[str]:
    """Return the SERVICES without external ones, which have no unit; these alone are an UnknownServiceError."""
    registry = context.suite_or_installed
    names = context.chosen(services, registry, unregistered=True)
    controlled = [name for name in names if name not in registry or not registry[name].external]
    if names and not controlled:
        _unit(context, names[0])
    return controlled


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(_plain(item) for item in value)
    return "[not set]" if value == NO_FIGURE else str(value)


@click.command("cat", short_help="Show a service's unit and its drop-ins.")
@one_service_argument
@click.pass_obj
def cat_command(context: Context, service: str) -> int:
    """Show a service's unit and its drop-ins, as "systemctl cat" does."""
    facts = context.manager.facts(_unit(context, service))
    if not facts.fragment:
        raise UnknownServiceError(f"{facts.unit} is not installed", hint="Run: helmctl apply")
    for path in (facts.fragment, *facts.drop_ins):
        with open(path, errors="replace") as file:
            output.print_line(f"# {path}")
            output.print_text(file.read())
    return exits.OK


@click.command("deps")
@services_argument
@click.option("--reverse", is_flag=True, help="Show what depends on each instead.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def deps_command(context: Context, services: tuple[str, ...], reverse: bool, as_json: bool) -> int:
    """Show what services need, as a tree."""
    registry = context.suite_or_installed
    graph = {name: tuple(needs) for name, needs in dependencies(registry).items()}
    if reverse:
        graph = {name: tuple(other for other in graph if name in graph[other]) for name in graph}
    names = context.chosen(services, registry)
    if as_json:
        output.print_json({name: list(graph[name]) for name in names})
        return exits.OK
    for name in names:
        output.print_line(name)
        _tree(graph, name, "")
    return exits.OK


def _tree(graph: dict[str, tuple[str, ...]], name: str, indent: str) -> None:
    needs = graph[name]
    for index, needed in enumerate(needs):
        last = index == len(needs) - 1
        output.print_line(f"{indent}{'└─' if last else '├─'}{needed}")
        _tree(graph, needed, indent + ("  " if last else "│ "))


@click.command("edit", short_help="Edit a drop-in of a service's unit.")
@one_service_argument
@click.pass_obj
@audited("edit")
def edit_command(context: Context, service: str) -> int:
    """Edit a drop-in of a service's unit, as "systemctl --user edit" does; "systemctl --user revert" undoes it."""
    name = context.chosen_one(service, context.suite_or_installed)
    os.execvp("systemctl", ["systemctl", "--user", "edit", unit_of(name)])


@click.command("enable", short_help="Let services start with the suite.")
@some_services_argument
@click.option("--now", is_flag=True, help="Start them as well.")
@click.pass_obj
@audited("enable")
def enable_command(context: Context, services: tuple[str, ...], now: bool) -> int:
    """Let services start with the suite and at boot."""
    names = context.chosen(services, context.suite)
    ours = [context.suite[name] for name in names if not context.suite[name].external]
    units = [service.enabled_unit for service in ours]
    missing = [unit_of(each.name) for each in ours if not context.layout.unit_file(each.enabled_unit).exists()]
    if missing:
        from helmd.operations.configuration.apply import apply, changes, changes_for

        every = changes(context.suite, context.layout, context.settings, refused=context.effective.refused)
        applied = apply(changes_for(every, missing), context.suite, context.layout, context.settings, context.manager)
        if faults := [fault for change in applied.refused for fault in change.faults]:
            raise ConfigurationError(faults)
    _say(context.manager.enable(units))
    context.manager.daemon_reload()
    if now:
        from helmd.cli.control import operate

        starting = {"mode": None, "no_deps": False, "follow": False}
        return operate(context, "start", services, {**QUIET, **starting}, schedules=True)
    return exits.OK


@click.command("disable", short_help="Keep services from starting with it.")
@some_services_argument
@click.option("--now", is_flag=True, help="Stop them as well.")
@click.pass_obj
@audited("disable")
def disable_command(context: Context, services: tuple[str, ...], now: bool) -> int:
    """Keep services from starting with the suite and at boot."""
    registry = context.suite_or_installed
    names = _controlled(context, services)
    units = [registry[name].enabled_unit if name in registry else unit_of(name) for name in names]
    _say(context.manager.disable(units))
    context.manager.daemon_reload()
    if now:
        from helmd.cli.control import operate

        return operate(context, "stop", services, QUIET, schedules=True)
    return exits.OK


QUIET: dict[str, Any] = {
    "as_json": False, "quiet": False, "dry_run": False, "reason": "", "timeout": None, "no_block": False,
}  # fmt: skip
"""What `start` and `stop` are given when another command calls them."""


def _say(made: list[tuple[str, str, str]]) -> None:
    for kind, link, target in made:
        output.print_message(f"created {link} → {target}" if kind == "symlink" else f"removed {link}")
    if not made:
        output.print_message("Nothing to change.")


@click.command("reset-failed", short_help="Forget failures and restart counts.")
@services_argument
@click.pass_obj
@audited("reset-failed")
def reset_failed_command(context: Context, services: tuple[str, ...]) -> int:
    """Forget failures and restart counts, as "systemctl reset-failed" does."""
    for name in context.chosen(services, context.suite_or_installed, unregistered=True):
        context.manager.reset_failed(unit_of(name))
    return exits.OK


class SignalName(click.ParamType):
    """A signal, as ``TERM``, ``SIGTERM`` or ``15``."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        import signal

        text = str(value).upper()
        try:
            return int(
                signal.Signals(int(text)) if text.isdecimal() else signal.Signals["SIG" + text.removeprefix("SIG")]
            )
        except (KeyError, ValueError):
            self.fail(f"{str(value)[:40]!a} is not a signal", param, ctx)


@click.command("kill", short_help="Send a signal to services' processes.")
@some_services_argument
@click.option("-s", "--signal", "number", type=SignalName(), default="TERM", show_default=True, help="Which signal.")
@click.pass_obj
@audited("kill")
def kill_command(context: Context, services: tuple[str, ...], number: int) -> int:
    """Send a signal to all processes of services, as "systemctl kill" does."""
    for name in _controlled(context, services):
        context.manager.kill(unit_of(name), number)
    return exits.OK
