"""The audit trail in the log store: Helm's own records, which it has for as long as entries are kept."""

from helmd.model.identity.audit import AuditEntry
from helmd.model.logs.entry import HELM, datetime_of
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.operations.logs.audit import AuditQuery, change_of
from helmd.operations.logs.reader import LogReader

_PAGE = 1000
_MOST_PAGES = 20


async def stored_entries(reader: LogReader, wanted: AuditQuery, before: int | None, limit: int) -> list[AuditEntry]:
    """The newest LIMIT records that are older than BEFORE (microseconds since 1970, as `JournalPart.since`), the newest
    first. What systemd did without Helm is not among them.

    At most _MOST_PAGES pages are read. Raises StoreError and BusyError.
    """
    ends = [each for each in (wanted.until, before) if each is not None]
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
        for entry in page.entries:
            # Helm reports other things as well, such as gaps.
            change = change_of(entry.row)
            made = AuditEntry(entry.row.timestamp, change, entry.row.hostname or "")
            if change.action and wanted.selects(made):
                found.append(made)
        cursor = page.next
        if cursor is None or len(found) >= limit:
            break
    return found[:limit]
