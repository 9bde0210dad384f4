"""Reading the audit trail: Helm's own signed records in the journal, and what systemd did without Helm.

What the journal does not have any more is in the log store (`stored_entries`).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from helmd.journal.actions import BEGAN
from helmd.journal.query import JournalQuery, Wanted
from helmd.model.identity.audit import AuditedChange, AuditEntry, Origin
from helmd.model.identity.unit_jobs import ManagerLine, OwnOperation, UnitJob, jobs_outside_helm
from helmd.model.ingest.signature import REQUEST, WRITTEN
from helmd.model.layout import Layout
from helmd.model.logs.entry import LogRow, datetime_of
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
    """Which entries are asked for; None asks for all. Times are microseconds since 1970, the last one not included."""

    service: str | None = None
    who: str | None = None
    result: str | None = None
    since: int | None = None
    until: int | None = None

    def selects(self, entry: AuditEntry) -> bool:
        change = entry.change
        return (
            self.service in (None, change.service)
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
    """The newest LIMIT entries of the audit trail that the journal has. Blocks. Raises JournalUnreadableError.

    SCHEDULED are the services that timers start. DIRECTORY has the journal's files, instead of the machine's.
    """
    oldest: int | None = None
    until = None if wanted.until is None else wanted.until - 1
    entries: list[AuditEntry] = []
    operations: list[OwnOperation] = []
    lines: list[ManagerLine] = []
    known: set[str] = set()
    with JournalQuery(places.uid, Wanted(since=wanted.since, until=until), directory, places.journal_keys) as query:
        for entry, row in islice(query.changes(), _MOST_READ):
            if row is None:
                lines.append(_job_line(entry))
                continue
            oldest = entry.realtime if oldest is None else min(oldest, entry.realtime)
            # A process can copy a record to the journal, with its signature.
            if (request := text_of(entry.fields, REQUEST)) not in known:
                known.add(request)
                made = own_entry(entry, row)
                operations += _operations(entry, made)
                entries += [made] if wanted.selects(made) else []
                if len(entries) >= limit:
                    break
        lines.reverse()
        entries += filter(wanted.selects, _outside(jobs_outside_helm(lines, operations), scheduled))
    return JournalPart(sorted(entries, key=lambda entry: entry.time, reverse=True)[:limit], oldest)


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
    """What a record explains: jobs of its service, or without one those of all during a command."""
    began = text_of(entry.fields, BEGAN)
    written = int(text_of(entry.fields, WRITTEN))
    if not made.change.service and not began:
        return []
    unit = unit_of(made.change.service) if made.change.service else ""
    return [OwnOperation(unit, int(began) if began.isdecimal() else written - _BEFORE, written)]


def own_entry(entry: JournalEntry, row: LogRow) -> AuditEntry:
    """Of Helm's own record ENTRY, which makes ROW."""
    # Signed, so the same for a copy.
    return AuditEntry(datetime_of(int(text_of(entry.fields, WRITTEN))), change_of(row), row.hostname or "")


def change_of(row: LogRow) -> AuditedChange:
    """What the ROW of a record of Helm's says."""
    context: Mapping[str, object] = row.context or {}

    def text(key: str) -> str:
        value = context.get(key, "")
        return value if isinstance(value, str) else ""

    origin = Origin(text("via"), text("address"), text("unit"), text("session"))
    return AuditedChange(
        text("action"), text("result"), text("actor"), text("service"), text("reason"), text("detail"), origin
    )
