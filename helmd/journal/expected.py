"""The numbers of an account's entries in journal files, by their own indexes, for comparison with those read."""

from pathlib import Path
from typing import NamedTuple

from systemd import id128

from helmd.journal.files import PLACES, DamagedError, JournalFile, journal_directories, journal_files
from helmd.model.logs.parsing.entry_times import Times, plausible_times
from helmd.model.logs.parsing.position import Cursor, Position, parse_cursor

FOREVER = 2**63
"""A monotonic time that no entry has."""

_Inode = tuple[int, int]


class Expected(NamedTuple):
    """The number of the account's ``entries`` in a file within a range of monotonic time, None if unknown."""

    file: JournalFile
    entries: int | None


def files_of(directory: Path | None) -> "FileSet":
    """Return the files of this machine, or of one DIRECTORY."""
    # As with SD_JOURNAL_LOCAL_ONLY, files of other machines are skipped.
    return FileSet(PLACES, id128.get_machine().hex) if directory is None else FileSet((directory,), None)


class FileSet:
    """The files below PLACES, of one machine if MACHINE_ID is given, that may have entries of the boot being read.

    Files stay open, so that they can be counted after journald has deleted them.
    """

    def __init__(self, places: tuple[Path, ...], machine_id: str | None) -> None:
        self._places = places
        self._machine_id = machine_id
        self._boot_id = ""
        self._after = 0
        self._changed: dict[Path, int] = {}
        self._files: dict[_Inode, JournalFile] = {}
        self._done: set[_Inode] = set()
        self._over: list[tuple[str, int, int]] = []
        """seqnum_id, first and last sequence number of the files that end before the position."""

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._done.clear()
        self._over.clear()
        self._changed.clear()

    def enter(self, boot_id: str, after: int) -> None:
        """Move to a monotonic time in a boot, which may be earlier than the present one after a failed commit."""
        if boot_id != self._boot_id:
            self.close()
        elif after < self._after:
            # Files that ended before may have entries again. Open files stay open, since they may have been deleted.
            self._done.clear()
            self._over.clear()
            self._changed.clear()
        self._boot_id, self._after = boot_id, after
        self.look()

    def look(self, after: int | None = None) -> None:
        """Read the headers of files being written, and find new files. Those that end by AFTER are closed."""
        if after is not None:
            self._after = after
        for inode, file in list(self._files.items()):
            try:
                if not file.is_final():
                    file.refresh()
            except (OSError, DamagedError):
                self._close_file(inode)
                continue
            if file.is_final() and self._is_over(file):
                self._close_file(inode)
        changed = dict(journal_directories(self._places))
        if changed != self._changed:
            self._changed = changed
            self._list()

    def limit(self, after: int) -> int:
        """Return the next monotonic time above AFTER at which one of the files ends; FOREVER when there is none."""
        ends = (file.header.tail_monotonic for file in self._of_boot())
        return min((end for end in ends if end > after), default=FOREVER)

    def end(self) -> int:
        """Return the monotonic time up to which the files of this boot go."""
        return max((file.header.tail_monotonic for file in self._of_boot()), default=0)

    def has_grown(self, limit: int) -> bool:
        """Return whether a file that ended at LIMIT is being written and has grown since it was last read."""
        for file in self._files.values():
            before = file.header
            if before.tail_monotonic == limit and before.boot_id == self._boot_id and not file.is_final():
                try:
                    return file.refresh().tail_monotonic > limit
                except (OSError, DamagedError):
                    return False
        return False

    def expected(self, uid: int, after: int, up_to: int, last: str = "") -> list[Expected]:
        """Return the numbers of an account's entries above AFTER, up to and including UP_TO, by file, without zeros.

        A file that begins after the entry at the cursor LAST, by sequence number, has none.
        """
        found = []
        end = parse_cursor(last)
        for file in self._files.values():
            header = file.header
            if end is not None and header.seqnum_id == end.seqnum_id and header.head_seqnum > end.seqnum:
                continue
            try:
                chain = file.entries() if file.belongs_to(uid) else file.entries_with(b"_UID", b"%d" % uid)
                count = chain.between(self._boot_id, after, up_to) if chain.whole else None
            except (OSError, DamagedError):
                count = None
            if count != 0:
                found.append(Expected(file, count))
        return sorted(found, key=lambda each: each.file.header.head_seqnum)

    def has(self, position: Position) -> bool:
        """Return whether a file that was not deleted has the entry of a position's cursor."""
        cursor = parse_cursor(position.cursor)
        if cursor is None:
            return False
        for file in self._files.values():
            header = file.header
            if header.seqnum_id != cursor.seqnum_id or not header.head_seqnum <= cursor.seqnum <= header.tail_seqnum:
                continue
            chain = file.entries()
            number = chain.number_of(cursor.seqnum) if file.linked() else None
            entry = chain.entry(number) if number is not None else None
            if entry is not None and entry.cursor(header.seqnum_id) == position.cursor:
                return True
        return False

    def times(self, cursor: str, given: Times) -> Times | None:
        """Return the times of the entry at CURSOR, which says GIVEN, as far as they are plausible in its file.

        None for an entry of a file that was read to its end. An entry that is not found has damage in more than its
        times: then they are those at the end of the files, if they are later.
        """
        found = parse_cursor(cursor)
        if found is not None and any(
            seqnum_id == found.seqnum_id and first <= found.seqnum <= last for seqnum_id, first, last in self._over
        ):
            return None
        if found is not None and self._is_known(found):
            for file in self._files.values():
                if file.header.seqnum_id != found.seqnum_id:
                    continue
                chain = file.entries()
                number = chain.number_of(found.seqnum)
                if number is not None:
                    return chain.times(number, self._boot_id, given)
        self.look()
        ends = [Times(file.header.tail_realtime, file.header.tail_monotonic) for file in self._of_boot()]
        last = max(ends, key=lambda each: each.monotonic, default=given)
        return plausible_times(given, (), (last,)) if given.monotonic > last.monotonic else given

    def has_number(self, cursor: str) -> bool:
        """Return whether a file may have an entry with the sequence number of CURSOR: not when that is above all of
        them.
        """
        found = parse_cursor(cursor)
        return found is None or self._is_known(found)

    def _is_known(self, cursor: Cursor) -> bool:
        for again in (False, True):
            if again:
                self.look()
            headers = (file.header for file in self._files.values())
            tails = [header.tail_seqnum for header in headers if header.seqnum_id == cursor.seqnum_id]
            if not tails or cursor.seqnum <= max(tails):
                return True
        return False

    def _of_boot(self) -> list[JournalFile]:
        """Return the files that end in this boot."""
        return [file for file in self._files.values() if file.header.boot_id == self._boot_id]

    def _is_over(self, file: JournalFile) -> bool:
        header = file.header
        return header.boot_id == self._boot_id and header.tail_monotonic <= self._after

    def _close_file(self, inode: _Inode) -> None:
        file = self._files.pop(inode)
        if self._is_over(file):
            self._over.append((file.header.seqnum_id, file.header.head_seqnum, file.header.tail_seqnum))
        file.close()
        self._done.add(inode)

    def _list(self) -> None:
        present = set()
        for path in journal_files(self._places):
            try:
                facts = path.stat()
                inode = (facts.st_dev, facts.st_ino)
                present.add(inode)
                if inode in self._files or inode in self._done:
                    continue
                file = JournalFile(path)
            except (OSError, DamagedError):
                continue
            self._files[inode] = file
            if not self._concerned(file) or (file.is_final() and self._is_over(file)):
                self._close_file(inode)
        self._done &= present

    def _concerned(self, file: JournalFile) -> bool:
        """Return whether a file may have entries of this boot: it begins or ends in it, or spans several."""
        header = file.header
        if self._machine_id is not None and self._machine_id not in (header.machine_id, file.path.parent.name):
            return False
        if header.boot_id == self._boot_id or not file.is_final():
            return True
        head = file.entries().entry(0)
        return head is None or head.boot_id != header.boot_id
