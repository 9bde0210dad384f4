"""Output formats of ``helmctl logs``: functions from a line to bytes.

Services may print anything, so control characters are escaped. Only ``cat`` to a file or pipe writes the message
unchanged: the bytes in the journal, or the message in the log store.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any, NamedTuple

from helmd.model.logs.entry import HELM, SYSTEMD, LogRow
from helmd.model.logs.parsing.journal_fields import JournalEntry
from helmd.model.printable import printable


class OutputLine(NamedTuple):
    """A line to print: its row, and its id or journal entry."""

    row: LogRow
    id: int | None = None
    """Its id in the log store."""
    entry: JournalEntry | None = None
    """Its entry in the journal."""


Format = Callable[[OutputLine], bytes]

LINE_FORMATS = ("short", "short-iso", "short-precise", "cat", "json", "json-pretty", "verbose")

_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_ABOUT = frozenset({SYSTEMD, HELM})
"""Sources of messages about a service, as opposed to messages of the service itself."""


def format_named(name: str, colour: bool, terminal: bool, utc: bool = False) -> Format:
    """Return the format NAME, one of LINE_FORMATS. TERMINAL says whether the output goes to a terminal."""
    if name == "cat":
        return _printable_cat if terminal else _raw_cat
    if name == "json":
        return _json
    if name == "json-pretty":
        return lambda line: _json(line, 4)
    return (lambda line: _verbose(line, utc)) if name == "verbose" else _Short(colour, name, utc)


class _Short:
    """``Nov 23 08:27:17 core[123] ERROR: text``, in local time; level INFO is omitted."""

    def __init__(self, colour: bool, style: str = "short", utc: bool = False) -> None:
        self._colour = colour
        self._form = "%Y-%m-%dT%H:%M:%S%z" if style == "short-iso" else "%b %d %H:%M:%S"
        self._precise = style == "short-precise"
        self._convert = time.gmtime if utc else time.localtime
        self._second = -1
        self._time = ""

    def __call__(self, line: OutputLine) -> bytes:
        row = line.row
        second = int(row.timestamp.timestamp())
        if second != self._second:
            self._second, self._time = second, time.strftime(self._form, self._convert(second))
        level = "" if row.level == "INFO" else f" {row.level}"
        fraction = f".{row.timestamp.microsecond:06d}" if self._precise else ""
        prefix = f"{self._time}{fraction} {_origin(line)}{level}: "
        texts = [printable(text) for text in row.message.split("\n")]
        if self._colour and (start := _COLOURS.get(row.level) or (_DIM if row.source in _ABOUT else "")):
            texts = [f"{start}{text}{_RESET}" for text in texts]
        return (prefix + ("\n" + " " * len(prefix)).join(texts) + "\n").encode("utf-8", "replace")


def _origin(line: OutputLine) -> str:
    """Return service and process id; for a message about the service, also its sender."""
    row = line.row
    origin = row.service_name
    if row.source in _ABOUT:
        identifier = b"helm" if row.source == HELM else b"systemd"
        given = line.entry.fields.get("SYSLOG_IDENTIFIER", identifier) if line.entry is not None else identifier
        origin += " " + printable(_bytes(given).decode("utf-8", "replace")[:60])
    return f"{origin}[{row.process_id}]" if row.process_id is not None else origin


def _raw_cat(line: OutputLine) -> bytes:
    if line.entry is not None:
        return _bytes(line.entry.fields.get("MESSAGE", b"")) + b"\n"
    return line.row.message.encode("utf-8", "replace") + b"\n"


def _printable_cat(line: OutputLine) -> bytes:
    return ("\n".join(printable(text) for text in line.row.message.split("\n")) + "\n").encode("utf-8", "replace")


def _json(line: OutputLine, indent: int | None = None) -> bytes:
    shown = line_json(line.row)
    if line.id is not None:
        shown = {"id": line.id} | shown
    if line.entry is not None:
        shown["cursor"] = line.entry.cursor
    # ensure_ascii escapes everything that a terminal could interpret.
    return json.dumps(shown, ensure_ascii=True, indent=indent).encode("ascii") + b"\n"


def line_json(row: LogRow) -> dict[str, Any]:
    """Return a row with the field names of the API."""
    return {
        "timestamp": row.timestamp.isoformat(),
        "service_name": row.service_name,
        "level": row.level,
        "message": row.message,
        "context": row.context,
        "trace_id": row.trace_id,
        "user_id": row.user_id,
        "hostname": row.hostname,
        "process_id": row.process_id,
        "source": row.source,
        "unit": row.unit,
        "stream": row.stream,
        "boot_id": row.boot_id,
    }


def _verbose(line: OutputLine, utc: bool = False) -> bytes:
    """Return all fields like ``journalctl -o verbose``: those of the journal entry, or of the row and its context."""
    if line.entry is None:
        where, fields = str(line.id), _columns(line.row)
    else:
        where, fields = line.entry.cursor, _fields(line.entry)
    lines = [f"{line.row.timestamp.astimezone(UTC if utc else None):%a %Y-%m-%d %H:%M:%S.%f %Z} [{where}]"]
    for name, value in fields:
        lines.append(f"    {printable(name)}=" + "\n        ".join(printable(text) for text in value.split("\n")))
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _columns(row: LogRow) -> Iterator[tuple[str, str]]:
    for name, value in line_json(row).items():
        if name == "context":
            for key, inner in (value or {}).items():
                yield f"context.{key}", inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
        elif value is not None:
            yield name, str(value)


def _fields(entry: JournalEntry) -> Iterator[tuple[str, str]]:
    for name, value in sorted(entry.fields.items()):
        for one in value if isinstance(value, list) else [value]:
            yield name, one.decode("utf-8", "replace")


def _bytes(value: bytes | list[bytes]) -> bytes:
    return b"\n".join(value) if isinstance(value, list) else value
