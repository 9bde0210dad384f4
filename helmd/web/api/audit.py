"""The audit trail: who changed what, or tried to."""

from collections.abc import Mapping

from aiohttp import web

from helmd.model.api.audit import DEFAULT_ENTRIES, MOST_ENTRIES, AuditPage
from helmd.model.logs.entry import realtime_of
from helmd.model.logs.filter import utc_timestamp
from helmd.operations.logs.audit import AuditQuery, audit_place
from helmd.operations.logs.audit_store import AuditPages
from helmd.web.api.log_query import number, parameters
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response


class Audit:
    """The handlers."""

    def __init__(self, trail: AuditPages) -> None:
        self._trail = trail

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/audit"""
        given = parameters(request)
        limit = min(number(given, "limit", DEFAULT_ENTRIES, least=1), MOST_ENTRIES)
        wanted = AuditQuery(
            given.get("service") or None,
            given.get("who") or None,
            given.get("result") or None,
            _time(given, "start_time"),
            _time(given, "end_time"),
            audit_place(given["cursor"]) if given.get("cursor") else None,
        )
        found = await run_while_connected(request, self._trail.page(wanted, limit))
        bodies = tuple(entry.body for entry in found.entries)
        return json_response(AuditPage(bodies, limit, found.more or None, found.trouble or None))


def _time(given: Mapping[str, str], name: str) -> int | None:
    """Return microseconds since 1970. Raises UsageError."""
    return realtime_of(utc_timestamp(name, given[name])) if given.get(name) else None
