"""The last lines of a unit, for whoever has to say why it failed. Quick to import: helmctl uses it."""

import os
from typing import NamedTuple

from systemd import _reader


class PrintedLine(NamedTuple):
    """A line that a unit printed, and when (seconds since the epoch)."""

    seconds: float
    message: str


def last_lines(unit: str, count: int, since: float = 0.0) -> list[PrintedLine]:
    """The last COUNT lines that UNIT printed since SINCE (seconds since the epoch), oldest first.

    What can't be read (no journal, no right) is an empty list.
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
        reader.seek_tail()
        found: list[PrintedLine] = []
        while len(found) < count and reader._previous():
            seconds = reader._get_realtime() / 1e6
            if seconds < since:
                break
            found.append(PrintedLine(seconds, _message(reader._get_all())))
    return found[::-1]


def newest_line(uid: int) -> float | None:
    """When (seconds since the epoch) the newest readable entry of an account was written; None without any.

    Raises OSError when the journal can't be read.
    """
    with _reader._Reader(_reader.LOCAL_ONLY) as reader:
        reader.add_match(f"_UID={uid}")
        reader.seek_tail()
        return float(reader._get_realtime()) / 1e6 if reader._previous() else None


def _message(fields: dict[str, bytes | list[bytes]]) -> str:
    value = fields.get("MESSAGE", b"")
    return (value[0] if isinstance(value, list) else value).decode("utf-8", "replace")
