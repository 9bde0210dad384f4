"""Jobs and their results, and the log of a job as server-sent events (WHATWG HTML, 9.2)."""

import asyncio
import builtins
import json
import time
from http import HTTPStatus

from aiohttp import web

from helmd.model.api.jobs import JobLineReply, JobListReply
from helmd.model.api.json_codec import to_json
from helmd.model.errors import HelmError
from helmd.model.jobs.codec import count_events, logged_events
from helmd.model.jobs.record import JobLine
from helmd.model.jobs.replies import step_reply, time_of
from helmd.operations.jobs.engine import JobEngine
from helmd.web.api.control import requester_of
from helmd.web.api.log_query import number
from helmd.web.api.stream import HEARTBEAT_SECONDS, RETRY_MILLISECONDS, STREAM_HEADERS
from helmd.web.auth.audit import note_change
from helmd.web.http.cancellation import run_while_authorized, run_while_connected
from helmd.web.http.problems import json_response

_LOOK_SECONDS, _STATE_SECONDS = 0.2, 1.0
"""Intervals in seconds in which a follower polls for new events, and, while there are none, for the job's state."""


class JobHandlers:
    """The handlers. HEARTBEAT is in seconds."""

    def __init__(self, engine: JobEngine, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._engine = engine
        self._heartbeat = heartbeat

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/jobs"""
        views = await self._engine.jobs()
        return json_response(JobListReply(tuple(view.reply for view in views)))

    async def job(self, request: web.Request) -> web.Response:
        """GET /api/jobs/{id}"""
        return json_response((await self._engine.job(request.match_info["id"])).reply)

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /api/jobs/{id}/cancel"""
        job_id = request.match_info["id"]
        note_change(request, detail=f"job {job_id}")
        cancelling = self._engine.cancel(job_id, requester_of(request))
        return json_response((await run_while_connected(request, cancelling)).reply)

    async def log(self, request: web.Request) -> web.StreamResponse:
        """GET /api/jobs/{id}/log"""
        job_id = request.match_info["id"]
        after = number({"last_event_id": request.headers.get("Last-Event-ID", "")}, "last_event_id", 0)
        view = await self._engine.job(job_id)
        if view.ended and after > count_events(await asyncio.to_thread(self._engine.directory.events, job_id)):
            # So that a browser's EventSource does not connect again.
            return web.Response(status=HTTPStatus.NO_CONTENT)
        response = web.StreamResponse(headers=STREAM_HEADERS)
        if request.method == "HEAD":
            return response
        await response.prepare(request)
        await response.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
        try:
            await run_while_authorized(request, self._send(response, job_id, after))
        except HelmError as error:
            await response.write(
                b"event: error\ndata: " + json.dumps({"code": error.code, "error": error.sentence}).encode() + b"\n\n"
            )
        return response

    async def _send(self, response: web.StreamResponse, job_id: str, after: int) -> None:
        """Send events after number AFTER, until the job has ended and all are sent."""
        looked = sent_at = time.monotonic()
        size = -1
        while True:
            # Read first, so that all events before its end are sent.
            view = await self._engine.job(job_id) if size < 0 or time.monotonic() - looked >= _STATE_SECONDS else None
            looked = time.monotonic() if view is not None else looked
            content = await asyncio.to_thread(self._engine.directory.events, job_id)
            if len(content) != size:
                size = len(content)
                if frames := _frames(content, after):
                    await response.write(b"".join(frames))
                    sent_at = time.monotonic()
                after = max(after, count_events(content))
            if view is not None and view.ended:
                await response.write(_frame("end", view.reply, after + 1))
                return
            if time.monotonic() - sent_at >= self._heartbeat:
                await response.write(b":\n\n")
                sent_at = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)


def _frames(content: bytes, after: int) -> builtins.list[bytes]:
    """Return the events of a log after number AFTER."""
    found = []
    for event_number, event in logged_events(content):
        if event_number <= after:
            continue
        if isinstance(event, JobLine):
            found.append(_frame("log", JobLineReply(time_of(event.at), event.text), event_number))
        else:
            found.append(_frame("step", step_reply(event), event_number))
    return found


def _frame(kind: str, body: object, event_number: int | None = None) -> bytes:
    """Return one server-sent event; JSON has no line breaks."""
    numbered = "" if event_number is None else f"id: {event_number}\n"
    return f"event: {kind}\n{numbered}data: {json.dumps(to_json(body))}\n\n".encode()
