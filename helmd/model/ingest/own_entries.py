"""Which journal entries Helm itself wrote: entries posted while the store was unavailable, and records of actions
(start, restart, ...).

Only signed entries are trusted (`helmd.model.ingest.signature`); any other entry is a line of its sender.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from helmd.model.errors import UsageError
from helmd.model.ingest.signature import REQUEST, WRITTEN, SigningKey, is_authentic
from helmd.model.logs.entry import LogRow, datetime_of
from helmd.model.logs.parsing.journal_fields import ACTION, JournalEntry, action_row, text_of
from helmd.model.suite.names import HELMD_UNIT, HMAC_FIELD, RESERVED_PREFIX, service_of

POSTED = "HIVEMATRIX_POSTED"
"""Set in entries that were posted."""
_UNIT = HELMD_UNIT.encode()


class PostedRow(NamedTuple):
    """A row that Helm wrote into the journal. ``request`` is the batch it was posted in, which had so many ``entries``;
    an action is a batch of its own.
    """

    row: LogRow
    request: str
    key: str | None = None
    """The batch's Idempotency-Key."""
    entries: int = 1
    number: int = 0
    """Its index in the batch, starting at 0."""


class OwnEntries:
    """Recognizes Helm's own entries. ``keys`` gives the keys of signatures, oldest first; ``retention_of``
    the days for which a service's entries are kept.
    """

    def __init__(self, keys: Callable[[], Sequence[SigningKey]], retention_of: Callable[[str], int]) -> None:
        self._keys = keys
        self._retention_of = retention_of

    def read(self, entry: JournalEntry) -> PostedRow | None:
        """Return the row that Helm wrote into the journal with ENTRY, or None for an entry of anybody else."""
        fields = entry.fields
        posted = POSTED in fields
        if not posted and ACTION not in fields:
            return None
        unit = fields.get("_SYSTEMD_USER_UNIT", b"")
        if isinstance(unit, list) or _is_of_a_service(unit):
            return None
        keys = self._keys()
        if not is_authentic(fields, entry.realtime, keys):
            # Versions without signatures wrote posted entries as well, and they may still be unread.
            earlier = HMAC_FIELD not in fields and (not keys or entry.realtime < keys[0].since)
            if not (earlier and posted and unit == _UNIT):
                return None
        try:
            request = str(UUID(text_of(fields, REQUEST)))
            if not posted:
                # The time that is signed: a copy has the same.
                written = datetime_of(int(text_of(fields, WRITTEN)))
                return PostedRow(action_row(entry)._replace(timestamp=written), request)
            # Imported here: helmctl meets few of these, and what checks them takes 20 ms to load.
            from helmd.model.ingest.journal_codec import read_posted

            return read_posted(entry, request, self._retention_of)
        except (UsageError, ValueError):
            # Written by another version, or the journal file is damaged there: an ordinary line.
            return None


def _is_of_a_service(unit: bytes) -> bool:
    """Return whether a service of the suite wrote it: then it can only be a copy. Jobs run helmctl."""
    service = service_of(unit.decode("utf-8", "replace"))
    return service is not None and service != "helm" and not service.startswith(RESERVED_PREFIX)
