"""The audit trail: who changed what, or tried to."""

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from helmd.model.api.audit import DEFAULT_ENTRIES, MOST_ENTRIES, AuditPage
from helmd.model.identity.audit import AuditEntry
from helmd.model.logs.entry import realtime_of
from helmd.model.logs.filter import utc_timestamp
from helmd.operations.logs.audit import AuditQuery
from helmd.web.api.log_query import number, parameters
from helmd.web.http.problems import json_response

Read = Callable[[AuditQuery, int], list[AuditEntry]]


class Audit:
    """The handlers. READ gets entries; it blocks."""

    def __init__(self, read: Read) -> None:
        self._read = read
        # Reading the journal is work for a processor; one reader at a time is enough.
        self._turn = asyncio.Lock()

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
        )
        async with self._turn:
            found = await asyncio.to_thread(self._read, wanted, limit)
        return json_response(AuditPage(tuple(entry.body for entry in found), limit))


def _time(given: Mapping[str, str], name: str) -> int | None:
    """Microseconds since 1970. Raises UsageError."""
    return realtime_of(utc_timestamp(name, given[name])) if given.get(name) else None
