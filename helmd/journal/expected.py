"""How many entries of an account the journal's files have, by their own count, for comparison with what was read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helmd.journal.files import ONLINE, DamagedError, JournalFile, journal_files
from helmd.model.logs.parsing.position import Position, parse_cursor

FOREVER = 2**63
"""A monotonic time that no entry has."""

_Inode = tuple[int, int]


class Expected(NamedTuple):
    """What a file has within a stretch of monotonic time: ``entries`` of the account, None when that is unknown."""

    file: JournalFile
    entries: int | None


class FileSet:
    """The files below PLACES, of one machine if MACHINE_ID is given, that may have entries of the boot being read.

    Files stay open, so that those which journald deletes meanwhile can be counted.
    """

    def __init__(self, places: tuple[Path, ...], machine_id: str | None) -> None:
        self._places = places
        self._machine_id = machine_id
        self._boot_id = ""
        self._after = 0
        self._changed: dict[Path, int] = {}
        self._files: dict[_Inode, JournalFile] = {}
        self._done: set[_Inode] = set()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._done.clear()
        self._changed.clear()

    def enter(self, boot_id: str, after: int) -> None:
        """Goes on with what a boot has behind a monotonic time."""
        if boot_id != self._boot_id:
            self.close()
        self._boot_id, self._after = boot_id, after
        self.look()

    def look(self, after: int | None = None) -> None:
        """Reads the headers of files that are written, and looks for new files. Those that end by AFTER are let go."""
        if after is not None:
            self._after = after
        for inode, file in list(self._files.items()):
            try:
                if file.header.state == ONLINE:
                    file.refresh()
            except (OSError, DamagedError):
                self._let_go(inode)
                continue
            if file.header.state != ONLINE and self._is_over(file):
                self._let_go(inode)
        changed = dict(self._directories())
        if changed != self._changed:
            self._changed = changed
            self._list()

    def limit(self, after: int) -> int:
        """The next monotonic time above AFTER at which one of the files ends; FOREVER when there is none."""
        ends = (file.header.tail_monotonic for file in self._files.values() if file.header.boot_id == self._boot_id)
        return min((end for end in ends if end > after), default=FOREVER)

    def end(self) -> int:
        """The monotonic time up to which the files of this boot go."""
        ends = (file.header.tail_monotonic for file in self._files.values() if file.header.boot_id == self._boot_id)
        return max(ends, default=0)

    def goes_on(self, limit: int) -> bool:
        """Whether a file that ended at LIMIT when it was last looked at is being written and has grown since."""
        for file in self._files.values():
            before = file.header
            if before.state == ONLINE and before.tail_monotonic == limit and before.boot_id == self._boot_id:
                try:
                    return file.refresh().state == ONLINE and file.header.tail_monotonic > limit
                except (OSError, DamagedError):
                    return False
        return False

    def expected(self, uid: int, after: int, up_to: int) -> list[Expected]:
        """What each file has of an account above AFTER, up to and with UP_TO; files that have nothing are left out."""
        found = []
        for file in self._files.values():
            try:
                chain = file.entries_with(b"_UID", b"%d" % uid)
                count = chain.between(self._boot_id, after, up_to) if chain.whole else None
            except (OSError, DamagedError):
                count = None
            if count != 0:
                found.append(Expected(file, count))
        return sorted(found, key=lambda each: each.file.header.head_seqnum)

    def has(self, position: Position) -> bool:
        """Whether a file that is still in its directory has the entry of a position's cursor."""
        cursor = parse_cursor(position.cursor)
        if cursor is None:
            return False
        for file in self._files.values():
            header = file.header
            if header.seqnum_id != cursor.seqnum_id or not header.head_seqnum <= cursor.seqnum <= header.tail_seqnum:
                continue
            try:
                entry = file.entries().numbered(cursor.seqnum) if file.linked() else None
            except DamagedError:
                continue
            if entry is not None and (entry.boot_id, entry.monotonic) == (position.boot_id, position.monotonic):
                return True
        return False

    def _is_over(self, file: JournalFile) -> bool:
        header = file.header
        return header.boot_id == self._boot_id and header.tail_monotonic <= self._after

    def _let_go(self, inode: _Inode) -> None:
        self._files.pop(inode).close()
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
            if not self._concerned(file) or (file.header.state != ONLINE and self._is_over(file)):
                self._let_go(inode)
        self._done &= present

    def _concerned(self, file: JournalFile) -> bool:
        """Whether a file may have entries of this boot: it begins or ends in it, or goes on over several."""
        header = file.header
        if self._machine_id is not None and header.machine_id != self._machine_id:
            return False
        if header.boot_id == self._boot_id or header.state == ONLINE:
            return True
        try:
            head = file.entries().entry(0)
        except DamagedError:
            head = None
        return head is None or head.boot_id != header.boot_id

    def _directories(self) -> Iterator[tuple[Path, int]]:
        """Where there are files, and when one came or went last."""
        for place in self._places:
            try:
                with os.scandir(place) as entries:
                    directories = [place, *(Path(entry.path) for entry in entries if entry.is_dir())]
                for directory in directories:
                    yield directory, directory.stat().st_mtime_ns
            except OSError:
                continue
