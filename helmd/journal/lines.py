"""The last lines of a unit, for whoever has to say why it failed. Quick to import: helmctl uses it."""

import os
from typing import NamedTuple

from systemd import _reader

_LOOKED_AT = 10_000
"""Entries among which a unit's last lines are looked for."""


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
        for _ in range(_LOOKED_AT):
            if len(found) >= count or not reader._previous():
                break
            seconds = reader._get_realtime() / 1e6
            if seconds < since:
                break
            fields = reader._get_all()
            # Any unit of the account may print under the identifier of another.
            if fields.get("_SYSTEMD_USER_UNIT", unit.encode()) == unit.encode():
                found.append(PrintedLine(seconds, _message(fields)))
    return found[::-1]


def newest_line(uid: int) -> float | None:
    """When (seconds since the epoch) the newest readable entry of an account was written; None without any.

    Raises OSError when the journal can't be read.
    """
    with _reader._Reader(_reader.LOCAL_ONLY) as reader:
        reader.add_match(f"_UID={uid}")
        reader.seek_tail()
        return float(reader._get_realtime()) / 1e6 if reader._previous() else None


def unreadable(uid: int) -> bool:
    """Whether the account has no readable entry, while journal files exist that this process may not read."""
    from helmd.journal.query import hidden_files

    return newest_line(uid) is None and bool(hidden_files())


def _message(fields: dict[str, bytes | list[bytes]]) -> str:
    value = fields.get("MESSAGE", b"")
    return (value[0] if isinstance(value, list) else value).decode("utf-8", "replace")
