"""The on-disk format of journal files: headers, and entry arrays.

libsystemd stops iterating in a damaged file without an error: each match has a chain of entry arrays, and entries
behind a broken link are not found. This module gets the expected number of entries.

Files are read by pread(2), not mapped, since truncation of a mapped file ends the process by SIGBUS.

JOURNAL_FILE_FORMAT (systemd.io) and journal-def.h, as of systemd 252 to 257, compact mode included.
"""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from helmd.model.logs.parsing.entry_times import NEIGHBOURS, Times, plausible_times

PLACES = (Path("/var/log/journal"), Path("/run/log/journal"))
"""Directories of journal files (systemd-journald.service(8))."""
_SIGNATURE = b"LPKSHHRH"
PATTERNS = ("*.journal", "*.journal~", "*/*.journal", "*/*.journal~")
"""Files below a place that libsystemd reads; journald renames those that it finds damaged to ``.journal~``."""

_HEADER = struct.Struct("<8sII B7x 16s16s16s16s QQ16xQQ16xQQQQQQQ8xQ")
HEADER_SIZE = _HEADER.size
_COMPACT = 1 << 4
"""HEADER_INCOMPATIBLE_COMPACT: offsets within the file have 32 bits."""
_COMPRESSED = 0b111
"""Flags of an object whose payload is compressed."""
ARCHIVED = 2
"""STATE_ARCHIVED: the file is not written any more. (An idle one is offline.)"""

_DATA, _FIELD, _ENTRY, _ENTRY_ARRAY = 1, 2, 3, 6
_DATA_OBJECT = struct.Struct("<BB6xQ 16xQQQQ")
"""Its next_field_offset, entry_offset, entry_array_offset and n_entries follow the object's type, flags and size."""
_FIELD_OBJECT = struct.Struct("<BB6xQ 8xQQ")
_ENTRY_OBJECT = struct.Struct("<BB6xQ QQQ16sQ")
_ARRAY_OBJECT = struct.Struct("<BB6xQ Q")
_DAMAGED_BITS = 8
_MOST_NEW_FIELDS = 1024
"""Maximum number of fields that journald may have added since the header was read."""
_MOST_LINKS = 100_000
"""Number of links after which a chain counts as cyclic."""
_MOST_BYTES = 1 << 20
"""Maximum size of what is read at once: the table of fields, which has 16 KiB, or a field's name or value."""


class DamagedError(Exception):
    """The file's structure violates the format."""


def is_same_boot(boot_id: str, other: str) -> bool:
    """Return whether both are the id of one boot, allowing for a damaged byte: random ids differ in many more bits."""
    return boot_id == other or (int(boot_id, 16) ^ int(other, 16)).bit_count() <= _DAMAGED_BITS


class Header(NamedTuple):
    """The facts of a file's header. Times are microseconds: ``…realtime`` since 1970, ``…monotonic`` since the boot."""

    compact: bool
    state: int
    file_id: str
    machine_id: str
    boot_id: str
    """The boot of the last entry."""
    seqnum_id: str
    header_size: int
    arena_size: int
    field_table: int
    field_table_size: int
    n_entries: int
    tail_seqnum: int
    head_seqnum: int
    entry_array: int
    head_realtime: int
    tail_realtime: int
    tail_monotonic: int
    n_fields: int


class EntryHead(NamedTuple):
    """The header of an entry object."""

    seqnum: int
    realtime: int
    monotonic: int
    boot_id: str
    xor_hash: int

    def cursor(self, seqnum_id: str) -> str:
        """Return its cursor in a file with this SEQNUM_ID, as sd_journal_get_cursor(3) does."""
        times = f"m={self.monotonic:x};t={self.realtime:x}"
        return f"s={seqnum_id};i={self.seqnum:x};b={self.boot_id};{times};x={self.xor_hash:x}"


def parse_header(raw: bytes) -> Header | None:
    """Parse the header at the beginning of RAW; return None if it is not that of a journal file."""
    if len(raw) < _HEADER.size:
        return None
    signature, _, incompatible, state, file_id, machine_id, boot_id, seqnum_id, *numbers = _HEADER.unpack_from(raw)
    if signature != _SIGNATURE:
        return None
    ids = (file_id.hex(), machine_id.hex(), boot_id.hex(), seqnum_id.hex())
    return Header(bool(incompatible & _COMPACT), state, *ids, *numbers)


