"""``helmctl status``."""

import sys
import time
from typing import Any

import click

from helmd.cli import exits, output
from helmd.cli.arguments import services_argument
from helmd.cli.context import Context
from helmd.cli.output import clear_terminal
from helmd.model.suite.names import HELMD_UNIT, JOURNAL_UNIT
from helmd.model.units.unit_state import CLD_EXITED, daemon_trouble, last_exit, next_run, shown_time
from helmd.operations.monitoring.status import View, observe_services
from helmd.systemd.installed import installed_mode

STATUS_COLUMNS = ("SERVICE", "STATE", "PID", "UPTIME", "RESTARTS", "PORT", "HEALTH")
WIDE_COLUMNS = (*STATUS_COLUMNS, "CPU", "MEMORY", "MODE", "UNIT", "SINCE", "DESCRIPTION")
REFRESH = 2.0
"""Interval of --watch in seconds."""


@click.command("status")
@services_argument
@output.format_option("table", "wide", "json", "name")
@click.option("-w", "--watch", is_flag=True, help="Show it again every 2 seconds.")
@click.pass_obj
def status_command(context: Context, services: tuple[str, ...], output: str, as_json: bool, watch: bool) -> int:
    """Show the state and health of services.

    Exit code 0 when all of them work, 3 when one doesn't, 4 when there is no such service.
    """
    form = "json" if as_json else output
    while True:
        registry = context.suite_or_installed
        names = context.chosen(services, registry, unregistered=True)
        views = observe_services(registry, names, context.manager, context.layout, brief=True)
        if watch and form != "json" and sys.stdout.isatty():
            clear_terminal()
        _print(views, form, context, stream=watch)
        if not watch:
            return exits.OK if views and all(view.good or view.unregistered for view in views) else exits.INACTIVE
        time.sleep(REFRESH)


def _print(views: list[View], form: str, context: Context, stream: bool) -> None:
    if form == "name":
        for view in views:
            output.print_line(view.service.name)
    elif form == "json":
        found = [status_json(view, context) for view in views]
        for entry in found if stream else ():
            output.print_json_line(entry)
        if not stream:
            output.print_json(found)
    elif not views:
        output.print_message("No services yet. Add some to services.toml; see services.toml(5).")
    else:
        rows = [_row(view, context, form == "wide") for view in views]
        width = _columns() if stream and sys.stdout.isatty() else None
        for parts in output.table(WIDE_COLUMNS if form == "wide" else STATUS_COLUMNS, rows, state=1):
            output.print_line(*output.truncate(parts, width))
        _print_remarks(views, context)


def _columns() -> int:
    # Imported here, since it loads all compression modules.
    import shutil

    return shutil.get_terminal_size().columns


def _row(view: View, context: Context, wide: bool) -> tuple[str, ...]:
    facts = view.facts
    since = facts.running_since
    row = (
        view.service.name,
        view.word + (" (not in the registry)" if view.unregistered else ""),
        str(facts.main_pid or "-"),
        output.format_duration(time.time() - since) if since else "-",
        str(facts.restarts),
        str(view.service.port or "-"),
        "external: " + view.verdict.sentence if view.service.external else _health(view),
    )
    if not wide:
        return row
    # Imported here, since only --output wide needs it.
    from helmd.systemd.usage import CGROUPS, UsageReading, read_group

    mode = installed_mode(context.layout, view.service.name) or "-"
    changed = shown_time(facts.changed_at) if facts.changed_at else "-"
    unit = "-" if view.service.external else facts.unit
    used = read_group(CGROUPS / facts.control_group.lstrip("/")) if facts.control_group else UsageReading(None, None)
    cpu = "-" if used.cpu_seconds is None else output.format_duration(used.cpu_seconds)
    memory = "-" if used.memory is None else f"{used.memory / (1 << 20):.0f}M"
    return (*row, cpu, memory, mode, unit, changed, view.service.description)


def _health(view: View) -> str:
    if view.facts.active or view.good:
        return view.verdict.sentence
    if view.blocked:
        return f"not started: a change of it is not complete; helmctl why {view.service.name}"
    if view.word in ("failed", "flapping"):
        return "; ".join(filter(None, (_how_it_ended(view), next_run(view.facts), f"helmctl why {view.service.name}")))
    if not view.facts.exists:
        return "its unit is not installed; helmctl apply"
    return "-"


def _how_it_ended(view: View) -> str:
    """Return how it last ended. systemd's Result= is also "success" when a long-running service exits with 0."""
    result, probe = view.facts.result, view.facts.probe_exit
    if probe.failed and probe.code == CLD_EXITED and probe.status != 2:
        return "not healthy in time"
    return last_exit(view.facts) or ("it ended" if result == "success" else result)


def _print_remarks(views: list[View], context: Context) -> None:
    """Print messages about what the table has no column for."""
    for view in views:
        facts = view.facts
        if facts.need_reload:
            output.print_message(f"{view.service.name}: its unit changed on disk; run: systemctl --user daemon-reload")
        if facts.drop_ins:
            output.print_message(f"{view.service.name}: with drop-in {', '.join(facts.drop_ins)}")
        if facts.exists and not view.service.external and facts.fragment != str(context.layout.unit_file(facts.unit)):
            where = facts.fragment or "a transient unit"
            output.print_message(f"{view.service.name}: its unit is not Helm's ({where})")
    for unit in (HELMD_UNIT, JOURNAL_UNIT):
        if trouble := daemon_trouble(context.manager.facts(unit), time.time()):
            output.print_message(f"{trouble}; see: helmctl doctor")


def status_json(view: View, context: Context) -> dict[str, Any]:
    """Return a service as in the API (docs/api.md), plus ``state``, the word in the table."""
    from helmd.model.api.json_codec import to_json
    from helmd.model.units.status import Observed, service_status

    name = view.service.name
    mode = installed_mode(context.layout, name)
    service = None if view.unregistered else view.service
    observed = Observed(name, service, view.facts, mode, view.verdict, blocked=view.blocked)
    return {**to_json(service_status(observed, time.time())), "state": view.word}
