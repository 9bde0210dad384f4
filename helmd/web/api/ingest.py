"""Ingestion of log entries and measurements posted by services."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol, TypeVar

from aiohttp import web

from helmd.model.api.ingest import IngestReply
from helmd.model.errors import DeniedError
from helmd.model.ingest.body import Body, idempotency_key, read_body
from helmd.model.ingest.logs import ReadMessage, log_rows, plain_reading
from helmd.model.ingest.metrics import Measurement, measurements
from helmd.model.ingest.token_bucket import Rates
from helmd.model.logs.entry import LogRow
from helmd.operations.logs.posted import PostedLogs
from helmd.web.auth.roles import Identity
from helmd.web.http.body import body_size, receive_body
from helmd.web.http.memory_budget import MemoryBudget
from helmd.web.http.problems import RequestRefusedError, json_response

MAX_BODY = 16 << 20
"""Maximum size of a request's body in bytes (docs/api.md, "Posting")."""
_SMALL = 64 << 10
"""Maximum size in bytes of a body that is parsed in the event loop; larger ones are parsed in a thread, one at a
time.
"""
_SMALL_BUDGET, _LARGE_BUDGET = 32 << 20, 96 << 20
_ENTRY = 500
"""Estimated memory of an entry besides its text, in bytes."""
_LONGEST_PAUSE = 3.0
"""Time limit in seconds. `helm_logger` times out after five seconds, at which older copies drop the batch."""

Item = TypeVar("Item")


class TakesMetrics(Protocol):
    """Stores measurements; implemented by `PostedMetrics`."""

    async def post(self, service: str, measured: Sequence[Measurement], key: str | None, size: int) -> int:
        """Store the measurements of a SERVICE; return their number, or that of the first batch with KEY."""


class Intake:
    """The handlers. ``measured`` takes measurements; ``retention_of`` says how many days a service's
    entries are kept; ``read`` parses messages; ``health_paths`` are what Helm requests of a service.
    """

    def __init__(
        self,
        posted: PostedLogs,
        measured: "TakesMetrics",
        rates: Rates,
        retention_of: Callable[[str], int],
        read: ReadMessage = plain_reading,
        health_paths: Callable[[str], Collection[str]] = lambda _: (),
    ) -> None:
        self._posted = posted
        self._measured = measured
        self._rates = rates
        self._retention_of = retention_of
        self._read = read
        self._health_paths = health_paths
        self._small, self._large = MemoryBudget(_SMALL_BUDGET), MemoryBudget(_LARGE_BUDGET)
        self._parsing = asyncio.Lock()

    async def logs(self, request: web.Request) -> web.Response:
        """POST /api/logs/ingest"""

        def rows(body: bytes) -> tuple[str, list[LogRow]]:
            given = self._given(request, body, "logs", "message")
            name = given.service_name
            now, days, paths = datetime.now(UTC), self._retention_of(name), self._health_paths(name)
            return name, log_rows(given, now, days, self._read, paths)

        key = _key(request)
        async with self._body(request) as held:
            service, found = await self._parsed(held, rows)
            await self._within_rate(request, len(found), key)
            count = await self._posted.post(service, found, key, held.size) if found else 0
        return json_response(IngestReply(True, count, f"Successfully ingested {count} log entries"))

    async def metrics(self, request: web.Request) -> web.Response:
        """POST /api/metrics/ingest"""

        def values(body: bytes) -> tuple[str, list[Measurement]]:
            given = self._given(request, body, "metrics", "name")
            return given.service_name, measurements(given, datetime.now(UTC))

        key = _key(request)
        async with self._body(request) as held:
            service, found = await self._parsed(held, values)
            await self._within_rate(request, len(found), key)
            count = await self._measured.post(service, found, key, held.size) if found else 0
        return json_response(IngestReply(True, count, f"Successfully ingested {count} metrics"))

    def _given(self, request: web.Request, body: bytes, listed: str, sign: str) -> Body:
        given = read_body(body, listed, sign)
        caller: Identity = request["identity"]
        other = caller.service is not None and caller.service != given.service_name
        if other or (caller.services is not None and given.service_name not in caller.services):
            raise DeniedError(f"{caller.name} may not post as '{given.service_name}'")
        return given

    @asynccontextmanager
    async def _body(self, request: web.Request) -> AsyncIterator["_Held"]:
        """Yield the body, and the estimated memory of it and its entries."""
        size = body_size(request, MAX_BODY)
        held = _Held(self._small if size <= _SMALL else self._large, size)
        await held.budget.acquire(size)
        try:
            held.body = await receive_body(request, MAX_BODY)
            yield held
        finally:
            held.budget.release(size, held.overdraw)

    async def _parsed(self, held: "_Held", make: Callable[[bytes], tuple[str, list[Item]]]) -> tuple[str, list[Item]]:
        body, held.body = held.body, b""
        if len(body) <= _SMALL:
            service, found = make(body)
        else:
            async with self._parsing:
                service, found = await asyncio.to_thread(make, body)
        held.overdraw = _ENTRY * len(found)
        held.budget.overdraw(held.overdraw)
        return service, found

    async def _within_rate(self, request: web.Request, entries: int, key: str | None) -> None:
        """Wait while the caller exceeds its rate. A client with a KEY is refused instead, and retries.

        The limit is per caller, not per service named in the body: an admin's program that posts for many services has
        one share, and no caller can use up another one's.
        """
        caller: Identity = request["identity"]
        pause = self._rates.pause(caller.key, time.monotonic())
        if pause and key is not None:
            seconds = math.ceil(pause)
            sentence = f"{caller.name} posts more than it may; try again in {seconds} s"
            raise RequestRefusedError(
                HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", sentence, {"Retry-After": str(seconds)}
            )
        self._rates.take(caller.key, entries, time.monotonic())
        if pause:
            await asyncio.sleep(min(pause, _LONGEST_PAUSE))


class _Held:
    """The resources held by a request in progress."""

    def __init__(self, budget: MemoryBudget, size: int) -> None:
        self.budget = budget
        self.size = size
        self.body = b""
        self.overdraw = 0


def _key(request: web.Request) -> str | None:
    """Return the Idempotency-Key. Raises UsageError."""
    given = request.headers.getall("Idempotency-Key", ())
    if not given:
        return None
    return idempotency_key(given[0] if len(given) == 1 else "")
