"""Journal files that libsystemd silently skips: shorter than their headers say, or without header."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helmd.journal.files import HEADER_SIZE, PLACES, journal_files, parse_header


class Truncated(NamedTuple):
    """A file without its end or header. Times are microseconds since 1970, 0 if unknown."""

    file_id: str
    path: Path
    first: int
    last: int


def truncated_files(places: tuple[Path, ...] = PLACES) -> Iterator[Truncated]:
    """Yield truncated files below PLACES that this process may read."""
    for path in journal_files(places):
        try:
            with path.open("rb") as file:
                start = file.read(HEADER_SIZE)
            facts = path.stat()
        except OSError:
            continue
        if len(start) < HEADER_SIZE:
            continue  # journald is just making it
        header = parse_header(start)
        if header is None:
            # Its modification time bounds the lines it can have.
            yield Truncated(f"inode-{facts.st_dev:x}-{facts.st_ino:x}", path, 0, facts.st_mtime_ns // 1000)
        # While journald grows a file it is longer than its header says, never shorter.
        elif facts.st_size < header.header_size + header.arena_size:
            # What the header says may be damaged; nothing was written after the last change.
            last = min(header.tail_realtime, facts.st_mtime_ns // 1000)
            yield Truncated(header.file_id, path, min(header.head_realtime, last), last)
