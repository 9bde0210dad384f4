"""``helmctl is-active|is-healthy|is-failed|wait``: query states by exit code."""

import time

import click

from helmd.cli import exits, output
from helmd.cli.arguments import Duration, some_services_argument
from helmd.cli.context import Context
from helmd.model.units.health import HEALTHY
from helmd.operations.monitoring.status import View, observe_services

POLL_INTERVAL = 0.05
CONDITIONS = ("healthy", "active", "inactive", "failed")


def _views(context: Context, services: tuple[str, ...]) -> list[View]:
    registry = context.suite_or_installed
    return observe_services(
        registry, context.chosen(services, registry, unregistered=True), context.manager, context.layout
    )


@click.command("is-active", short_help="Exit code 0 if any is active.")
@some_services_argument
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.pass_obj
def is_active_command(context: Context, services: tuple[str, ...], quiet: bool) -> int:
    """Exit code 0 if any of the services is active, else 3, as systemctl is-active."""
    views = _views(context, services)
    if not quiet:
        for view in views:
            output.print_line(view.facts.active_state)
    return exits.OK if any(view.facts.active for view in views) else exits.INACTIVE


@click.command("is-failed", short_help="Exit code 0 if any has failed.")
@some_services_argument
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.pass_obj
def is_failed_command(context: Context, services: tuple[str, ...], quiet: bool) -> int:
    """Exit code 0 if any of the services has failed, else 1, as systemctl is-failed."""
    views = _views(context, services)
    if not quiet:
        for view in views:
            output.print_line(view.facts.active_state)
    return exits.OK if any(view.word in ("failed", "flapping") for view in views) else exits.FAILED


@click.command("is-enabled", short_help="Exit code 0 if any starts with the suite.")
@some_services_argument
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.pass_obj
def is_enabled_command(context: Context, services: tuple[str, ...], quiet: bool) -> int:
    """Exit code 0 if any of the services starts with the suite, else 1, as systemctl is-enabled."""
    states = [context.manager.facts(view.service.enabled_unit).file_state for view in _views(context, services)]
    if not quiet:
        for state in states:
            output.print_line(state or "not-found")
    return exits.OK if any(state.startswith("enabled") for state in states) else exits.FAILED


@click.command("is-healthy", short_help="Exit code 0 if all are healthy.")
@some_services_argument
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.pass_obj
def is_healthy_command(context: Context, services: tuple[str, ...], quiet: bool) -> int:
    """Exit code 0 if all services are healthy, else 3. Degraded services are not healthy."""
    views = _views(context, services)
    if not quiet:
        for view in views:
            output.print_line(view.word)
    return exits.OK if all(view.good and view.verdict.state == HEALTHY for view in views) else exits.INACTIVE


def _holds(view: View, condition: str) -> bool:
    if condition == "healthy":
        return view.good
    if condition == "active":
        return view.facts.active
    if condition == "failed":
        return view.facts.active_state == "failed"
    return view.facts.active_state in ("inactive", "failed")


@click.command("wait", short_help="Wait until services are in a state.")
@some_services_argument
@click.option("--for", "condition", type=click.Choice(CONDITIONS), default="healthy", show_default=True)
@click.option(
    "--timeout", type=Duration(), default=60.0, metavar="TIME", help="Give up after this long (exit code 124)."
)
@click.pass_obj
def wait_command(context: Context, services: tuple[str, ...], condition: str, timeout: float) -> int:
    """Wait until all services are in a state. Degraded services count as healthy here, since they have started."""
    deadline = time.monotonic() + timeout
    while True:
        views = _views(context, services)
        missing = [view for view in views if not _holds(view, condition)]
        if not missing:
            return exits.OK
        if time.monotonic() >= deadline:
            for view in missing:
                output.print_message(f"{view.service.name} is {view.word}, not {condition}: {view.verdict.sentence}")
            return exits.TIMEOUT
        time.sleep(POLL_INTERVAL)
