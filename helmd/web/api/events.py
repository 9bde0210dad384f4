"""A stream of server-sent events for a browser (WHATWG HTML, 9.2), with several topics, filtered by the caller's
access.

A browser has six connections to a host, so a page can't have one stream for each topic.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

from aiohttp import web

from helmd.model.api.events import TOPIC_ROLES, AuditEvent, JobsEvent, StatusEvent, Topic, TopicTrouble
from helmd.model.api.jobs import JobReply
from helmd.model.api.json_codec import to_json
from helmd.model.errors import DeniedError, HelmError, UsageError
from helmd.model.identity.audit import AuditEntry
from helmd.model.printable import printable
from helmd.model.units.status import Status
from helmd.operations.logs.feed import Feed
from helmd.operations.logs.following import Start, follow_entries
from helmd.operations.logs.reader import LogReader
from helmd.web.api.log_query import filter_of, parameters
from helmd.web.api.sources import StatusSource
from helmd.web.api.stream import (
    RETRY_MILLISECONDS,
    STREAM_HEADERS,
    event_frame,
    frames_of,
    mark_frame,
    skipped_json,
    stream_start,
)
from helmd.web.auth.roles import Identity, Role
from helmd.web.http.cancellation import cancel_and_wait, run_while_authorized

BEAT_SECONDS = 4.0
"""The interval of heartbeats of an event stream: a page without data for 10 s shows that it is stale."""
_COLLECT_SECONDS = 0.2
"""Seconds for which changes of states are collected."""
_JOBS_SECONDS = 1.0
"""Interval in seconds in which jobs are polled for a reader."""
_ABOUT_ALL = frozenset({"jobs", "audit"})
"""Topics that can't be restricted to some services."""
_AGAIN_SECONDS = 3.0
"""Delay in seconds after which a failed topic is tried again."""


class ChangeSignal:
    """Notifies tasks that wait for the next change."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Notify the waiting tasks of a change."""
        self._next.set()
        self._next = asyncio.Event()

    def upcoming(self) -> asyncio.Event:
        """Return the event that the next change sets.

        To be called before reading states, so that no change is missed.
        """
        return self._next


