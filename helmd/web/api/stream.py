"""Live log entries: as server-sent events (WHATWG HTML, 9.2), and over a WebSocket (RFC 6455)."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing

from aiohttp import WSMsgType, web

from helmd.model.errors import DeniedError, HelmError, UsageError
from helmd.model.urls import is_host_of
from helmd.operations.logs.feed import Feed, FeedBatch, FeedUpdate, Skipped
from helmd.operations.logs.following import MAX_TAIL, Start, follow_entries
from helmd.operations.logs.reader import LogReader
from helmd.web.api.log_query import filter_of, number, parameters
from helmd.web.http.cancellation import cancel_and_wait, run_while_authorized

HEARTBEAT_SECONDS = 15.0
"""Interval of heartbeats in seconds: Nexus closes a connection after 30 s without a byte."""
RETRY_MILLISECONDS = 2000
_WRITE_BYTES = 64 << 10
STREAM_HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
_TRY_AGAIN_LATER = 1013
_POLICY_VIOLATION = 1008


class Streams:
    """The handlers. HEARTBEAT is in seconds."""

    def __init__(self, feed: Feed, reader: LogReader, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._feed = feed
        self._reader = reader
        self._heartbeat = heartbeat

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /api/logs/stream"""
        source = self._source(request)
        response = web.StreamResponse(headers=STREAM_HEADERS)
        if request.method == "HEAD":
            return response
        async with aclosing(source):
            # Errors before the first event get an error response.
            first = await anext(source, None)
            if first is None:
                return response
            await response.prepare(request)
            try:
                await response.write(f"retry: {RETRY_MILLISECONDS}\n".encode() + mark_frame(first.reached))
                await run_while_authorized(request, self._send_events(response, source))
            except HelmError as error:
                await response.write(event_frame("end", {"code": error.code, "error": error.sentence}))
        return response

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """GET /api/logs/ws"""
        _check_origin(request)
        source = self._source(request)
        response = web.WebSocketResponse(compress=False, max_msg_size=4096, timeout=0.3)
        if request.method == "HEAD" or not response.can_prepare(request).ok:
            raise UsageError("this is for WebSockets alone", hint="GET /api/logs/stream gives the same as events.")
        async with aclosing(source):
            first = await anext(source, None)
            await response.prepare(request)
            code, said = 1001, b""
            try:
                if first is not None:
                    await run_while_authorized(request, self._converse(response, source))
            except HelmError as error:
                await response.send_json({"type": "end", "code": error.code, "error": error.sentence})
                code = _TRY_AGAIN_LATER if error.code in ("store", "busy") else _POLICY_VIOLATION
                said = error.code.encode()
            await response.close(code=code, message=said)
        return response

    def _source(self, request: web.Request) -> AsyncGenerator[FeedUpdate, None]:
        given = parameters(request)
        wanted = filter_of(request, given)
        return follow_entries(self._feed, self._reader, wanted, stream_start(request, given), self._heartbeat)

    async def _send_events(self, response: web.StreamResponse, source: AsyncGenerator[FeedUpdate, None]) -> None:
        async for update, silent in self._timed(source):
            if update.skipped is not None:
                await response.write(event_frame("skipped", skipped_json(update.skipped)))
            for frames in frames_of(update.batches):
                await response.write(frames)
            if silent:
                # An event without data sets only where a client resumes: what was before need not be searched again.
                await response.write(b": heartbeat\n" + mark_frame(update.reached))

    async def _converse(self, response: web.WebSocketResponse, source: AsyncGenerator[FeedUpdate, None]) -> None:
        """Send until the client closes the connection; its other messages are ignored."""
        sending = asyncio.ensure_future(self._send_messages(response, source))
        listening = asyncio.ensure_future(_listen(response))
        try:
            done, _ = await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel_and_wait(sending, listening)

    async def _send_messages(self, response: web.WebSocketResponse, source: AsyncGenerator[FeedUpdate, None]) -> None:
        async for update, silent in self._timed(source):
            if update.skipped is not None:
                await response.send_json({"type": "skipped", **skipped_json(update.skipped)})
            for batch in update.batches:
                for line in batch.lines:
                    await response.send_str(f'{{"type": "log", "id": {line.id}, "entry": {line.text.decode()}}}')
            if silent:
                await response.send_json({"type": "heartbeat", "id": update.reached})

    async def _timed(self, source: AsyncGenerator[FeedUpdate, None]) -> AsyncGenerator[tuple[FeedUpdate, bool], None]:
        """Yield each update, and whether it is empty and a heartbeat is due."""
        said = time.monotonic()
        async for update in source:
            now = time.monotonic()
            silent = not update.batches and update.skipped is None
            if not silent or now - said >= self._heartbeat / 2:
                said = now
                yield update, silent


def stream_start(request: web.Request, given: Mapping[str, str]) -> Start:
    """Return where a follower begins, by the request's parameters and headers. Raises UsageError."""
    last = request.headers.get("Last-Event-ID") or given.get("last_event_id", "")
    since = number({"last_event_id": last}, "last_event_id", -1)
    return Start(since if since >= 0 else None, min(number(dict(given), "tail", 0), MAX_TAIL))


def frames_of(batches: tuple[FeedBatch, ...]) -> Iterator[bytes]:
    """Yield frames of BATCHES, combined so that small ones need few writes, but bounded for slow readers."""
    some: list[bytes] = []
    size = 0
    for batch in batches:
        if not batch.frames:
            # Encoded once for all followers that get this batch.
            batch.frames = b"".join([b"event: log\nid: %d\ndata: %b\n\n" % line for line in batch.lines])
        if some and size + len(batch.frames) > _WRITE_BYTES:
            yield b"".join(some)
            some, size = [], 0
        some.append(batch.frames)
        size += len(batch.frames)
    if some:
        yield some[0] if len(some) == 1 else b"".join(some)


def mark_frame(reached: int) -> bytes:
    """Return an event without data: the id from which a client resumes."""
    return b"id: %d\n\n" % reached


def event_frame(kind: str, body: object) -> bytes:
    """Return one event; JSON has no line breaks."""
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n".encode()


def skipped_json(skipped: Skipped) -> dict[str, object]:
    """Return the data of the event ``skipped``."""
    body: dict[str, object] = {"from_id": skipped.first, "to_id": skipped.last, "count": skipped.count}
    return body | {"at_most": True} if skipped.at_most else body


async def _listen(response: web.WebSocketResponse) -> None:
    while (await response.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        pass


def _check_origin(request: web.Request) -> None:
    """Check the origin: pages of any origin can open a WebSocket with credentials (RFC 6455, section 10.2)."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    if not any(is_host_of(host, origin) for host in (request.host, request.headers.get("X-Forwarded-Host", ""))):
        raise DeniedError("a page of another origin may not follow the log")
