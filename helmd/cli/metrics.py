"""``helmctl metrics``: what was measured of a service over time."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from helmd.cli import exits, output
from helmd.cli.arguments import Duration, one_service_argument, point_in_time
from helmd.cli.client import HelmdAwayError, Wait, document, request
from helmd.cli.context import Context
from helmd.model.errors import UsageError
from helmd.model.suite.names import HELM_SERVICE

_ANSWER_SECONDS = 10.0
_HOUR = 3600
_CELLS = 48
"""About as many points a chart has, where no step is given."""
_STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800)
_LONGEST_CHART = 120
_BLOCKS = "▁▂▃▄▅▆▇█"
_HEADER = ("METRIC", "LEAST", "MEAN", "GREATEST", "NEWEST", "GREATEST IN EACH STEP")


@dataclass(frozen=True, slots=True)
class _Point:
    at: float
    mean: float
    least: float
    greatest: float
    count: int


@click.command("metrics", short_help="Show what was measured of a service over time.")
@one_service_argument
@click.option("-m", "--metric", "metrics", metavar="NAME", multiple=True, help="Only this metric; may be repeated.")
@click.option(
    "-S", "--since", metavar="TIME", help='From then on: "2 hours ago", "yesterday", ISO 8601. [default: an hour]'
)
@click.option("-U", "--until", metavar="TIME", help="Only before then.")
@click.option("--step", type=Duration(), metavar="TIME", help="Seconds of each step, or 5min, 2h.")
@output.format_option("table", "json")
@click.pass_obj
def metrics_command(
    context: Context,
    service: str,
    metrics: tuple[str, ...],
    since: str | None,
    until: str | None,
    step: float | None,
    output: str,
    as_json: bool,
) -> int:
    """Show what was measured of a service over time, with the greatest value in each step as a small chart.

    Helm measures cpu_percent, memory_mb, restarts, response_ms and log_rate every 15 seconds; others are posted. Steps
    in which nothing was measured are empty. Measurements are kept for 14 days, minutes for 90 days, five minutes for
    13 months: a step that is shorter becomes as long.
    """
    name = service
    if service != HELM_SERVICE:
        name = context.chosen_one(service, context.suite_or_installed, unregistered=True)
    end = (point_in_time("--until", until) or time.time() * 1e6) / 1e6
    start = (point_in_time("--since", since) or (end - _HOUR) * 1e6) / 1e6
    if start >= end:
        raise UsageError("--since: must be before --until")
    if step is not None and step < 1:
        raise UsageError("--step: must be at least a second")
    asked = {
        "start_time": _shown(start),
        "end_time": _shown(end),
        "step": str(math.ceil(step) if step is not None else _step(end - start)),
    }
    if metrics:
        asked["metric_name"] = ",".join(metrics)
    reply = document(request(context.suite_layout.socket, f"/api/metrics/{name}", asked, Wait(_ANSWER_SECONDS)))
    if as_json or output == "json":
        _print_json(reply)
    else:
        _print_table(reply, name)
    return exits.OK


def _step(seconds: float) -> int:
    return next((step for step in _STEPS if seconds / step <= _CELLS), _STEPS[-1])


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _print_json(reply: Any) -> None:
    output.print_json(reply)


def _print_table(reply: Any, name: str) -> None:
    try:
        start, end = (datetime.fromisoformat(reply[key]).timestamp() for key in ("start_time", "end_time"))
        step = int(reply["step"])
        series = _series(reply["metrics"])
    except (KeyError, TypeError, ValueError) as error:
        raise HelmdAwayError("helmd's answer can't be read", hint="See: systemctl --user status helmd") from error
    if not series:
        output.print_message(f"nothing was measured of {name} in that time")
        return
    rows = [_row(label, points, start, end, step) for label, points in sorted(series.items())]
    for parts in output.table(_HEADER, rows):
        output.print_line(*parts)
    begins = datetime.fromtimestamp(start).strftime("%Y-%m-%d %H:%M:%S")
    ends = datetime.fromtimestamp(end).strftime("%Y-%m-%d %H:%M:%S")
    output.print_message(f"{begins} to {ends}, in steps of {output.format_duration(step)}")


def _series(points: Iterable[Mapping[str, Any]]) -> dict[str, list[_Point]]:
    """Return the points of each metric with its tags, the oldest first."""
    found: dict[str, list[_Point]] = {}
    for point in points:
        tags = ",".join(f"{key}={value}" for key, value in sorted((point["tags"] or {}).items()))
        label = f"{point['metric_name']}{{{tags}}}" if tags else str(point["metric_name"])
        mean, least, greatest = (float(point[key]) for key in ("metric_value", "minimum", "maximum"))
        at = datetime.fromisoformat(point["timestamp"]).timestamp()
        found.setdefault(label, []).append(_Point(at, mean, least, greatest, int(point["count"])))
    return {label: each[::-1] for label, each in found.items()}


def _row(label: str, points: Sequence[_Point], start: float, end: float, step: int) -> tuple[str, ...]:
    mean = sum(point.mean * point.count for point in points) / sum(point.count for point in points)
    figures = (min(point.least for point in points), mean, max(point.greatest for point in points), points[-1].mean)
    return (label, *(f"{figure:.6g}" for figure in figures), chart(points, start, end, step))


def chart(points: Sequence[_Point], start: float, end: float, step: int) -> str:
    """Return the greatest value in each step as a bar between 0, or the least of them, and the greatest of all."""
    cells = round((end - start) / step)
    merged = max(1, math.ceil(cells / _LONGEST_CHART))
    greatest: dict[int, float] = {}
    for point in points:
        cell = int((point.at - start) // step) // merged
        greatest[cell] = max(point.greatest, greatest.get(cell, -math.inf))
    low, high = min(0.0, *greatest.values()), max(greatest.values())
    # Halved, since the difference of two finite numbers may be none.
    height = high / 2 - low / 2

    def bar(value: float) -> str:
        return _BLOCKS[min(len(_BLOCKS) - 1, int((value / 2 - low / 2) / height * len(_BLOCKS))) if height > 0 else 0]

    return "".join(bar(greatest[cell]) if cell in greatest else " " for cell in range(math.ceil(cells / merged)))
