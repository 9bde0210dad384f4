"""Entries that journald itself wrote twice.

If a file reaches its maximum size within an entry, journald 252 rotates it and writes the entry again to the next file,
though the full file has it completely: the last entry of the one and the first of the other are the same line,
with the same time and the numbers N and N + 1. Seen at every rotation by size. (journal_file_append_entry() fails after
the entry was written, and write_to_journal() retries.)

Two lines of one text are printed in one microsecond often enough, so only the first entry of a file is considered.
"""

from pathlib import Path

from helmd.journal.files import HEADER_SIZE, PLACES, journal_directories, parse_header
from helmd.model.logs.parsing.position import parse_cursor

Number = tuple[str, int]


class Doubles:
    """Finds duplicates by the first sequence numbers of the files below PLACES, which are only read when needed."""

    def __init__(self, places: tuple[Path, ...] = PLACES) -> None:
        self._places = places
        self._seen: dict[Path, int] = {}
        self._first: set[Number] = set()
        self._empty: list[Path] = []

    def repeats(self, before: str, cursor: str) -> bool:
        """Return whether the entry at CURSOR is a duplicate of that at BEFORE.

        Both have the same monotonic time and boot.
        """
        if before.rpartition(";x=")[2] != cursor.rpartition(";x=")[2]:
            return False
        last, here = parse_cursor(before), parse_cursor(cursor)
        if last is None or here is None or (last.seqnum_id, last.seqnum + 1) != (here.seqnum_id, here.seqnum):
            return False
        return self._begins_a_file((here.seqnum_id, here.seqnum))

    def _begins_a_file(self, number: Number) -> bool:
        present = dict(journal_directories(self._places))
        if present != self._seen:
            self._seen = present
            self._first.clear()
            self._empty = [path for directory in present for path in directory.glob("*.journal")]
        # A file without entries may have got its first one since.
        still_empty = []
        for path in self._empty:
            first = _first_number(path)
            if first is not None and first[1]:
                self._first.add(first)
            else:
                still_empty.append(path)
        self._empty = still_empty
        return number in self._first


def _first_number(path: Path) -> Number | None:
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(HEADER_SIZE))
    except OSError:
        return None
    return None if header is None else (header.seqnum_id, header.head_seqnum)
