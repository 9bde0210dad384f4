"""Tables, JSON and colour: data on stdout, messages on stderr."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

OUTPUT_FORMATS = ("table", "wide", "json", "name")

COLOURS = {
    "healthy": "green",
    "running": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "flapping": "red",
    "unhealthy": "red",
    "failed": "red",
}


def format_option(*formats: str) -> Callable[[Any], Any]:
    """``-o FORMAT`` and ``--json``, which is ``-o json``."""

    def decorate(command: Any) -> Any:
        command = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")(command)
        return click.option(
            "-o", "--output", "output", type=click.Choice(formats), default=formats[0], show_default=True,
            help="How to print it.",
        )(command)  # fmt: skip

    return decorate


def coloured() -> bool:
    """Whether stdout takes colour: a terminal, and NO_COLOR (no-color.org) not set."""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(word: str, width: int = 0) -> str:
    """A state word, padded and in its colour; the word itself carries the meaning."""
    padded = word.ljust(width)
    return click.style(padded, fg=COLOURS.get(word)) if coloured() else padded


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """One object a line (NDJSON), for streams."""
    click.echo(json.dumps(value))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], painted: Sequence[int] = ()) -> list[str]:
    """Left-aligned columns two spaces apart; columns in PAINTED are coloured by their word."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(header, widths, strict=True)).rstrip()]
    for row in rows:
        cells = [
            paint(cell, width) if index in painted else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def format_duration(seconds: float) -> str:
    """A length of time in its two largest units: ``3d 4h``, ``2min 5s``, ``0.4s``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    for format_size, name, lower, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= format_size:
            rest = whole % format_size // lower
            return f"{whole // format_size}{name}" + (f" {rest}{lower_name}" if rest else "")
    return f"{whole}s"


def format_size(count: float | None) -> str:
    """Bytes as mebibytes."""
    return "-" if count is None else f"{count / (1 << 20):.0f}M"