class Chain:
    """The entries that an array chain refers to, in the order in which they were written: COUNT, by their number.

    Searches take the majority of an entry and its neighbours, so that one damaged entry does not mislead them.
    """

    def __init__(self, file: "JournalFile", count: int, first: int, array: int) -> None:
        self._file = file
        # A damaged number may be anything.
        self.count = count = min(count, file.header.arena_size // _ENTRY_OBJECT.size + 1)
        self._first = first
        self._width = 4 if file.header.compact else 8
        self._arrays: list[tuple[int, int, int]] = []
        """Of each array: number of the first entry, number after the last one, and offset of the items."""
        covered = 1 if first else 0
        for _ in range(_MOST_LINKS):
            if covered >= count or not array:
                break
            try:
                kind, _, size, following = _ARRAY_OBJECT.unpack(file.bytes_at(array, _ARRAY_OBJECT.size))
            except DamagedError:
                break
            items = (size - _ARRAY_OBJECT.size) // self._width
            if kind != _ENTRY_ARRAY or items <= 0:
                break
            end = min(covered + items, count)
            self._arrays.append((covered, end, array + _ARRAY_OBJECT.size))
            covered, array = end, following
        self.covered = covered
        """The number of entries, from the first one, that intact arrays refer to."""

    @property
    def whole(self) -> bool:
        return self.covered >= self.count

    def offset(self, number: int) -> int:
        """Return the offset of an entry, or 0 if the reference to it is damaged."""
        if number == 0 and self._first:
            return self._first
        for begin, end, items in self._arrays:
            if begin <= number < end:
                try:
                    raw = self._file.bytes_at(items + (number - begin) * self._width, self._width)
                except DamagedError:
                    return 0
                return int.from_bytes(raw, "little")
        return 0

    def entry(self, number: int) -> EntryHead | None:
        """Return the header of an entry, or None if it, or the reference to it, is damaged."""
        offset = self.offset(number)
        return self._file.entry_at(offset) if offset else None

    def number_of(self, seqnum: int) -> int | None:
        """Return the number of the entry with a sequence number, or None if there is none, or it is damaged."""
        near = self._search(0, self.count, lambda entry: entry.seqnum >= seqnum)
        for number in (near, near - 1, near + 1):
            entry = self.entry(number)
            if entry is not None and entry.seqnum == seqnum:
                return number
        return None

    def times(self, number: int, boot_id: str, given: Times) -> Times:
        """Return the times of an entry that says GIVEN, as far as the entries around it in its boot make them
        plausible.

        The header repeats the times of the file's last entry.
        """
        header = self._file.header
        before: list[Times] = []
        after: list[Times] = []
        for each in range(max(0, number - NEIGHBOURS), min(number + NEIGHBOURS + 1, self.count)):
            entry = self.entry(each) if each != number else None
            if entry is not None and is_same_boot(entry.boot_id, boot_id):
                (before if each < number else after).append(Times(entry.realtime, entry.monotonic))
        if number + NEIGHBOURS >= self.count and is_same_boot(header.boot_id, boot_id):
            after.append(Times(header.tail_realtime, header.tail_monotonic))
        return plausible_times(given, before, after)

    def bounds(self, boot_id: str, after: int, up_to: int) -> tuple[int, int]:
        """Return the numbers of a boot's first entry with a monotonic time above AFTER, and of the first one above
        UP_TO.

        A boot's entries are consecutive. Damaged entries count as the next intact one.
        """
        first, end = self._boot(boot_id)
        header = self._file.header
        # By the header, even when the last entries are damaged.
        tail = header.tail_monotonic if is_same_boot(header.boot_id, boot_id) else None
        if tail is not None and tail <= after:
            return end, end
        begin = self._search(first, end, lambda entry: entry.monotonic > after)
        if tail is not None and tail <= up_to:
            return begin, end
        stop = self._search(begin, end, lambda entry: entry.monotonic > up_to)
        return begin, stop

    def between(self, boot_id: str, after: int, up_to: int) -> int:
        """Return how many entries a boot has with monotonic times above AFTER, up to and with UP_TO."""
        begin, stop = self.bounds(boot_id, after, up_to)
        return stop - begin

    def _boot(self, boot_id: str) -> tuple[int, int]:
        """Return the numbers of a boot's first entry, and of the one after its last."""
        head, tail = self._next(0, self.count), self._previous(self.count, 0)
        if head is None or tail is None:
            return (0, self.count)
        if is_same_boot(head[1].boot_id, boot_id):
            first = 0
        elif is_same_boot(tail[1].boot_id, boot_id):
            first = self._search(0, self.count, lambda entry: is_same_boot(entry.boot_id, boot_id))
        else:
            heads = ((n, entry) for n in range(self.count) if (entry := self.entry(n)) is not None)
            first = next((n for n, entry in heads if is_same_boot(entry.boot_id, boot_id)), self.count)
        if any(is_same_boot(each, boot_id) for each in (tail[1].boot_id, self._file.header.boot_id)):
            return first, self.count
        return first, self._search(first, self.count, lambda entry: not is_same_boot(entry.boot_id, boot_id))

    def _next(self, number: int, end: int) -> tuple[int, EntryHead] | None:
        """Return the first entry from NUMBER on, before END, that is not damaged."""
        return next(((n, entry) for n in range(number, end) if (entry := self.entry(n)) is not None), None)

    def _previous(self, end: int, begin: int) -> tuple[int, EntryHead] | None:
        """Return the last entry before END, not before BEGIN, that is not damaged."""
        found = ((n, entry) for n in range(end - 1, begin - 1, -1) if (entry := self.entry(n)) is not None)
        return next(found, None)

    def _search(self, begin: int, end: int, met: Callable[[EntryHead], bool]) -> int:
        """Return the first number from BEGIN to END from which entries have MET a condition (binary search)."""
        first, last = begin, end
        while begin < end:
            middle = (begin + end) // 2
            found = self._next(middle, end)
            if found is None:
                end = middle
                continue
            number, entry = found
            before, after = self._previous(number, first), self._next(number + 1, last)
            votes = (before is not None and met(before[1]), met(entry), after is None or met(after[1]))
            if sum(votes) > 1:
                end = middle
            else:
                begin = number + 1
        return begin


class JournalFile:
    """An open journal file, which stays readable if renamed or deleted. Raises OSError, and DamagedError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._boot_of_entries = ""
        """The boot on which the header and the last entries agreed; valid while the header is unchanged."""
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.refresh()
            if self.is_final():
                self._check_end()
        except BaseException:
            os.close(self.descriptor)
            raise
        self._data: dict[bytes, int] = {}

    def close(self) -> None:
        os.close(self.descriptor)

    def refresh(self) -> Header:
        """Read the header again."""
        self.header = self._read_header()
        if self.header.boot_id != self._boot_of_entries:
            self._take_boot_of_entries()
        return self.header

    def is_final(self) -> bool:
        """Return whether the file is not written any more: archived, found damaged, or deleted."""
        is_renamed = "@" in self.path.name or self.path.name.endswith("~")
        return is_renamed or self.header.state == ARCHIVED or not self.linked()

    def belongs_to(self, uid: int) -> bool:
        """Return whether all entries are of one account: journald splits files by uid for login users."""
        return self.path.name.startswith((f"user-{uid}.", f"user-{uid}@"))

    def linked(self) -> bool:
        """Return whether the file has not been deleted."""
        return os.fstat(self.descriptor).st_nlink > 0

    def entries(self) -> Chain:
        """Return all entries."""
        return Chain(self, self.header.n_entries, 0, self.header.entry_array)

    def entries_with(self, field: bytes, value: bytes) -> Chain:
        """Return entries that have ``FIELD=VALUE``."""
        payload = field + b"=" + value
        if payload not in self._data:
            found = self._find(field, payload)
            if not found:
                return Chain(self, 0, 0, 0)
            self._data[payload] = found
        kind, _, _, _, first, array, count = _DATA_OBJECT.unpack(self.bytes_at(self._data[payload], _DATA_OBJECT.size))
        if kind != _DATA:
            raise DamagedError(f"there is no data object for {payload!r}")
        return Chain(self, count, first, array)

    def entry_at(self, offset: int) -> EntryHead | None:
        """Return the header of the entry object at OFFSET, or None if there is none."""
        try:
            kind, _, size, seqnum, realtime, monotonic, boot_id, xor_hash = _ENTRY_OBJECT.unpack(
                self.bytes_at(offset, _ENTRY_OBJECT.size)
            )
        except DamagedError:
            return None
        # The header of an object whose end was overwritten by zeros is intact.
        if kind != _ENTRY or size <= _ENTRY_OBJECT.size or not seqnum or not any(boot_id):
            return None
        return EntryHead(seqnum, realtime, monotonic, boot_id.hex(), xor_hash)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return SIZE bytes from OFFSET on. Raises DamagedError when the file doesn't have them."""
        if offset % 4 or not 0 < offset < self.header.header_size + self.header.arena_size:
            raise DamagedError("an object is outside of the file")
        # A damaged size may be negative, or more than there is memory.
        if not 0 <= size <= _MOST_BYTES:
            raise DamagedError("the size of an object is damaged")
        raw = os.pread(self.descriptor, size, offset)
        if len(raw) < size:
            raise DamagedError("the file is shorter than its header says")
        return raw

    def _read_header(self) -> Header:
        header = parse_header(os.pread(self.descriptor, _HEADER.size, 0))
        if header is None:
            raise DamagedError("this is not a journal file")
        return header

    def _take_boot_of_entries(self) -> None:
        """Use the boot of the last two entries if they agree on another one than the header.

        journald 252 writes the running boot into the header when it opens a file to write, before the first entry of
        that boot (journal_file_refresh_header()); the header's times are still those of the last entry then.
        """
        chain = self.entries()
        ends = {
            entry.boot_id if (entry := chain.entry(number)) is not None else None
            for number in range(max(0, chain.count - 2), chain.count)
        }
        boot_id = ends.pop() if len(ends) == 1 else None
        if boot_id == self.header.boot_id:
            self._boot_of_entries = boot_id
        elif boot_id is not None and not is_same_boot(boot_id, self.header.boot_id):
            self.header = self.header._replace(boot_id=boot_id)

    def _check_end(self) -> None:
        """Use the last entry's own times if those in the header are not plausible."""
        chain, header = self.entries(), self.header
        number = chain.count - 1
        last = chain.entry(number) if chain.count == header.n_entries else None
        if last is None or not is_same_boot(last.boot_id, header.boot_id):
            return
        before = [
            Times(entry.realtime, entry.monotonic)
            for each in range(max(0, number - NEIGHBOURS), number)
            if (entry := chain.entry(each)) is not None and is_same_boot(entry.boot_id, header.boot_id)
        ]
        own, repeated = Times(last.realtime, last.monotonic), Times(header.tail_realtime, header.tail_monotonic)
        is_own_plausible = plausible_times(own, before, (repeated,)) == own
        if own != repeated and (is_own_plausible or plausible_times(repeated, before, ()) != repeated):
            own = plausible_times(own, before, ())
            self.header = header._replace(tail_realtime=own.realtime, tail_monotonic=own.monotonic)

    def _find(self, field: bytes, payload: bytes) -> int:
        """Return the offset of the data object with PAYLOAD, or 0.

        It is found by the table of some dozens of fields, not by the hash of the payload.
        """
        header = self.header
        if not header.field_table:
            return 0
        table = self.bytes_at(header.field_table, header.field_table_size)
        fields = 0
        found = 0
        for head, _ in struct.iter_unpack("<QQ", table):
            offset = head
            while offset:
                kind, _, size, following, values = _FIELD_OBJECT.unpack(self.bytes_at(offset, _FIELD_OBJECT.size))
                fields += 1
                if kind != _FIELD or fields > header.n_fields + _MOST_NEW_FIELDS:
                    raise DamagedError("the table of fields is damaged")
                if self.bytes_at(offset + _FIELD_OBJECT.size, size - _FIELD_OBJECT.size) == field:
                    found = values
                offset = following
        if fields < header.n_fields:
            raise DamagedError("the table of fields is damaged")
        begin = _DATA_OBJECT.size + (8 if header.compact else 0)
        for _ in range(_MOST_LINKS):
            if not found:
                break
            kind, flags, size, following, *_ = _DATA_OBJECT.unpack(self.bytes_at(found, _DATA_OBJECT.size))
            if kind != _DATA:
                raise DamagedError("the list of a field's values is damaged")
            length = size - begin
            if length == len(payload) and not flags & _COMPRESSED and self.bytes_at(found + begin, length) == payload:
                return int(found)
            found = following
        return 0


def journal_files(places: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the journal files below PLACES."""
    for place in places:
        yield from sorted(path for pattern in PATTERNS for path in place.glob(pattern))


def journal_directories(places: tuple[Path, ...]) -> Iterator[tuple[Path, int]]:
    """Yield the directories of the files below PLACES, and when a file came or went last: st_mtime_ns in stat(2)."""
    for place in places:
        try:
            with os.scandir(place) as entries:
                found = [place, *(Path(entry.path) for entry in entries if entry.is_dir())]
            for directory in found:
                yield directory, directory.stat().st_mtime_ns
        except OSError:
            continue


def headers_below(places: tuple[Path, ...]) -> list[Header]:
    """Return the headers of the files below PLACES, without unreadable and invalid ones."""
    found = []
    for path in journal_files(places):
        try:
            with path.open("rb", buffering=0) as file:
                header = parse_header(file.read(_HEADER.size))
        except OSError:
            continue
        if header is not None:
            found.append(header)
    return found
