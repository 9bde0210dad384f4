"""Journal files that are shorter than their headers say: libsystemd passes them by, whole and without a word.

JOURNAL_FILE_FORMAT (systemd.io), "Header".
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PLACES = (Path("/var/log/journal"), Path("/run/log/journal"))
_SIGNATURE = b"LPKSHHRH"
_HEADER = struct.Struct("<8s8x8x16s32x16xQQ80xQQ")
"""Signature, file id at 24, header and arena size at 88 and 96, realtime of the first and last entry at 184 and 192."""


class Truncated(NamedTuple):
    """A file that lacks its end. Times are microseconds since 1970; 0 where it has no entry."""

    file_id: str
    path: Path
    first: int
    last: int


def truncated_files(places: tuple[Path, ...] = PLACES) -> Iterator[Truncated]:
    """Those below PLACES that this process may read."""
    for place in places:
        for path in sorted([*place.glob("*.journal"), *place.glob("*/*.journal")]):
            try:
                with path.open("rb") as file:
                    start = file.read(_HEADER.size)
                size = path.stat().st_size
            except OSError:
                continue
            if len(start) < _HEADER.size:
                continue
            signature, number, header, arena, first, last = _HEADER.unpack(start)
            # While journald grows a file it is longer than its header says, never shorter.
            if signature == _SIGNATURE and size < header + arena:
                yield Truncated(number.hex(), path, first, last)
