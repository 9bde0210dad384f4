"""Journal files as they are on disk: their headers, and which entries they refer to.

libsystemd ends its walk through a damaged file without an error: a match is followed by a chain of entry arrays of its
own, and what comes behind a broken link of it is not found. What is read here gives the expected number of entries.

Files are read by pread(2), not mapped: a mapped file that gets shorter ends the process (SIGBUS).

JOURNAL_FILE_FORMAT (systemd.io) and journal-def.h, as of systemd 252 to 257, compact mode included.
"""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

PLACES = (Path("/var/log/journal"), Path("/run/log/journal"))
"""Where journald keeps files (systemd-journald.service(8))."""
SIGNATURE = b"LPKSHHRH"
PATTERNS = ("*.journal", "*.journal~", "*/*.journal", "*/*.journal~")
"""Files below a place that libsystemd reads; journald renames those that it finds damaged to ``.journal~``."""

_HEADER = struct.Struct("<8sII B7x 16s16s16s16s QQ16xQQ16xQQQQQQQ8xQ")
HEADER_SIZE = _HEADER.size
_COMPACT = 1 << 4
"""HEADER_INCOMPATIBLE_COMPACT: offsets within the file have 32 bits."""
_COMPRESSED = 0b111
"""Flags of an object whose payload is compressed."""
ONLINE = 1
"""STATE_ONLINE: journald has the file open for writing."""

_DATA, _FIELD, _ENTRY, _ENTRY_ARRAY = 1, 2, 3, 6
_OBJECT = struct.Struct("<BB6xQ")
_DATA_OBJECT = struct.Struct("<BB6xQ 16xQQQQ")
"""Its next_field_offset, entry_offset, entry_array_offset and n_entries follow the object's type, flags and size."""
_FIELD_OBJECT = struct.Struct("<BB6xQ 8xQQ")
_ENTRY_OBJECT = struct.Struct("<BB6xQ QQQ16s")
_ARRAY_OBJECT = struct.Struct("<BB6xQ Q")
_MOST_NEW_FIELDS = 1024
"""Fields that journald may have added since the header was read."""
_MOST_LINKS = 100_000
"""Links of a chain after which it counts as a circle."""


class DamagedError(Exception):
    """The file's structure is not what the format allows."""


class Header(NamedTuple):
    """The facts of a file's header. Times are microseconds: ``…realtime`` since 1970, ``…monotonic`` since the boot."""

    compact: bool
    state: int
    file_id: str
    machine_id: str
    boot_id: str
    """The boot in which the file was last written."""
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
    """What an entry object says before its fields."""

    seqnum: int
    realtime: int
    monotonic: int
    boot_id: str


def parse_header(raw: bytes) -> Header | None:
    """The header that RAW begins with, or None when it is not one of a journal file."""
    if len(raw) < _HEADER.size:
        return None
    signature, _, incompatible, state, file_id, machine_id, boot_id, seqnum_id, *numbers = _HEADER.unpack_from(raw)
    if signature != SIGNATURE:
        return None
    ids = (file_id.hex(), machine_id.hex(), boot_id.hex(), seqnum_id.hex())
    return Header(bool(incompatible & _COMPACT), state, *ids, *numbers)


