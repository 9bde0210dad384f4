"""The page that everybody lands on: how the services are, why, what changed, and what the reader may do."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from aiohttp import web

from helmd.model.api.audit import AuditRecord
from helmd.model.api.host import HostReply
from helmd.model.errors import HelmError
from helmd.model.identity.audit import DRY_RUN, AuditEntry
from helmd.model.suite.composition import dependencies
from helmd.model.suite.service import Registry
from helmd.model.units.doctor_report import DoctorReport
from helmd.operations.diagnostics.failures import FAILS, Failure, FailureReader
from helmd.operations.diagnostics.latest import CHECK_AGE, Glance, LatestCheck
from helmd.operations.monitoring.code_versions import CodeVersion, CodeVersions
from helmd.operations.monitoring.host_state import HostState, in_container
from helmd.operations.monitoring.service_history import ServiceHistory, ServiceRecord
from helmd.web.api.sources import StatusSource
from helmd.web.auth.logins import Logins
from helmd.web.auth.roles import Identity, Role
from helmd.web.auth.same_origin import by_gateway
from helmd.web.pages.graph import DependencyGraph, dependency_graph
from helmd.web.pages.overview_words import (
    Absent,
    Alarm,
    Headline,
    Permission,
    absent,
    alarms,
    headline,
    health_line,
    permissions,
    tone_of,
    well_since,
)
from helmd.web.pages.policy import HOME
from helmd.web.pages.rendering import Renderer
from helmd.web.pages.service_rows import STATES, Row, Tone, rows

__all__ = ["STATES", "OverviewPage", "OverviewSources", "Tone", "health_line"]

_CHANGES = 60
"""How many records of the audit trail are shown at most."""
_LOGINS = frozenset({"POST /login/once", "POST /api/login-links"})
"""What changes nothing but who is logged in."""
_EXPLAINED = 5
"""How many services that are wrong are shown with what they printed."""
_SOON_DAYS = 30
"""Days before a certificate ends, or a disk is full, from which on that is said."""


@dataclass(frozen=True, slots=True)
class OverviewSources:
    """Where the page has its facts from besides the states of services; None or empty for what there is not."""

    history: ServiceHistory | None = None
    host: HostState | None = None
    doctor: LatestCheck[DoctorReport] | None = None
    versions: CodeVersions | None = None
    changes: Callable[[int], Sequence[AuditEntry]] = lambda limit: ()
    """The newest changes; it blocks."""
    failures: FailureReader | None = None
    summaries: Mapping[str, str] = field(default_factory=dict)
    """What each request is for, by method and path as they are recorded."""


@dataclass(frozen=True, slots=True)
class OverviewChange:
    """A change as the page lists it."""

    timestamp: datetime
    service: str
    text: str
    who: str
    reason: str
    result: str


@dataclass(frozen=True, slots=True)
class OverviewContext:
    """What the page shows."""

    rows: tuple[Row, ...]
    alarms: tuple[Alarm, ...]
    headline: Headline
    tone: Tone
    failures: Mapping[str, Failure]
    """What the first of those that are wrong have printed, by their names."""
    shows_figures: bool
    history_trouble: str
    host_state: HostReply | None
    in_container: bool
    graph: DependencyGraph | None
    changes: tuple[OverviewChange, ...]
    doctor: Glance[DoctorReport]
    absent: Absent | None
    permissions: tuple[Permission, ...]
    read_only: bool
    may_control: bool
    soon_days: int
    now: datetime


@dataclass(slots=True)
class _Changes:
    found: tuple[OverviewChange, ...] = ()
    began_at: float = 0.0


class OverviewPage:
    """The handler. SUITE gives the services that are configured."""

    def __init__(
        self,
        monitor: StatusSource,
        suite: Callable[[], Registry],
        logins: Logins | None,
        renderer: Renderer,
        sources: OverviewSources = OverviewSources(),
    ) -> None:
        self._monitor = monitor
        self._suite = suite
        self._logins = logins
        self._renderer = renderer
        self._sources = sources
        self._changes = _Changes()
        self._turn = asyncio.Lock()

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /"""
        if not request.path.startswith(HOME) and not by_gateway(request):
            # The session's cookie is for HOME alone.
            return web.Response(status=303, headers={"Location": HOME})
        identity: Identity = request["identity"]
        part = request.query.get("part")
        sees = identity.may(Role.TECHNICIAN)
        # At once: each waits for something else.
        records, versions, host_state, changes, doctor = await asyncio.gather(
            self._records(identity, part),
            self._versions(identity, part),
            self._host(identity, part),
            self._changed(identity, part),
            self._findings(identity, part, "again" in request.query),
        )
        now, suite, statuses = datetime.now(UTC), self._suite(), self._monitor.statuses()
        seen = rows(statuses, suite, identity, now, records, versions)
        found = alarms(seen, suite)
        failures = await self._failed(identity, part, found)
        context = OverviewContext(
            rows=tuple(seen),
            alarms=found,
            headline=headline(seen, found, well_since(statuses, records, suite)),
            tone=tone_of(seen, found),
            failures=failures,
            shows_figures=sees,
            history_trouble="" if self._sources.history is None else self._sources.history.trouble,
            host_state=host_state,
            in_container=in_container(),
            graph=dependency_graph(seen, dependencies(suite)) if sees else None,
            changes=changes,
            doctor=doctor,
            absent=absent(seen, identity),
            permissions=tuple(permissions(identity, bool(seen))),
            read_only=self._reads_only(request, identity),
            may_control=identity.may(Role.ADMIN),
            soon_days=_SOON_DAYS,
            now=now,
        )
        return self._renderer.show(request, "overview.html", context)

    def _reads_only(self, request: web.Request, identity: Identity) -> bool:
        if identity.via != "session" or self._logins is None:
            return False
        session = self._logins.sessions.find(self._logins.sessions.digest(request))
        return session is not None and self._logins.sessions.state(session) == "read_only"

    async def _records(self, identity: Identity, part: str | None) -> Mapping[str, ServiceRecord]:
        if part not in (None, "services") or self._sources.history is None or not identity.may(Role.TECHNICIAN):
            return {}
        return await self._sources.history.records()

    async def _versions(self, identity: Identity, part: str | None) -> Mapping[str, CodeVersion]:
        if part not in (None, "services") or self._sources.versions is None or not identity.may(Role.TECHNICIAN):
            return {}
        return await self._sources.versions.of(self._suite())

    async def _host(self, identity: Identity, part: str | None) -> HostReply | None:
        if self._sources.host is None or part not in (None, "host") or not identity.may(Role.TECHNICIAN):
            return None
        try:
            return await self._sources.host.report()
        except (OSError, HelmError):
            return None

    async def _failed(self, identity: Identity, part: str | None, found: Sequence[Alarm]) -> Mapping[str, Failure]:
        reader = self._sources.failures
        if reader is None or part not in (None, "services") or not identity.may(Role.TECHNICIAN):
            return {}
        names = [alarm.row.name for alarm in found if alarm.row.state in FAILS][:_EXPLAINED]
        read = await asyncio.gather(*map(reader.of, names))
        return {name: failure for name, failure in zip(names, read, strict=True) if failure is not None}

    async def _changed(self, identity: Identity, part: str | None) -> tuple[OverviewChange, ...]:
        if part not in (None, "changes") or not identity.may(Role.ADMIN):
            return ()
        asked = time.monotonic()
        async with self._turn:
            # Those who asked before it began share one reading: an event has all tabs ask at once.
            if self._changes.began_at < asked:
                self._changes.began_at = time.monotonic()
                try:
                    read = await asyncio.to_thread(self._sources.changes, _CHANGES)
                    self._changes.found = tuple(changes_shown((entry.body for entry in read), self._sources.summaries))
                except (OSError, HelmError):
                    # Those from before are shown.
                    pass
        return self._changes.found

    async def _findings(self, identity: Identity, part: str | None, again: bool) -> Glance[DoctorReport]:
        """Return what doctor found last. It is asked for by the page's script: the page itself waits for nothing."""
        doctor = self._sources.doctor
        if doctor is None or part not in (None, "findings") or not identity.may(Role.ADMIN):
            return Glance(None)
        seen = await (doctor.known() if part is None else doctor.glance(0 if again else CHECK_AGE))
        if seen.report is not None:
            order = {"bad": 0, "warn": 1, "unknown": 2, "ok": 3}
            findings = tuple(sorted(seen.report.findings, key=lambda each: order[each.verdict]))
            seen = replace(seen, report=replace(seen.report, findings=findings))
        return seen


def changes_shown(records: Iterable[AuditRecord], summaries: Mapping[str, str]) -> Iterator[OverviewChange]:
    """Yield RECORDS in few words, without requests that only asked what would be done, or whose job has a record of its
    own, and without logins. SUMMARIES say what each request is for, by method and path as they are recorded.
    """
    for record in records:
        if record.result == "done" and (record.action in _LOGINS or (record.detail or "").startswith(DRY_RUN)):
            continue
        asked = record.action.startswith("POST /api/services/") and record.result == "done"
        if not (asked and (record.detail is None or "; job " in record.detail)):
            yield change_shown(record, summaries)


def change_shown(record: AuditRecord, summaries: Mapping[str, str]) -> OverviewChange:
    """Return a record of the audit trail in few words."""
    what = summaries.get(record.action, record.action).partition(";")[0]
    if "/" in record.action and record.detail:
        what = record.detail.partition(";")[0]
    service = record.service_name or ""
    if service and what.endswith(f" {service}"):
        what = what.removesuffix(f" {service}")
    return OverviewChange(record.timestamp, service, what, record.who, record.reason or "", record.result)
