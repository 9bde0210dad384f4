"""The last lines of a unit, for whoever has to say why it failed. Quick to import: helmctl uses it."""

import os
from typing import NamedTuple

from systemd import _reader

_FIELDS = ("MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "_SYSTEMD_USER_UNIT", "USER_UNIT", "_COMM", "_PID")


class Line(NamedTuple):
    """A journal line about a unit. ``said_by_systemd`` tells the manager's own remarks from the service's output."""

    seconds: float
    message: str
    priority: int
    said_by_systemd: bool


def printable(text: str) -> str:
    """TEXT as a terminal may be given it: control characters, escapes among them, shown instead of obeyed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)


def last_lines(unit: str, count: int, since: float = 0.0, remarks: bool = False) -> list[Line]:
    """The last COUNT lines that UNIT printed since SINCE (seconds since the epoch), oldest first.

    With REMARKS also what systemd said about it. What can't be read (no journal, no right) is an empty list.
    """
    try:
        reader = _reader._Reader()
    except OSError:
        return []
    with reader:
        reader.add_match(f"_UID={os.getuid()}".encode())
        reader.add_match(f"_SYSTEMD_USER_UNIT={unit}".encode())
        if unit.startswith("hivematrix-"):
            reader.add_disjunction()
            reader.add_match(f"_UID={os.getuid()}".encode())
            reader.add_match(f"SYSLOG_IDENTIFIER={unit.removesuffix('.service')}".encode())
        if remarks:
            reader.add_disjunction()
            reader.add_match(f"_UID={os.getuid()}".encode())
            reader.add_match(f"USER_UNIT={unit}".encode())
        reader.seek_tail()
        found: list[Line] = []
        while len(found) < count and reader._previous():
            seconds = reader._get_realtime() / 1e6
            if seconds < since:
                break
            found.append(_line(reader._get_all(), seconds))
    return found[::-1]


def _line(fields: dict[str, bytes | list[bytes]], seconds: float) -> Line:
    def text(name: str) -> str:
        value = fields.get(name, b"")
        first = value[0] if isinstance(value, list) else value
        return first.decode("utf-8", "replace")

    priority = text("PRIORITY")
    return Line(seconds, text("MESSAGE"), int(priority) if priority.isdigit() else 6, "USER_UNIT" in fields)
