"""Reading the suite's lines directly from the journal: filtered, in either direction, and followed.

The service, level and stream of a line are decided in `helmd.model.logs.parsing.journal_fields`, as for the log store.
Quick to import, for helmctl. Entries of all boots are read in libsystemd's order, as by journalctl.
"""

import os
import re
import select
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from systemd import _reader

from helmd.model.errors import HelmError
from helmd.model.logs.entry import HELM, MESSAGE_LIMIT, SEARCH_LIMIT, LogRow
from helmd.model.logs.parsing.entry_times import STEP, Times
from helmd.model.logs.parsing.journal_fields import JournalEntry, message_of, row_of, text_of, with_realtime_field
from helmd.model.logs.parsing.position import Cursor, parse_cursor
from helmd.model.suite.names import (
    HELM_SERVICE,
    HELM_UNITS,
    HMAC_FIELD,
    identifier_of,
    service_of,
    service_of_identifier,
    unit_of,
)

if TYPE_CHECKING:
    from helmd.journal.expected import FileSet
    from helmd.journal.files import Header
    from helmd.model.ingest.own_entries import PostedRow

_HELM_IDENTIFIER = "helmctl"
_ACTORS = (_HELM_IDENTIFIER, "helmd")
"""Identifiers of Helm's records of its actions."""
_OF_ACTORS = tuple(f"SYSLOG_IDENTIFIER={each}" for each in _ACTORS)
_KEPT_DAYS = 36_500
"""Maximum age of posted entries, in days; here, all in the journal are accepted."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT = re.compile(r"[0-9a-f]{32}\Z")


class JournalUnreadableError(HelmError):
    """The journal can't be opened or read."""

    code: ClassVar[str] = "journal"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Selects lines; None selects all. Times are microseconds since 1970."""

    services: frozenset[str] | None = None
    levels: frozenset[str] | None = None
    streams: frozenset[str] | None = None
    pattern: re.Pattern[str] | None = None
    trace: str | None = None
    since: int | None = None
    until: int | None = None
    boot: str | None = None
    """A boot's id, 32 hexadecimal digits."""
    query: str = ""
    """A valid query in the query language."""


class Found(NamedTuple):
    """A journal entry and its row."""

    entry: JournalEntry
    row: LogRow


def selects(wanted: Wanted, row: LogRow) -> bool:
    """Return whether ROW is selected, disregarding its time."""
    return (
        (wanted.services is None or row.service_name in wanted.services)
        and (wanted.levels is None or row.level in wanted.levels)
        and (wanted.streams is None or row.stream in wanted.streams)
        and (wanted.trace is None or _has_trace(row, wanted.trace))
        and (wanted.pattern is None or _matches(wanted.pattern, row.message))
        and (not wanted.query or _meets_query(wanted.query, row))
    )


def _matches(pattern: re.Pattern[str], message: str) -> bool:
    return pattern.search(message[:SEARCH_LIMIT]) is not None


def _meets_query(query: str, row: LogRow) -> bool:
    # Imported here, since most commands have no query.
    from helmd.model.logs.query_language.evaluate import meets
    from helmd.model.logs.query_language.parse import parsed_query

    return meets(parsed_query(query), row)


def _has_trace(row: LogRow, trace: str) -> bool:
    """Return whether a line is of this trace, by its field, or by its text."""
    return row.trace_id == trace or (row.context or {}).get("trace_id") == trace or trace in row.message


def this_boot() -> str:
    """Return the id of the running boot, as the journal writes it."""
    return _BOOT_ID.read_text().strip().replace("-", "")


class JournalBoot(NamedTuple):
    """A boot of the machine with entries of an account. Times are microseconds since 1970."""

    id: str
    first: int
    last: int


def boots(uid: int) -> list[JournalBoot]:
    """Return the boots of which the journal has entries of the account, oldest first. Raises JournalUnreadableError."""
    found = []
    try:
        with _reader._Reader(_reader.LOCAL_ONLY) as journal:
            for value in journal.query_unique("_BOOT_ID"):
                boot = _text(value)
                journal.flush_matches()
                journal.add_match(f"_BOOT_ID={boot}")
                journal.add_match(f"_UID={uid}")
                journal.seek_head()
                if not journal._next():
                    continue
                first = last = journal._get_realtime()
                journal.seek_tail()
                if journal._previous():
                    last = journal._get_realtime()
                else:  # the list of its entries is damaged
                    journal.seek_head()
                    while journal._next():
                        last = journal._get_realtime()
                found.append(JournalBoot(boot, first, last))
    except OSError as error:
        raise JournalUnreadableError(f"the journal can't be read: {error.strerror}") from error
    return sorted(found, key=lambda each: each.first)


