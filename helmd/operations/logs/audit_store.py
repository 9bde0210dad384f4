"""Pages of the audit trail: what the journal has, then older records of Helm's own in the log store."""

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
    """A page of the audit trail, the newest first. ``more`` is the cursor of what is older; empty if nothing is."""

    entries: tuple[AuditEntry, ...]
    more: str = ""
    trouble: str = ""
    """Why what the journal does not have any more is missing."""


class AuditPages:
    """Pages of it. READ gets what the journal has, and blocks; READER has what is older."""

    def __init__(self, read: ReadTrail, reader: LogReader) -> None:
        self._read, self._reader = read, reader
        # Reading the journal is work for a processor; one reader at a time is enough.
        self._turn = asyncio.Lock()

    async def page(self, wanted: AuditQuery, limit: int) -> AuditListing:
        """At most LIMIT entries. Raises JournalUnreadableError."""
        # One more than asked for says whether there are more. Shielded: a thread can't be cancelled, and has the turn.
        found, since = await asyncio.shield(self._of_journal(wanted, limit + 1))
        stored, trouble = StoredPart([], None), ""
        if len(found) <= limit:
            try:
                stored = await stored_entries(self._reader, wanted, since, limit + 1)
            except HelmError as error:
                trouble = error.sentence
        # The journal may have a record that is in the store as well, with a time before that of its oldest one.
        known = {(entry.time, entry.change): entry for entry in (*stored.entries, *found)}
        # What systemd did without Helm may be older than what the store has.
        entries = sorted(known.values(), key=lambda entry: entry.place, reverse=True)
        if stored.reached is not None:
            # Others of that microsecond may not have been looked at.
            entries = [entry for entry in entries if entry.time > stored.reached.timestamp]
        if len(entries) > limit:
            return AuditListing(tuple(entries[:limit]), entries[limit - 1].cursor, trouble)
        return AuditListing(tuple(entries), _behind(stored.reached), trouble)

    async def _of_journal(self, wanted: AuditQuery, limit: int) -> JournalPart:
        async with self._turn:
            return await asyncio.to_thread(self._read, wanted, limit)


class StoredPart(NamedTuple):
    """What the log store has, the newest first. ``reached`` is where looking for more ended before the oldest entry."""

    entries: list[AuditEntry]
    reached: PageCursor | None


async def stored_entries(reader: LogReader, wanted: AuditQuery, before: int | None, limit: int) -> StoredPart:
    """Return the newest LIMIT records, or some more, that are older than BEFORE (microseconds since 1970, as
    `JournalPart.since`). What systemd did without Helm is not among them.

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
        # Helm reports other things as well, such as gaps.
        found += [each for each in made if each.change.action and wanted.selects(each)]
        cursor = page.next
        # Of one microsecond all are needed: they are in another order here.
        if cursor is None or (len(found) >= limit and found[limit - 1].time > cursor.timestamp):
            return StoredPart(found, None)
    return StoredPart(found, cursor)


def _behind(reached: PageCursor | None) -> str:
    """Return the cursor of what is as old as REACHED, or older."""
    return "" if reached is None else f"{realtime_of(reached.timestamp) + 1}-0"
