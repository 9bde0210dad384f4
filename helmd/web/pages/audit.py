"""The page of the audit trail, including refused requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from aiohttp import web

from helmd.model.errors import HelmError
from helmd.model.identity.audit import AuditEntry
from helmd.model.logs.entry import realtime_of
from helmd.model.logs.filter import utc_timestamp
from helmd.operations.logs.audit import AuditQuery, audit_place
from helmd.operations.logs.audit_store import AuditPages
from helmd.web.http.cancellation import run_while_connected
from helmd.web.pages.overview import Tone
from helmd.web.pages.rendering import Renderer

PAGE_ENTRIES = 100
_TONES: dict[str, tuple[Tone, str]] = {
    "done": ("ok", "circle-check"),
    "refused": ("warn", "lock"),
    "failed": ("error", "circle-x"),
    "killed": ("error", "circle-x"),
    "timeout": ("error", "clock"),
    "skipped": ("warn", "minus"),
}
RESULTS = ("done", "refused", "failed")
_NAMES = ("who", "service", "result", "start", "end", "cursor")


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A record for display. ``result`` is that of the record; ``place`` the origin of the request."""

    entry: AuditEntry
    tone: Tone
    icon: str
    what: str
    """A description if the action is a request, else the command."""
    request: str
    """The method and path of a request; empty for a command."""
    place: str
    more: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """The filter, as in the page's URL; times as in the form, in UTC."""

    who: str = ""
    service: str = ""
    result: str = ""
    start: str = ""
    end: str = ""
    cursor: str = ""
    """Cursor: selects records older than the one that it names."""

    def link(self, **changes: str) -> str:
        """Return the query string for the newest records of this filter with CHANGES; empty values are omitted."""
        changed = replace(self, **{"cursor": "", **changes})
        given = {name: getattr(changed, name) for name in _NAMES}
        return "?" + urlencode({name: value for name, value in given.items() if value})

    @property
    def active(self) -> bool:
        return self != AuditFilter()


@dataclass(frozen=True, slots=True)
class AuditContext:
    """The template's variables. ``older`` is the query of older records; ``fault`` that of the filter."""

    filter: AuditFilter
    rows: tuple[AuditRow, ...] = ()
    results: tuple[str, ...] = RESULTS
    services: tuple[str, ...] = ()
    older: str = ""
    trouble: str = ""
    fault: str = ""


class AuditTrailPage:
    """The handler. SERVICES are the choices.

    SUMMARIES say what each request is for, by method and path as they are recorded.
    """

    def __init__(
        self,
        trail: AuditPages,
        services: Callable[[], tuple[str, ...]],
        summaries: Mapping[str, str],
        renderer: Renderer,
    ) -> None:
        self._trail, self._services, self._renderer = trail, services, renderer
        self._summaries = summaries

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /audit"""
        given = request.query
        asked = AuditFilter(**{name: given.get(name, "").strip() for name in _NAMES})
        context = AuditContext(asked, services=self._services())
        try:
            wanted = AuditQuery(
                asked.service or None, asked.who or None, asked.result or None, _time("start", asked.start),
                _time("end", asked.end), audit_place(asked.cursor) if asked.cursor else None,
            )  # fmt: skip
        except HelmError as error:
            return self._renderer.show(request, "audit.html", replace(context, fault=error.sentence))
        found = await run_while_connected(request, self._trail.page(wanted, PAGE_ENTRIES))
        rows = tuple(audit_row(entry, self._summaries) for entry in found.entries)
        older = asked.link(cursor=found.more) if found.more else ""
        shown = replace(context, rows=rows, older=older, trouble=found.trouble)
        return self._renderer.show(request, "audit.html", shown)


def audit_row(entry: AuditEntry, summaries: Mapping[str, str]) -> AuditRow:
    """Return how ENTRY is shown; SUMMARIES say what requests are for."""
    change, origin = entry.change, entry.change.origin
    tone, icon = _TONES.get(change.result, ("off", "circle-dashed"))
    place = ", ".join(part for part in (origin.via, origin.address, origin.unit) if part)
    said = "; ".join(filter(None, (change.reason, change.detail)))
    summary = summaries.get(change.action)
    what = summary or change.action[:1].upper() + change.action[1:]
    return AuditRow(entry, tone, icon, what, change.action if summary else "", place, said)


def _time(name: str, text: str) -> int | None:
    """Return microseconds since 1970. Raises UsageError."""
    return realtime_of(utc_timestamp(name, text)) if text else None
