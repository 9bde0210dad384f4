"""Pages of the audit trail: entries in the journal, then older records of Helm in the log store."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from helmd.model.errors import HelmError
from helmd.model.identity.audit import AuditEntry
from helmd.model.logs.entry import HELM, datetime_of, realtime_of
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.operations.logs.audit import AuditQuery, JournalPart, audit_entry
from helmd.operations.logs.reader import LogReader

_PAGE = 1000
_MOST_PAGES = 20

ReadTrail = Callable[[AuditQuery, int], JournalPart]


@dataclass(frozen=True, slots=True)
class AuditListing:
    """A page of the audit trail, newest first. ``more`` is the cursor of the next page, empty on the last one."""

    entries: tuple[AuditEntry, ...]
    more: str = ""
    trouble: str = ""
    """Why entries older than the journal are missing."""


class AuditPages:
    """Reads pages. READ returns entries from the journal, and blocks; READER has older ones."""

    def __init__(self, read: ReadTrail, reader: LogReader) -> None:
        self._read, self._reader = read, reader
        # Reading the journal is bound by the processor, so readers take turns.
        self._turn = asyncio.Lock()

    async def page(self, wanted: AuditQuery, limit: int) -> AuditListing:
        """Return at most LIMIT entries. Raises JournalUnreadableError."""
        # One more, to know whether there are more. Shielded, since a thread can't be cancelled while it holds the lock.
        found, since = await asyncio.shield(self._of_journal(wanted, limit + 1))
        stored, trouble = StoredPart([], None), ""
        if len(found) <= limit:
            try:
                stored = await stored_entries(self._reader, wanted, since, limit + 1)
            except HelmError as error:
                trouble = error.sentence
        # A record may be both in the journal and in the store, with a time before that of the oldest one in the
        # journal.
        known = {(entry.time, entry.change): entry for entry in (*stored.entries, *found)}
        # Jobs of systemd may be older than the records in the store.
        entries = sorted(known.values(), key=lambda entry: entry.place, reverse=True)
        if stored.reached is not None:
            # Others of the same microsecond may not have been read.
            entries = [entry for entry in entries if entry.time > stored.reached.timestamp]
        if len(entries) > limit:
            return AuditListing(tuple(entries[:limit]), entries[limit - 1].cursor, trouble)
        return AuditListing(tuple(entries), _behind(stored.reached), trouble)

    async def _of_journal(self, wanted: AuditQuery, limit: int) -> JournalPart:
        async with self._turn:
            return await asyncio.to_thread(self._read, wanted, limit)


class StoredPart(NamedTuple):
    """The entries in the log store, newest first. ``reached`` is the position at which the time limit ended the
    search.
    """

    entries: list[AuditEntry]
    reached: PageCursor | None


async def stored_entries(reader: LogReader, wanted: AuditQuery, before: int | None, limit: int) -> StoredPart:
    """Return the newest LIMIT records, or some more, that are older than BEFORE (as `JournalPart.since`).

    Jobs that were not queued by Helm are not among them.

    At most _MOST_PAGES pages are read. Raises StoreError and BusyError.
    """
    ends = [each for each in (wanted.end, before) if each is not None]
    conditions = LogFilter(
        services=None if wanted.service is None else frozenset({wanted.service}),
        start=None if wanted.since is None else datetime_of(wanted.since),
        end=datetime_of(min(ends)) if ends else None,
        sources=frozenset({HELM}),
    )
    found: list[AuditEntry] = []
    cursor: PageCursor | None = None
    for _ in range(_MOST_PAGES):
        page = (await reader.page(conditions, _PAGE, cursor, 0, counted=False)).page
        made = (audit_entry(entry.row) for entry in page.entries)
        # There are other records of Helm, such as gaps.
        found += [each for each in made if each.change.action and wanted.selects(each)]
        cursor = page.next
        # All entries of a microsecond are needed, since they are sorted in another order here.
        if cursor is None or (len(found) >= limit and found[limit - 1].time > cursor.timestamp):
            return StoredPart(found, None)
    return StoredPart(found, cursor)


def _behind(reached: PageCursor | None) -> str:
    """Return the cursor for entries as old as REACHED, or older."""
    return "" if reached is None else f"{realtime_of(reached.timestamp) + 1}-0"
