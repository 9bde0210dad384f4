"""What helmctl prints: data on stdout, messages on stderr; the one place that writes to either.

Descriptions of units, log lines, file contents and names come from others, and a terminal obeys control characters in
them. So everything is escaped here (`helmd.model.printable`), and colours are given apart from the text. The commands
print in no other way (tests/unit/test_output.py); `helmd.cli.logs` writes the lines of logs by the same rule. What the
locale's character set lacks is replaced here, too.
"""

import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TextIO

import click

from helmd.model.printable import printable

STATE_COLOURS = {
    "healthy": "green",
    "running": "green",
    "succeeded": "green",
    "scheduled": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "flapping": "red",
    "unhealthy": "red",
    "failed": "red",
    "interrupted": "red",
}


class Painted(NamedTuple):
    """Text to print in a colour of click.style()."""

    text: str
    colour: str
    bold: bool = False


Part = str | Painted

_IN_ASCII = str.maketrans(
    {"•": "*", "✓": "+", "✗": "x", "…": "...", "→": "->", "│": "|", "├": "|", "└": "`", "─": "-", "·": "-"}
    | dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True))
)
"""Symbols of Helm's own for terminals that don't show UTF-8, much as systemctl(1) replaces its own."""


class _PrintOptions:
    """How this process prints."""

    def __init__(self) -> None:
        self.ascii_symbols = False
        self.record: Callable[[str], None] | None = None
        """Called with every line on stderr."""


_options = _PrintOptions()


def use_locale_charset() -> None:
    """Write in the character set of the locale: what that lacks as \\xNN or \\uNNNN, and symbols in ASCII.

    Python's UTF-8 mode, in which helmctl runs, is for files. For the C locale, whose character set is ASCII, other text
    stays UTF-8, since terminals show it.
    """
    import _locale

    charset = _locale.getencoding()
    _options.ascii_symbols = charset.upper().replace("-", "") != "UTF8"
    if charset in ("ANSI_X3.4-1968", "US-ASCII", "ASCII") or not _options.ascii_symbols:
        charset = "utf-8"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=charset, errors="backslashreplace")


def open_closed_streams() -> None:
    """Open /dev/null as those of the standard streams that the caller has closed, as by ``>&-``.

    Otherwise they are None in `sys`, and the next file or socket to be opened gets the descriptor of one.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # open(2) returns the lowest descriptor that is free, which is this one. Child processes get it as well.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def flush_streams() -> bool:
    """Write what stdout and stderr have buffered; return whether all of stdout could be written.

    What can't be written is dropped: Python would try again when it exits, and exit with 120.
    """
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), stream.fileno())
            written = written and stream is not sys.stdout
    return written


def format_option(*formats: str) -> Callable[[Any], Any]:
    """``-o FORMAT`` and ``--json``, which is ``-o json``."""

    def decorate(command: Any) -> Any:
        command = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")(command)
        return click.option(
            "-o", "--output", "output", type=click.Choice(formats), default=formats[0], show_default=True,
            help="How to print it.",
        )(command)  # fmt: skip

    return decorate


def coloured(stream: TextIO | None = None) -> bool:
    """Return whether STREAM (stdout) takes colour: a terminal, and NO_COLOR (no-color.org) not set."""
    stream = stream or sys.stdout
    return stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")


def render_line(parts: Iterable[Part], colour: bool) -> str:
    """Return one line without its end, as it is written: everything escaped, and painted where COLOUR is wanted."""
    return "".join(_rendered(part, colour) for part in parts)


def _rendered(part: Part, colour: bool) -> str:
    text = printable(part.text if isinstance(part, Painted) else part)
    if _options.ascii_symbols:
        text = text.translate(_IN_ASCII)
    if colour and isinstance(part, Painted):
        return click.style(text, fg=part.colour, bold=part.bold or None)
    return text


def print_line(*parts: Part) -> None:
    """Print a line of data."""
    click.echo(render_line(parts, coloured()))


def record_messages(record: Callable[[str], None]) -> None:
    """Call RECORD with every line printed to stderr from now on."""
    _options.record = record


def print_message(*parts: Part) -> None:
    """Print a line on stderr."""
    if _options.record is not None:
        _options.record(render_line(parts, False))
    _echo_to_stderr(render_line(parts, coloured(sys.stderr)))


def _echo_to_stderr(text: str, end: bool = True) -> None:
    """Write TEXT to stderr. What can't be written, as to a full disk, is dropped: no operation fails because of that.

    Raises BrokenPipeError, as for stdout.
    """
    try:
        click.echo(text, err=True, nl=end)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def print_text(block: str) -> None:
    """Print lines of text; line breaks stay."""
    for each in block.split("\n")[:-1] if block.endswith("\n") else block.split("\n"):
        print_line(each)


def control_terminal(sequence: str) -> None:
    """Write control sequences of helmctl's own, with text from `render_line`."""
    click.echo(sequence, nl=False)
    sys.stdout.flush()


def clear_terminal() -> None:
    control_terminal("\x1b[H\x1b[2J")


def print_progress(sentence: str, last: bool) -> None:
    """Show progress on stderr: on a terminal in one line that is overwritten until the LAST time."""
    overwrite = sys.stderr.isatty() and not last
    _echo_to_stderr(printable(sentence) + ("\r" if overwrite else ""), end=not overwrite)


def print_json(value: Any) -> None:
    # In a job, whose output is a log, it takes one line.
    click.echo(_json(value, 2 if _options.record is None else None))


def print_json_line(value: Any) -> None:
    """One object a line (NDJSON), for streams."""
    click.echo(_json(value, None))


def _json(value: Any, indent: int | None) -> str:
    # Imported here: most commands print none.
    import json

    # With ensure_ascii only DEL is left that means something to a terminal.
    return json.dumps(value, indent=indent, ensure_ascii=True).replace("\x7f", "\\u007f")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], state: int | None = None) -> list[list[Part]]:
    """Left-aligned columns two spaces apart, as the parts of lines; the column STATE is coloured by its word."""
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for number, row in enumerate(cells):
        parts: list[Part] = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            colour = STATE_COLOURS.get(cell) if number and index == state else None
            parts.append(Painted(cell, colour) if colour else cell)
            parts.append(" " * (width - len(cell) + 2))
        parts.pop()
        lines.append(parts)
    return lines


def truncate(parts: Sequence[Part], width: int | None) -> list[Part]:
    """Return the PARTS of a line as far as they fit into WIDTH columns, so that it takes one row, or None for all."""
    if width is None:
        return list(parts)
    kept: list[Part] = []
    for part in parts:
        text = part.text if isinstance(part, Painted) else part
        kept.append(part._replace(text=text[:width]) if isinstance(part, Painted) else text[:width])
        width -= len(text)
        if width <= 0:
            break
    return kept


def format_duration(seconds: float) -> str:
    """Return a length of time in its two largest units: ``3d 4h``, ``2min 5s``, ``0.4s``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    for size, name, lower, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // lower
            return f"{whole // size}{name}" + (f" {rest}{lower_name}" if rest else "")
    return f"{whole}s"
