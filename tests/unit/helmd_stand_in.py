"""A helmd of which a test says what it has and when it fails: its log routes on a real unix socket, over a list.

Filters, order and shapes are those of the API; tests/store/test_helmctl_logs.py asks the real one the same.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from helmd.cli.logs import store
from helmd.model.errors import UsageError
from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter, PageCursor, log_filter_of, page_cursor_of
from helmd.model.logs.matching import matches
from tests.waiting import WITHIN

Row = tuple[int, LogRow]
BEGAN = datetime(2026, 11, 24, 12, tzinfo=UTC)


def row(number: int, message: str | None = None, service: str = "core", **more: Any) -> Row:
    """Row NUMBER, a second after the one before."""
    instant = more.pop("timestamp", BEGAN + timedelta(seconds=number))
    text = f"line {number}" if message is None else message
    return number, LogRow(instant, service, more.pop("level", "INFO"), text, process_id=77, **more)


def document(entry: Row) -> dict[str, Any]:
    return {"id": entry[0], **entry[1]._asdict(), "timestamp": entry[1].timestamp.isoformat()}


@dataclass
class StandIn:
    """What it has and does. Change ``rows`` by `add`."""

    socket: Path
    rows: list[Row] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Paths and queries of the requests."""
    resumed_at: list[int] = field(default_factory=list)
    """What followers named as the last event they had."""
    page_limit: int = 1000
    """Entries in a page at most, as when the time for a search is over."""
    export_ends_after: list[int] = field(default_factory=list)
    """After how many rows each of the next exports breaks off."""
    exporting: int = 0
    """Exports under way."""
    failure: Callable[[], web.Response] | None = None
    """What every route answers instead."""
    skipped: list[dict[str, int]] = field(default_factory=list)
    """What the next follower is sent first."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _runner: web.AppRunner | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, *rows: Row) -> None:
        self.rows += rows
        self._loop.call_soon_threadsafe(self._changed.set)

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(WITHIN)

    def stop(self) -> None:
        """End it, breaking off its followers; rows stay."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WITHIN)

    async def _start(self) -> None:
        made = web.Application(middlewares=[self._watched])
        made.router.add_get("/api/logs", self._page)
        made.router.add_get("/api/logs/export", self._export)
        made.router.add_get("/api/logs/stream", self._stream)
        self._runner = web.AppRunner(made)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket), shutdown_timeout=0.05).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self.socket.unlink(missing_ok=True)

    @web.middleware
    async def _watched(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if self.failure is not None:
            return self.failure()
        try:
            answer: web.StreamResponse = await handler(request)
        except UsageError as error:
            return web.json_response({"code": error.code, "detail": error.sentence}, status=400)
        return answer

    def _wanted(self, request: web.Request) -> LogFilter:
        return log_filter_of(request.query)

    async def _page(self, request: web.Request) -> web.Response:
        wanted, limit = self._wanted(request), min(int(request.query["limit"]), self.page_limit)
        before = page_cursor_of(request.query["cursor"]) if "cursor" in request.query else None
        found = sorted(
            ((one.timestamp, number, one) for number, one in self.rows if matches(wanted, one)), reverse=True
        )
        ahead = [one for one in found if before is None or one[:2] < tuple(before)]
        page = [document((number, one)) for _, number, one in ahead[:limit]]
        more = str(PageCursor(*ahead[limit - 1][:2])) if len(ahead) > limit else None
        total = None if request.query.get("total") == "false" else len(found)
        return web.json_response({"logs": page, "total": total, "limit": limit, "offset": 0, "next_cursor": more})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        wanted = self._wanted(request)
        newest_first = {"asc": False, "desc": True}[request.query["order"]]
        found = [(one.timestamp, number, one) for number, one in self.rows if matches(wanted, one)]
        found.sort(reverse=newest_first)
        assert request.query["format"] == "ndjson"
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        limit = self.export_ends_after.pop(0) if self.export_ends_after else None
        self.exporting += 1
        try:
            return await self._send(request, answer, found, limit)
        finally:
            self.exporting -= 1

    async def _send(
        self,
        request: web.Request,
        answer: web.StreamResponse,
        found: list[tuple[datetime, int, LogRow]],
        limit: int | None,
    ) -> web.StreamResponse:
        for count, (_, number, one) in enumerate(found):
            if count == limit:
                assert request.transport is not None
                # In the middle of a line, and without the last chunk.
                await answer.write(b'{"id": 1, "ti')
                request.transport.close()
                return answer
            await answer.write(json.dumps(document((number, one))).encode() + b"\n")
        await answer.write_eof()
        return answer

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        wanted, last = self._wanted(request), int(request.headers["Last-Event-ID"])
        self.resumed_at.append(last)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"retry: 2000\n: heartbeat\n\n")
        while self.skipped:
            await answer.write(b"event: skipped\ndata: %s\n\n" % json.dumps(self.skipped.pop()).encode())
        while True:
            self._changed.clear()
            for number, one in sorted(self.rows):
                if number > last:
                    last = number
                    if matches(wanted, one):
                        notified = json.dumps(document((number, one))).encode()
                        await answer.write(b"id: %d\nevent: log\ndata: %s\n\n" % (number, notified))
            await self._changed.wait()


async def _rest() -> None:
    """Let what a broken connection left come to its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


LIMITS = ("_ANSWER_SECONDS", "_SEARCH_SECONDS", "_STREAM_SECONDS", "_NOTIFY_AFTER")
"""Limits of `helmd.cli.logs.store` that a stand-in would exceed on a busy machine."""


@contextmanager
def stand_in(directory: Path) -> Iterator[StandIn]:
    """Yield a stand-in that runs, in a thread of its own, and may be slow; its socket is in DIRECTORY."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    directory.mkdir(parents=True, exist_ok=True)
    helmd = StandIn(directory / "helm.sock", _loop=loop)
    helmd.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for limit in LIMITS:
                patch.setattr(store, limit, WITHIN)
            yield helmd
    finally:
        helmd.stop()
        asyncio.run_coroutine_threadsafe(_rest(), loop).result(WITHIN)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WITHIN)
        loop.close()
