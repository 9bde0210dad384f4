"""The last lines of a unit, to explain failures. Quick to import, for helmctl."""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from systemd import _reader

_LOOKED_AT = 10_000
"""Maximum number of entries that are searched for a unit's last lines."""
_EARLIER = 100
"""Consecutive entries of earlier runs after which no line of this one is expected: damage may give one a wrong time."""


class PrintedLine(NamedTuple):
    """A line that a unit printed, and when (seconds since the epoch)."""

    seconds: float
    message: str


def last_lines(
    unit: str,
    count: int,
    since: float = 0.0,
    *,
    invocation: str = "",
    uid: int | None = None,
    directory: Path | None = None,
) -> list[PrintedLine]:
    """Return the last COUNT lines that UNIT printed since SINCE (seconds since the epoch), oldest first.

    With the id of an INVOCATION, lines known to be of another one are skipped. UID is the owner of the unit, by default
    this process' account; DIRECTORY replaces the machine's directory of journal files.

    If the journal can't be read, the list is empty.
    """
    account = f"_UID={os.getuid() if uid is None else uid}".encode()
    try:
        with _reader._Reader() if directory is None else _reader._Reader(0, str(directory)) as reader:
            reader.add_match(account)
            reader.add_match(f"_SYSTEMD_USER_UNIT={unit}".encode())
            if unit.startswith("hivematrix-"):
                reader.add_disjunction()
                reader.add_match(account)
                reader.add_match(f"SYSLOG_IDENTIFIER={unit.removesuffix('.service')}".encode())
            reader.seek_tail()
            return _backward(reader, unit.encode(), count, since, invocation.encode())[::-1]
    except OSError:
        return []


def _backward(reader: Any, unit: bytes, count: int, since: float, invocation: bytes) -> list[PrintedLine]:
    """Return the lines, newest first."""
    found: list[PrintedLine] = []
    earlier: list[PrintedLine] = []
    newest, passed = time.time(), 0
    for _ in range(_LOOKED_AT):
        if len(found) >= count or passed >= _EARLIER or not reader._previous():
            break
        try:
            seconds, fields = reader._get_realtime() / 1e6, reader._get_all()
        except (OSError, ValueError):  # damaged; ValueError: in the name of a field
            continue
        # Any unit of the account may print under the identifier of another.
        known = "_SYSTEMD_USER_UNIT" in fields
        if known and fields["_SYSTEMD_USER_UNIT"] != unit:
            continue
        if known and invocation and fields.get("_SYSTEMD_INVOCATION_ID", invocation) != invocation:
            passed += 1
            continue
        if seconds < since:
            passed += 1
            earlier.append(PrintedLine(newest, _message(fields)))
            continue
        # An entry before a line of this run that is older than the line after it has a damaged time.
        found += earlier
        earlier.clear()
        newest, passed = min(seconds, newest), 0
        found.append(PrintedLine(newest, _message(fields)))
    return found[:count]


def newest_line(uid: int) -> float | None:
    """Return when (seconds since the epoch) the newest readable entry of an account was written, or None without any.

    Raises OSError when the journal can't be read.
    """
    with _reader._Reader(_reader.LOCAL_ONLY) as reader:
        reader.add_match(f"_UID={uid}")
        reader.seek_tail()
        return float(reader._get_realtime()) / 1e6 if reader._previous() else None


def unreadable(uid: int) -> bool:
    """Return whether the account has no readable entry, while journal files exist that this process may not read."""
    from helmd.journal.query import hidden_files

    return newest_line(uid) is None and bool(hidden_files())


def _message(fields: dict[str, bytes | list[bytes]]) -> str:
    value = fields.get("MESSAGE", b"")
    return (value[0] if isinstance(value, list) else value).decode("utf-8", "replace")
