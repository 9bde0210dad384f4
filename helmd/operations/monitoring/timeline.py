"""Events of a service, from the log store: systemd's lines, Helm's records, changes of its health."""

from collections.abc import Mapping
from typing import NamedTuple

from helmd.model.api.details import TimelineEvent
from helmd.model.identity.audit import DRY_RUN
from helmd.model.logs.entry import HELM, JOURNAL, SYSTEMD, LogRow
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.model.suite.names import HELM_SERVICE
from helmd.model.units.timeline import EventKind, health_of_line, kind_of_change, kind_of_systemd
from helmd.operations.logs.reader import LogReader

_MOST_HEALTH = 200
"""Maximum number of lines of helmd that are read for one page."""


class TimelinePage(NamedTuple):
    """Events, the newest first, and where the next page begins; None on the last one."""

    events: tuple[TimelineEvent, ...]
    next: PageCursor | None


async def timeline(reader: LogReader, service: str, limit: int, before: PageCursor | None) -> TimelinePage:
    """Return the newest LIMIT events of SERVICE that are older than BEFORE. Raises as `LogReader.page`."""
    own = LogFilter(services=frozenset({service}), sources=frozenset({SYSTEMD, HELM}))
    said = LogFilter(services=frozenset({HELM_SERVICE}), sources=frozenset({JOURNAL}), text=f"{service} is ")
    pages = [(await reader.page(own, limit, before, 0, counted=False)).page]
    if service != HELM_SERVICE:
        pages.append((await reader.page(said, min(limit, _MOST_HEALTH), before, 0, counted=False)).page)
    found = [
        (PageCursor(entry.row.timestamp, entry.id), event)
        for page in pages
        for entry in page.entries
        if (event := _event(entry.id, entry.row, service)) is not None
    ]
    found.sort(key=lambda each: each[0], reverse=True)
    # Beyond the end of a page of one kind that continues, entries of this kind would be missing.
    ends = [page.next for page in pages if page.next is not None]
    complete = [each for each in found if not ends or each[0] >= max(ends)]
    chosen = complete[:limit]
    following = chosen[-1][0] if len(complete) > limit else max(ends) if ends else None
    return TimelinePage(tuple(event for _, event in chosen), following)


def _event(id: int, row: LogRow, service: str) -> TimelineEvent | None:
    """Return the event that ROW is about, or None where it is a line of helmd's about something else."""
    context: Mapping[str, object] = row.context or {}

    def said(key: str) -> str | None:
        value = context.get(key)
        return value if isinstance(value, str) and value else None

    kind: EventKind
    who = reason = None
    if row.source == HELM and (said("detail") or "").startswith(DRY_RUN):
        # Recorded in the audit trail, but nothing was changed.
        return None
    if row.source == HELM:
        kind = kind_of_change(said("action") or "", said("result") or "")
        who, reason = said("actor"), said("reason")
    elif row.source == SYSTEMD:
        kind = kind_of_systemd(row.message)
    elif health_of_line(row.message) == service:
        kind = "health"
    else:
        return None
    return TimelineEvent(id, row.timestamp, row.source, row.level, row.message, kind, who, reason)
