"""``helmctl top``: the resources that each service uses, refreshed every two seconds."""

import dataclasses
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from helmd.cli import exits, output
from helmd.cli.arguments import Duration, services_argument
from helmd.cli.context import Context
from helmd.operations.monitoring.top import Sampler, UsageSample

TOP_COLUMNS = ("SERVICE", "STATE", "PID", "CPU %", "MEMORY", "TASKS", "RESTARTS", "UPTIME")
_FIRST = 0.5
"""Seconds over which the first figures are measured."""
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_HIDE, _SHOW = "\x1b[?25l\x1b[2J", "\x1b[?25h"


@click.command("top", short_help="Show live resource usage.")
@services_argument
@click.option("-d", "--delay", type=Duration(), default=2.0, metavar="TIME", help="Time between updates. [default: 2s]")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(0),
    metavar="N",
    help="Number of updates; 0 for no limit. [default: 0 on a terminal, else 1]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each service and update.")
@click.pass_obj
def top_command(context: Context, services: tuple[str, ...], delay: float, count: int | None, as_json: bool) -> int:
    """Show the processor time, memory and tasks that each service uses. Press q or Ctrl-C to quit.

    Processor time is in percent of one processor; tasks are processes and threads. Without SERVICE, Helm's own units
    are shown as well.
    """
    registry = context.suite_or_installed
    names = [name for name in context.chosen(services, registry, unregistered=True) if not _external(context, name)]
    sampler = Sampler(context.manager, names, with_helm=not services or "all" in services)
    live = sys.stdout.isatty() and not as_json
    remaining = count if count is not None else int(not sys.stdout.isatty())
    endless = remaining == 0
    sampler.sample()
    try:
        with _screen(live) as pressed_q:
            if pressed_q(min(_FIRST, delay)):
                return exits.OK
            while True:
                _show(sampler.sample(), live, as_json)
                remaining -= 1
                if (not endless and remaining <= 0) or pressed_q(delay):
                    return exits.OK
    except KeyboardInterrupt:
        return exits.OK


def _external(context: Context, name: str) -> bool:
    registry = context.suite_or_installed
    return name in registry and registry[name].external


def _show(samples: list[UsageSample], live: bool, as_json: bool) -> None:
    if as_json:
        now = datetime.now(UTC).isoformat()
        for sample in samples:
            output.print_json_line({"timestamp": now, **dataclasses.asdict(sample)})
        sys.stdout.flush()
        return
    lines = output.table(TOP_COLUMNS, [_row(sample) for sample in samples], state=1)
    if not live:
        for parts in lines:
            output.print_line(*parts)
        return
    width, height = shutil.get_terminal_size()
    height -= 1
    head = f"{time.strftime('%H:%M:%S')}  load {os.getloadavg()[0]:.2f}  q: quit"
    lines.insert(0, [head])
    shown = [output.render_line(output.truncate(parts, width), output.coloured()) for parts in lines][:height]
    output.control_terminal(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in shown) + _CLEAR_BELOW)


def _row(sample: UsageSample) -> tuple[str, ...]:
    return (
        sample.name,
        sample.state,
        str(sample.pid or "-"),
        "-" if sample.cpu_percent is None else f"{sample.cpu_percent:.1f}",
        "-" if sample.memory_mb is None else f"{sample.memory_mb:.0f}M",
        "-" if sample.tasks is None else str(sample.tasks),
        str(sample.restarts),
        "-" if sample.uptime is None else output.format_duration(sample.uptime),
    )


@contextmanager
def _screen(live: bool) -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for some seconds and returns whether q was pressed.

    Restores the terminal at the end.
    """
    if not (live and sys.stdin.isatty()):

        def only_wait(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield only_wait
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    output.control_terminal(_HIDE)
    try:
        yield _pressed_q
    finally:
        output.control_terminal(_SHOW)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed_q(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(1000 * left):
            key = os.read(sys.stdin.fileno(), 1)
            if key in (b"q", b"Q", b""):
                return True
    return False
