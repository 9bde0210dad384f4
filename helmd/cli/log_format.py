"""How ``helmctl logs`` prints a line: a function from what was found to bytes, for each format.

A service writes what it likes. What goes to a terminal, or may end there, has its control characters shown instead of
obeyed; only ``cat`` to a file or pipe gives the bytes as they are.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from helmd.journal.query import Found
from helmd.model.printable import printable
from helmd.model.row import HELM, JOURNAL, LogRow

Format = Callable[[Found], bytes]

FORMATS = ("short", "cat", "json", "verbose")

_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_REMARK, _PLAIN = "\x1b[2m", "\x1b[0m"


def format_named(name: str, colour: bool, terminal: bool) -> Format:
    """The format called NAME, one of FORMATS. TERMINAL says whether a terminal may see the output."""
    if name == "cat":
        return _printable_cat if terminal else _raw_cat
    if name == "json":
        return _json
    return _verbose if name == "verbose" else _Short(colour)


class _Short:
    """``Nov 23 08:27:17 core[123] ERROR: text``, in local time; a level of INFO goes without saying."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour
        self._second = -1
        self._time = ""

    def __call__(self, found: Found) -> bytes:
        row = found.row
        second = found.entry.realtime // 1_000_000
        if second != self._second:
            self._second, self._time = second, time.strftime("%b %d %H:%M:%S", time.localtime(second))
        level = "" if row.level == "INFO" else f" {row.level}"
        prefix = f"{self._time} {_who(found)}{level}: "
        lines = [printable(line) for line in row.message.split("\n")]
        if self._colour and (start := _COLOURS.get(row.level) or (_REMARK if row.source != JOURNAL else "")):
            lines = [f"{start}{line}{_PLAIN}" for line in lines]
        return (prefix + ("\n" + " " * len(prefix)).join(lines) + "\n").encode("utf-8", "replace")


def _who(found: Found) -> str:
    """The service and its process; for remarks about it also who made them."""
    row = found.row
    speaker = row.service_name
    if row.source != JOURNAL:
        identifier = found.entry.fields.get("SYSLOG_IDENTIFIER", b"helm" if row.source == HELM else b"systemd")
        speaker += " " + printable(_bytes(identifier).decode("utf-8", "replace")[:60])
    return f"{speaker}[{row.process_id}]" if row.process_id is not None else speaker


def _raw_cat(found: Found) -> bytes:
    return _bytes(found.entry.fields.get("MESSAGE", b"")) + b"\n"


def _printable_cat(found: Found) -> bytes:
    return ("\n".join(printable(line) for line in found.row.message.split("\n")) + "\n").encode("utf-8", "replace")


def _json(found: Found) -> bytes:
    # With ensure_ascii no character in it means anything to a terminal.
    return json.dumps(as_json(found.row) | {"cursor": found.entry.cursor}, ensure_ascii=True).encode("ascii") + b"\n"


def as_json(row: LogRow) -> dict[str, Any]:
    """A row by the names that the API gives its fields."""
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


def _verbose(found: Found) -> bytes:
    """Every field of the entry, as ``journalctl -o verbose`` has them."""
    moment = datetime.fromtimestamp(found.entry.realtime / 1e6).astimezone()
    lines = [f"{moment:%a %Y-%m-%d %H:%M:%S.%f %Z} [{found.entry.cursor}]"]
    for name, value in sorted(found.entry.fields.items()):
        for one in value if isinstance(value, list) else [value]:
            text = one.decode("utf-8", "replace").split("\n")
            lines.append(f"    {printable(name)}=" + "\n        ".join(printable(line) for line in text))
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _bytes(value: bytes | list[bytes]) -> bytes:
    return b"\n".join(value) if isinstance(value, list) else value
