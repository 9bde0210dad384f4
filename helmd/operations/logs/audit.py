"""Reading the audit trail: Helm's own signed records in the journal, and what systemd did without Helm.

What the journal does not have any more is in the log store (`stored_entries`).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappush, heappushpop
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from helmd.journal.actions import BEGAN
from helmd.journal.query import JournalQuery, Wanted
from helmd.model.identity.audit import AuditedChange, AuditEntry
from helmd.model.identity.origin import Origin
from helmd.model.identity.unit_jobs import ManagerLine, OwnOperation, UnitJob, jobs_outside_helm
from helmd.model.ingest.signature import FRESH, REQUEST, WRITTEN
from helmd.model.layout import Layout
from helmd.model.logs.entry import LogRow, datetime_of, realtime_of
from helmd.model.logs.filter import page_cursor_of
from helmd.model.logs.parsing.journal_fields import JournalEntry, text_of
from helmd.model.suite.names import HELM_SERVICE, RESERVED_PREFIX, service_of, unit_of

OUTSIDE = "outside Helm"
"""Who did it, where only systemd's own lines say that something was done."""
_MOST_READ = 50_000
"""Entries of the journal that are looked at."""
_BEFORE = 5_000_000
"""Microseconds: when a change of helmd's began before its record."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries are asked for; None asks for all. Times are microseconds since 1970, the last one not included.

    ``behind`` is the place of the last entry of the page before.
    """

    service: str | None = None
    who: str | None = None
    result: str | None = None
    since: int | None = None
    until: int | None = None
    behind: tuple[int, int] | None = None

    @property
    def end(self) -> int | None:
        """Microseconds since 1970 from which on nothing is asked for; None if there is no such time."""
        ends = [each for each in (self.until, None if self.behind is None else self.behind[0] + 1) if each is not None]
        return min(ends, default=None)

    def selects(self, entry: AuditEntry) -> bool:
        change, time = entry.change, realtime_of(entry.time)
        return (
            (self.since is None or time >= self.since)
            and (self.end is None or time < self.end)
            and (self.behind is None or time < self.behind[0] or entry.place < self.behind)
            and self.service in (None, change.service)
            and self.who in (None, change.actor)
            and self.result in (None, change.result)
        )


class JournalPart(NamedTuple):
    """What the journal has of the audit trail, the newest first, and since when it has all, in microseconds since 1970:
    the time of its oldest record. None if it has none.
    """

    entries: list[AuditEntry]
    since: int | None


def audit_entries(
    places: Layout,
    scheduled: Collection[str],
    wanted: AuditQuery,
    limit: int,
    directory: Path | None = None,
) -> JournalPart:
    """Return the newest LIMIT entries of the audit trail that the journal has. Blocks. Raises JournalUnreadableError.

    SCHEDULED are the services that timers start. DIRECTORY has the journal's files, instead of the machine's.
    """
    oldest: int | None = None
    # journald may have received a record long after it was written, and the record of a job comes after the job.
    until = None if wanted.end is None else wanted.end - 1 + FRESH
    entries: list[AuditEntry] = []
    newest: list[int] = []
    operations: list[OwnOperation] = []
    lines: list[ManagerLine] = []
    known: set[str] = set()
    with JournalQuery(places.uid, Wanted(since=wanted.since, until=until), directory, places.journal_keys) as query:
        for entry, row in islice(query.changes(), _MOST_READ):
            if row is None:
                lines.append(_job_line(entry))
                continue
            # What comes now was written before journald received it.
            if len(newest) == limit and entry.realtime < newest[0] and not query.has_later_before(entry, newest[0]):
                break
            oldest = entry.realtime if oldest is None else min(oldest, entry.realtime)
            # A process can copy a record to the journal, with its signature.
            if (request := text_of(entry.fields, REQUEST)) not in known:
                known.add(request)
                made = audit_entry(row)
                operations += _operations(entry, made)
                if wanted.selects(made):
                    entries.append(made)
                    keep = heappush if len(newest) < limit else heappushpop
                    keep(newest, realtime_of(made.time))
        lines.reverse()
        entries += filter(wanted.selects, _outside(jobs_outside_helm(lines, operations), scheduled))
    return JournalPart(sorted(entries, key=lambda entry: entry.place, reverse=True)[:limit], oldest)


def _outside(jobs: list[UnitJob], scheduled: Collection[str]) -> Iterator[AuditEntry]:
    for job in jobs:
        service = service_of(job.unit)
        if service is None or service == HELM_SERVICE or service.startswith(RESERVED_PREFIX):
            continue
        if job.action == "start" and service in scheduled:
            continue
        change = AuditedChange(job.action, job.result, OUTSIDE, service, origin=Origin("systemd"))
        yield AuditEntry(datetime_of(job.ended), change, "")


def _job_line(entry: JournalEntry) -> ManagerLine:
    fields = entry.fields
    return ManagerLine(
        f"{entry.boot_id} {text_of(fields, '_PID')}",
        entry.realtime,
        text_of(fields, "USER_UNIT"),
        text_of(fields, "JOB_ID"),
        text_of(fields, "JOB_TYPE"),
        text_of(fields, "JOB_RESULT"),
        text_of(fields, "MESSAGE_ID"),
    )


def _operations(entry: JournalEntry, made: AuditEntry) -> list[OwnOperation]:
    """Return what a record explains: jobs of its service, or without one those of all during a command."""
    began = text_of(entry.fields, BEGAN)
    written = int(text_of(entry.fields, WRITTEN))
    if not made.change.service and not began:
        return []
    unit = unit_of(made.change.service) if made.change.service else ""
    return [OwnOperation(unit, int(began) if began.isdecimal() else written - _BEFORE, written)]


def audit_entry(row: LogRow) -> AuditEntry:
    """Of the ROW of a record of Helm's."""
    return AuditEntry(row.timestamp, change_of(row), row.hostname or "")


def audit_place(cursor: str) -> tuple[int, int]:
    """Return the place (`AuditEntry.place`) that CURSOR names. Raises UsageError."""
    timestamp, number = page_cursor_of(cursor)
    return realtime_of(timestamp), number


def change_of(row: LogRow) -> AuditedChange:
    """Return what the ROW of a record of Helm's says."""
    context: Mapping[str, object] = row.context or {}

    def text(key: str) -> str:
        value = context.get(key, "")
        return value if isinstance(value, str) else ""

    origin = Origin(text("via"), text("address"), text("unit"), text("session"))
    return AuditedChange(
        text("action"), text("result"), text("actor"), text("service"), text("reason"), text("detail"), origin
    )