class Chain:
    """The entries that an array chain refers to, in the order in which they were written: COUNT, by their number."""

    def __init__(self, file: "JournalFile", count: int, first: int, array: int) -> None:
        self._file = file
        self.count = count
        self._first = first
        self._width = 4 if file.header.compact else 8
        self._arrays: list[tuple[int, int, int]] = []
        """Number of the first entry, number behind the last one, and offset of the items, of each array."""
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
        """So many entries, from the first one on, are referred to by arrays that are there."""

    @property
    def whole(self) -> bool:
        return self.covered >= self.count

    def entry(self, number: int) -> EntryHead | None:
        """What an entry says of itself, or None when it, or what refers to it, is damaged."""
        offset = self._first if number == 0 and self._first else 0
        for begin, end, items in () if offset else self._arrays:
            if begin <= number < end:
                raw = self._file.bytes_at(items + (number - begin) * self._width, self._width)
                offset = int.from_bytes(raw, "little")
        return self._file.entry_at(offset) if offset else None

    def numbered(self, seqnum: int) -> EntryHead | None:
        """The entry with a sequence number, or None when there is none, or it is damaged."""
        number = self._search(0, self.count, lambda entry: entry.seqnum >= seqnum)
        entry = self.entry(number) if number < self.count else None
        return entry if entry is not None and entry.seqnum == seqnum else None

    def behind(self, boot_id: str, monotonic: int) -> int:
        """The number of the first entry of a boot that is younger than MONOTONIC; `count` when there is none.

        A boot's entries are written one after the other. Damaged entries count as what follows them.
        """
        first, end = self._boot(boot_id)
        return self._search(first, end, lambda entry: entry.monotonic > monotonic)

    def between(self, boot_id: str, after: int, up_to: int) -> int:
        """How many entries a boot has with monotonic times above AFTER, up to and with UP_TO."""
        first, end = self._boot(boot_id)
        begin = self._search(first, end, lambda entry: entry.monotonic > after)
        stop = self._search(begin, end, lambda entry: entry.monotonic > up_to)
        if stop < end and self._file.header.tail_monotonic <= up_to:
            later = (entry for n in range(stop, end) if (entry := self.entry(n)) is not None)
            if not any(entry.boot_id == boot_id for entry in later):
                # The end of the file is damaged; by its header all of it is older.
                stop = end
        return stop - begin

    def _boot(self, boot_id: str) -> tuple[int, int]:
        """Where a boot's entries begin, and where they end."""
        head, tail = self._next(0, self.count), self._previous(self.count)
        if head is None or tail is None:
            return (0, self.count)
        if head.boot_id == boot_id:
            first = 0
        elif tail.boot_id == boot_id:
            first = self._search(0, self.count, lambda entry: entry.boot_id == boot_id)
        else:
            found = (n for n in range(self.count) if (entry := self.entry(n)) is not None and entry.boot_id == boot_id)
            first = next(found, self.count)
        if boot_id in (tail.boot_id, self._file.header.boot_id):
            return first, self.count
        return first, self._search(first, self.count, lambda entry: entry.boot_id != boot_id)

    def _next(self, number: int, end: int) -> EntryHead | None:
        return next((entry for n in range(number, end) if (entry := self.entry(n)) is not None), None)

    def _previous(self, end: int) -> EntryHead | None:
        return next((entry for n in range(end - 1, -1, -1) if (entry := self.entry(n)) is not None), None)

    def _search(self, begin: int, end: int, met: Callable[[EntryHead], bool]) -> int:
        """The first number from BEGIN to END from which on entries have MET a condition."""
        while begin < end:
            middle = (begin + end) // 2
            entry = self._next(middle, end)
            if entry is None or met(entry):
                end = middle
            else:
                begin = middle + 1
        return begin


class JournalFile:
    """An open journal file. It stays readable when it is renamed or deleted. Raises OSError, and DamagedError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.header = self._read_header()
        except BaseException:
            os.close(self.descriptor)
            raise
        self._data: dict[bytes, int] = {}

    def close(self) -> None:
        os.close(self.descriptor)

    def refresh(self) -> Header:
        """Reads the header again."""
        self.header = self._read_header()
        return self.header

    def linked(self) -> bool:
        """Whether the file has not been deleted."""
        return os.fstat(self.descriptor).st_nlink > 0

    def entries(self) -> Chain:
        """All entries."""
        return Chain(self, self.header.n_entries, 0, self.header.entry_array)

    def entries_with(self, field: bytes, value: bytes) -> Chain:
        """Entries that have ``FIELD=VALUE``."""
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
        """What the entry object at OFFSET says of itself; None when there is none."""
        try:
            kind, _, size, seqnum, realtime, monotonic, boot_id = _ENTRY_OBJECT.unpack(
                self.bytes_at(offset, _ENTRY_OBJECT.size)
            )
        except DamagedError:
            return None
        # Of an object whose end is overwritten by zeros the head is left.
        if kind != _ENTRY or size <= _ENTRY_OBJECT.size or not seqnum or not any(boot_id):
            return None
        return EntryHead(seqnum, realtime, monotonic, boot_id.hex())

    def bytes_at(self, offset: int, size: int) -> bytes:
        """SIZE bytes from OFFSET on. Raises DamagedError when the file doesn't have them."""
        if offset % 4 or not 0 < offset < self.header.header_size + self.header.arena_size:
            raise DamagedError("an object is outside of the file")
        raw = os.pread(self.descriptor, size, offset)
        if len(raw) < size:
            raise DamagedError("the file is shorter than its header says")
        return raw

    def _read_header(self) -> Header:
        header = parse_header(os.pread(self.descriptor, _HEADER.size, 0))
        if header is None:
            raise DamagedError("this is not a journal file")
        return header

    def _find(self, field: bytes, payload: bytes) -> int:
        """Where the data object with PAYLOAD is, or 0.

        By the table of fields, of which there are some dozens, rather than by the hash of the payload.
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
    """Those below PLACES."""
    for place in places:
        yield from sorted(path for pattern in PATTERNS for path in place.glob(pattern))