class Events:
    """The handler. CHANGED is notified of changes of states; JOBS gets all jobs; AUDIT the newest records of the audit
    trail, then those that come; HEARTBEAT is in seconds.
    """

    def __init__(
        self,
        monitor: StatusSource,
        changed: ChangeSignal,
        feed: Feed,
        reader: LogReader,
        jobs: Callable[[], Awaitable[tuple[JobReply, ...]]],
        audit: Callable[[], AsyncGenerator[tuple[AuditEntry, ...], None]],
        heartbeat: float = BEAT_SECONDS,
    ) -> None:
        self._monitor = monitor
        self._changed = changed
        self._feed = feed
        self._reader = reader
        self._jobs = jobs
        self._audit = audit
        self._heartbeat = heartbeat

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /api/events"""
        given = parameters(request)
        topics = topics_of(given.get("topics", ""), request["identity"])
        wanted, start = filter_of(request, given), stream_start(request, given)
        response = web.StreamResponse(headers=STREAM_HEADERS)
        if request.method == "HEAD":
            return response
        await response.prepare(request)
        writer = _Writer(response)
        await writer.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())

        async def logs() -> None:
            nonlocal start
            # The newest entries, if requested, come with the second update.
            resumable = not start.asks_newest
            async with aclosing(follow_entries(self._feed, self._reader, wanted, start, self._heartbeat)) as source:
                async for update in source:
                    if update.skipped is not None:
                        await writer.write(event_frame("skipped", skipped_json(update.skipped)))
                    for frames in frames_of(update.batches):
                        await writer.write(frames)
                    if resumable and (start.since is None or update.reached > start.since):
                        # An event without data sets only where a client resumes.
                        await writer.write(mark_frame(update.reached))
                        start = Start(update.reached)
                    resumable = True

        async def statuses() -> None:
            await self._send_statuses(writer)

        async def jobs() -> None:
            await self._send_jobs(writer)

        async def audit() -> None:
            await self._send_audit(writer)

        work: Mapping[Topic, Callable[[], Awaitable[None]]] = {
            "status": statuses,
            "logs": logs,
            "jobs": jobs,
            "audit": audit,
        }
        try:
            await run_while_authorized(request, _all(writer, {topic: work[topic] for topic in topics}, self._heartbeat))
        except HelmError as error:
            await writer.write(event_frame("end", to_json(TopicTrouble(None, error.code, error.sentence))))
        return response

    async def _send_statuses(self, writer: "_Writer") -> None:
        """Send all states, then changed ones."""
        before: Mapping[str, Status] = {}
        first = True
        while True:
            # Cleared before reading, since states may change again while a slow reader is written to.
            changed = self._changed.upcoming()
            now = self._monitor.statuses()
            changes = {name: status for name, status in now.items() if before.get(name) != status}
            removed = tuple(name for name in before if name not in now)
            if changes or removed or first:
                await writer.write(event_frame("status", to_json(StatusEvent(changes, removed))))
            before, first = now, False
            await changed.wait()
            await asyncio.sleep(_COLLECT_SECONDS)

    async def _send_jobs(self, writer: "_Writer") -> None:
        """Send all jobs, then changed ones."""
        before: dict[str, JobReply] | None = None
        while True:
            now = {job.id: job for job in await self._jobs()}
            changes = tuple(job for id, job in now.items() if before is None or before.get(id) != job)
            removed = tuple(id for id in before or () if id not in now)
            if changes or removed or before is None:
                await writer.write(event_frame("jobs", to_json(JobsEvent(changes, removed))))
            before = now
            await asyncio.sleep(_JOBS_SECONDS)

    async def _send_audit(self, writer: "_Writer") -> None:
        """Send the newest records, then new ones."""
        first = True
        async with aclosing(self._audit()) as source:
            async for entries in source:
                event = AuditEvent(tuple(entry.body for entry in entries), first)
                await writer.write(event_frame("audit", to_json(event)))
                first = False


class _Writer:
    """Writes whole frames: several topics share a response."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._turn = asyncio.Lock()

    async def write(self, frames: bytes) -> None:
        async with self._turn:
            await self._response.write(frames)


def topics_of(text: str, caller: Identity) -> tuple[Topic, ...]:
    """Return the topics that TEXT names, by default the states alone.

    Raises UsageError, and DeniedError for one that is not for CALLER.
    """
    names = [name.strip() for name in text.split(",") if name.strip()] or ["status"]
    found: list[Topic] = []
    for name in names:
        topic = next((known for known in TOPIC_ROLES if known == name), None)
        if topic is None:
            raise UsageError(f"topics: {printable(name, 40)!r} is not one of {', '.join(TOPIC_ROLES)}")
        if not caller.may(Role(TOPIC_ROLES[topic])):
            raise DeniedError(
                f"topics: {topic} requires role '{TOPIC_ROLES[topic]}'; {caller.name} has '{caller.role}'"
            )
        if topic in _ABOUT_ALL and caller.services is not None:
            raise DeniedError(f"topics: {caller.name} is confined to some services, and {topic} is not")
        if topic not in found:
            found.append(topic)
    return tuple(found)


async def _all(writer: _Writer, work: Mapping[Topic, Callable[[], Awaitable[None]]], heartbeat: float) -> None:
    """Run the WORK of all topics until one of them ends, as that of the log does when helmd stops."""
    tasks = [asyncio.ensure_future(_repeated(writer, topic, each)) for topic, each in work.items()]
    tasks.append(asyncio.ensure_future(_beat(writer, heartbeat)))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancel_and_wait(*tasks)


async def _repeated(writer: _Writer, topic: Topic, work: Callable[[], Awaitable[None]]) -> None:
    """Run WORK, and repeat it after a failure, of which the reader is notified. Other topics are not affected."""
    while True:
        try:
            return await work()
        except UsageError:
            raise
        except HelmError as error:
            await writer.write(event_frame("unavailable", to_json(TopicTrouble(topic, error.code, error.sentence))))
        await asyncio.sleep(_AGAIN_SECONDS)


async def _beat(writer: _Writer, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await writer.write(b": heartbeat\n\n")
