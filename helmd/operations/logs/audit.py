"""Reading the audit trail from the journal: Helm's signed records, and systemd jobs that were not queued by Helm.

Older records are in the log store (`stored_entries`).
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
"""The actor of jobs for which there are only log lines of systemd."""
_MOST_READ = 50_000
"""Maximum number of journal entries read."""
_BEFORE = 5_000_000
"""Microseconds that a change by helmd may have begun before its record."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Selects entries; None selects all. Times are microseconds since 1970, the end is exclusive.

    ``behind`` is the place of the last entry of the preceding page.
    """

    service: str | None = None
    who: str | None = None
    result: str | None = None
    since: int | None = None
    until: int | None = None
    behind: tuple[int, int] | None = None

    @property
    def end(self) -> int | None:
        """The exclusive end, in microseconds since 1970; None if there is none."""
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
    """The entries in the journal, newest first, and the time since which these are complete, in microseconds since
    1970: that of the oldest record, None if there is none.
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
    """Return the newest LIMIT entries of the audit trail in the journal. Blocks. Raises JournalUnreadableError.

    SCHEDULED are the services that timers start. DIRECTORY replaces the machine's directory of journal files.
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
            # All further entries were written before journald received this one.
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
    """Return the operations of a record: jobs of its service, or without one, of all services during a command."""
    began = text_of(entry.fields, BEGAN)
    written = int(text_of(entry.fields, WRITTEN))
    if not made.change.service and not began:
        return []
    unit = unit_of(made.change.service) if made.change.service else ""
    return [OwnOperation(unit, int(began) if began.isdecimal() else written - _BEFORE, written)]


def audit_entry(row: LogRow) -> AuditEntry:
    """Return the entry for a record of Helm's, stored as ROW."""
    return AuditEntry(row.timestamp, change_of(row), row.hostname or "")


def audit_place(cursor: str) -> tuple[int, int]:
    """Parse a cursor to the place (`AuditEntry.place`). Raises UsageError."""
    timestamp, number = page_cursor_of(cursor)
    return realtime_of(timestamp), number


def change_of(row: LogRow) -> AuditedChange:
    """Return the change described by a record of Helm's, stored as ROW."""
    context: Mapping[str, object] = row.context or {}

    def text(key: str) -> str:
        value = context.get(key, "")
        return value if isinstance(value, str) else ""

    origin = Origin(text("via"), text("address"), text("unit"), text("session"))
    return AuditedChange(
        text("action"), text("result"), text("actor"), text("service"), text("reason"), text("detail"), origin
    )