class JournalQuery:
    """Iterates over the lines of one account (``_UID``). ``directory`` replaces the machine's journal files.

    ``keys_file`` has the keys that verify entries which Helm wrote itself; without it, these are ordinary lines. Use it
    as a context manager, in one thread. Raises JournalUnreadableError.
    """

    def __init__(self, uid: int, wanted: Wanted, directory: Path | None = None, keys_file: Path | None = None) -> None:
        self._uid = uid
        self._wanted = wanted
        self._keys_file = keys_file
        self._directory = directory
        self._own: Callable[[JournalEntry], PostedRow | None] | None = None
        self._files: FileSet | None = None
        self._headers: list[Header] | None = None
        self._boot_read = ""
        # Time in suspend, which only one of the clocks counts, costs only an additional check of the file.
        self._offsets = {this_boot(): (time.time_ns() - time.monotonic_ns()) // 1000}
        """Difference between wall clock and monotonic clock by boot, in microseconds."""
        self._newest = ""
        self._opened = time.time_ns() // 1000
        try:
            if directory is None:
                self._journal = _reader._Reader(_reader.LOCAL_ONLY)
            else:
                self._journal = _reader._Reader(0, str(directory))
            # Called now, since libsystemd watches the directories from the first call on.
            self._descriptor = self._journal.fileno()
        except OSError as error:
            raise JournalUnreadableError(f"the journal can't be opened: {error.strerror}") from error
        # The default would silently truncate messages to 64 KiB.
        self._journal.data_threshold = MESSAGE_LIMIT + len(b"MESSAGE=") + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self._journal.close()
        if self._files is not None:
            self._files.close()

    def services(self) -> frozenset[str]:
        """Return the services with lines in the journal. Only reads indexes."""
        found = {service_of(_text(unit)) for unit in self._values("_SYSTEMD_USER_UNIT")}
        found |= {service_of(_text(unit)) for unit in self._values("USER_UNIT")}
        found |= {service_of_identifier(_text(name)) for name in self._values("SYSLOG_IDENTIFIER")}
        return frozenset(name for name in found if name)

    def forward(self) -> Iterator[Found]:
        """Yield the lines, oldest first."""
        since, until = self._wanted.since, self._wanted.until
        self._match(self._wanted.services or self.services())
        if since is None:
            self._journal.seek_head()
        else:
            self._journal.seek_realtime(since)
        for entry in self._walk(self._journal._next):
            self._newest = entry.cursor
            if until is not None and entry.realtime > until:
                if self._has_earlier_behind(entry, until):
                    continue
                return
            if (since is None or entry.realtime >= since) and (found := self._chosen(entry)):
                yield found

    def backward(self) -> Iterator[Found]:
        """Yield the lines, newest first."""
        self._match(self._wanted.services or self.services())
        return self._backward()

    def changes(self) -> Iterator[tuple[JournalEntry, LogRow | None]]:
        """Yield Helm's own records of what it did, with their rows, and lines of the user manager about jobs; newest
        first.

        Entries without valid signature are no records.
        """
        # Imported here, since only the audit trail needs it.
        from helmd.model.identity.unit_jobs import MESSAGE_IDS

        of_manager = ["_SYSTEMD_USER_UNIT=init.scope", *(f"MESSAGE_ID={each}" for each in MESSAGE_IDS)]
        self._match_any([_OF_ACTORS, of_manager])
        for entry in self._entries_backward():
            if entry.fields.get("_SYSTEMD_USER_UNIT") == b"init.scope":
                yield entry, None
            elif (row := self._authentic(entry)) is not None and row.source == HELM:
                yield entry, row

    def own_changes(self) -> Iterator[Found]:
        """Yield Helm's own records of what it did, newest first."""
        self._match_any([_OF_ACTORS])
        return self._of_helm(self._entries_backward())

    def newer_changes(self) -> list[Found]:
        """Return Helm's own records that were written since `own_changes` began to be read, or since the last call."""
        self._match_any([_OF_ACTORS])
        self._journal.process()
        pending = self._seek_after_newest()
        found: list[Found] = []
        for entry in self._walk(self._journal._next, pending):
            self._newest = entry.cursor
            found += self._of_helm([entry])
        return found

    def _of_helm(self, entries: Iterable[JournalEntry]) -> Iterator[Found]:
        for entry in entries:
            if (row := self._authentic(entry)) is not None and row.source == HELM:
                yield Found(entry, row)

    def _match_any(self, alternatives: Iterable[Iterable[str]]) -> None:
        """Add matches for the account's entries that meet one of ALTERNATIVES (sd_journal_add_match(3))."""
        self._journal.flush_matches()
        for matches in alternatives:
            self._journal.add_disjunction()
            for match in (f"_UID={self._uid}", *matches):
                self._journal.add_match(match)

    def _backward(self) -> Iterator[Found]:
        return (found for entry in self._entries_backward() if (found := self._chosen(entry)))

    def _entries_backward(self) -> Iterator[JournalEntry]:
        since, until = self._wanted.since, self._wanted.until
        if until is None:
            self._journal.seek_tail()
        else:
            self._journal.seek_realtime(until + 1)
        for entry in self._walk(self._journal._previous):
            self._newest = self._newest or entry.cursor
            if since is not None and entry.realtime < since:
                if self.has_later_before(entry, since):
                    continue
                return
            if until is None or entry.realtime <= until:
                yield entry

    def has_later_before(self, entry: JournalEntry, time: int) -> bool:
        """Return whether entries from before ENTRY may have times from TIME on, since the clock was set back after
        them.

        journald begins new files then, so the last time of each file that ends before ENTRY is sufficient.
        """
        number, headers = self._numbered_as(entry)
        return any(header.tail_seqnum < number and header.tail_realtime >= time for header in headers)

    def _has_earlier_behind(self, entry: JournalEntry, time: int) -> bool:
        """Return whether entries from behind ENTRY may have times up to TIME, likewise."""
        number, headers = self._numbered_as(entry)
        return any(header.head_seqnum > number and header.head_realtime <= time for header in headers)

    def _numbered_as(self, entry: JournalEntry) -> "tuple[int, list[Header]]":
        """Return the sequence number of ENTRY, and the headers of the files whose numbers can be compared with it."""
        if self._headers is None:
            from helmd.journal.files import PLACES, headers_below

            self._headers = headers_below(PLACES if self._directory is None else (self._directory,))
        cursor = parse_cursor(entry.cursor) or Cursor("", 0, "")
        return cursor.seqnum, [header for header in self._headers if header.seqnum_id == cursor.seqnum_id]

    def last(self, count: int) -> list[Found]:
        """Return the last COUNT lines, oldest first."""
        return list(islice(self.backward(), count))[::-1]

    def follow(self, caught_up: Callable[[], None], output: int) -> Iterator[Found]:
        """Yield lines written after the newest one read so far, else after this query was opened, as they come.

        CAUGHT_UP is called before each wait. Ends when nobody reads from the descriptor OUTPUT any more.
        """
        poller = select.poll()
        poller.register(self._descriptor, self._journal.get_events())
        poller.register(output, 0)
        # If all services are selected, new ones are followed as well.
        self._match(self._wanted.services)
        pending = self._seek_after_newest()
        while True:
            for entry in self._walk(self._journal._next, pending):
                if found := self._chosen(entry):
                    yield found
            pending = False
            caught_up()
            ready = poller.poll(self._journal.get_timeout_ms())
            if any(descriptor == output for descriptor, _ in ready):
                return
            self._journal.process()

    def _values(self, field: str) -> Iterable[bytes]:
        try:
            values: Iterable[bytes] = self._journal.query_unique(field)
        except OSError as error:
            raise JournalUnreadableError(f"the journal can't be read: {error.strerror}") from error
        return values

    def _match(self, services: frozenset[str] | None) -> None:
        """Add matches for entries that may belong to SERVICES; None for all of the account."""
        journal = self._journal
        journal.flush_matches()
        common = [f"_UID={self._uid}"] + ([f"_BOOT_ID={self._wanted.boot}"] if self._wanted.boot else [])
        for matches in [()] if services is None else _alternatives(services):
            journal.add_disjunction()
            for match in (*common, *matches):
                journal.add_match(match)

    def _seek_after_newest(self) -> bool:
        """Seek to the entry after the newest one read; return whether the current entry is a new one."""
        if not self._newest:
            self._journal.seek_realtime(self._opened)
            return False
        self._journal.seek_cursor(self._newest)
        return bool(self._journal._next()) and not self._journal.test_cursor(self._newest)

    def _walk(self, step: Callable[[], bool], pending: bool = False) -> Iterator[JournalEntry]:
        """Yield entries in this direction; damaged ones are skipped."""
        journal = self._journal
        try:
            while pending or step():
                pending = False
                try:
                    fields = journal._get_all()
                    monotonic, of_head = journal._get_monotonic()
                    stated = text_of(fields, "_BOOT_ID")
                    boot = stated if _BOOT.match(stated) else of_head.hex()
                    given = Times(journal._get_realtime(), monotonic)
                    entry = JournalEntry(fields, journal._get_cursor(), boot, given.monotonic, given.realtime)
                except (OSError, ValueError):  # ValueError: damage in the name of a field
                    continue
                yield self._timed(entry, given)
        except OSError as error:
            raise JournalUnreadableError(f"the journal can't be read: {error.strerror}") from error

    def _timed(self, entry: JournalEntry, given: Times) -> JournalEntry:
        """Return ENTRY with a plausible time, if damage to its file has made the one that is GIVEN wrong."""
        known = self._offsets.get(entry.boot_id)
        if known is not None and abs(given.offset - known) < STEP:
            return entry
        if self._files is None:
            # Imported here, since it is only needed for such an entry, or one of another boot.
            from helmd.journal.expected import files_of

            self._files = files_of(self._directory)
        if entry.boot_id != self._boot_read:
            self._files.enter(entry.boot_id, -1)
            self._boot_read = entry.boot_id
        times = self._files.times(entry.cursor, given) or given
        self._offsets[entry.boot_id] = times.offset
        return with_realtime_field(entry._replace(realtime=times.realtime, monotonic=times.monotonic), given)

    def _chosen(self, entry: JournalEntry) -> Found | None:
        pattern = self._wanted.pattern
        # Of an entry that is not signed the row has this text; most entries do not match and need no row.
        if (
            pattern is not None
            and HMAC_FIELD not in entry.fields
            and not _matches(pattern, message_of(entry.fields)[0])
        ):
            return None
        row = self._authentic(entry) or row_of(entry)
        return Found(entry, row) if row is not None and selects(self._wanted, row) else None

    def _authentic(self, entry: JournalEntry) -> LogRow | None:
        """Return the row of a signed entry of Helm's own."""
        if self._keys_file is None or HMAC_FIELD not in entry.fields:
            return None
        if self._own is None:
            # Imported here, since it takes a tenth of the time of helmctl, and is seldom needed.
            from helmd.journal.keys import JournalKeys
            from helmd.model.ingest.own_entries import OwnEntries

            self._own = OwnEntries(JournalKeys(self._keys_file).keys, lambda _: _KEPT_DAYS).read
        found = self._own(entry)
        return None if found is None else found.row


def _alternatives(services: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of matches, of which each entry of SERVICES meets at least one."""
    units: list[str] = []
    identifiers: list[str] = []
    for service in sorted(services):
        if service == HELM_SERVICE:
            units += HELM_UNITS
            identifiers.append(_HELM_IDENTIFIER)
        else:
            units.append(unit_of(service))
            identifiers.append(identifier_of(service))
    return [
        tuple(f"_SYSTEMD_USER_UNIT={unit}" for unit in units),
        tuple(f"SYSLOG_IDENTIFIER={identifier}" for identifier in identifiers),
        tuple(f"USER_UNIT={unit}" for unit in units),
    ]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def hidden_files() -> list[Path]:
    """Return journal files of this machine that this process may not read."""
    from helmd.journal.files import PLACES

    return [file for place in PLACES for file in sorted(place.glob("*/*.journal")) if not os.access(file, os.R_OK)]
