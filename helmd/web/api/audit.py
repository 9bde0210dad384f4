"""The audit trail: who changed what, or tried to."""

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from helmd.model.api.audit import DEFAULT_ENTRIES, MOST_ENTRIES, AuditPage
from helmd.model.errors import HelmError
from helmd.model.logs.entry import realtime_of
from helmd.model.logs.filter import utc_timestamp
from helmd.operations.logs.audit import AuditQuery, JournalPart
from helmd.operations.logs.audit_store import stored_entries
from helmd.operations.logs.reader import LogReader
from helmd.web.api.log_query import number, parameters
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response

Read = Callable[[AuditQuery, int], JournalPart]


class Audit:
    """The handlers. READ gets what the journal has, and blocks; READER has what is older."""

    def __init__(self, read: Read, reader: LogReader) -> None:
        self._read = read
        self._reader = reader
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
            found, since = await asyncio.to_thread(self._read, wanted, limit)
        trouble = None
        if len(found) < limit:
            try:
                reading = stored_entries(self._reader, wanted, since, limit - len(found))
                found = [*found, *await run_while_connected(request, reading)]
                # What systemd did without Helm may be older than what the store has.
                found.sort(key=lambda entry: entry.time, reverse=True)
            except HelmError as error:
                trouble = error.sentence
        return json_response(AuditPage(tuple(entry.body for entry in found), limit, trouble))


def _time(given: Mapping[str, str], name: str) -> int | None:
    """Microseconds since 1970. Raises UsageError."""
    return realtime_of(utc_timestamp(name, given[name])) if given.get(name) else None
