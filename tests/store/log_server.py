"""helmd's log routes on a real socket, with a real PostgreSQL and tokens of a stand-in for Core."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from helmd.health.listeners import holder_of
from helmd.model.api.jobs import JobReply
from helmd.model.config.settings import Settings
from helmd.model.identity.audit import AuditEntry
from helmd.model.identity.peer import Peer, Place
from helmd.model.logs.entry import LogRow
from helmd.model.suite.service import Registry, Service
from helmd.operations.logs.audit import AuditQuery, JournalPart
from helmd.operations.logs.audit_store import AuditPages
from helmd.operations.logs.feed import Feed
from helmd.operations.logs.reader import CONNECTIONS, LogReader
from helmd.operations.monitoring.history import MetricHistory
from helmd.operations.monitoring.host_state import HostState
from helmd.operations.monitoring.updates import PendingUpdates
from helmd.store.ingest.logs import Appended, Appender
from helmd.store.logs.listen import Listener
from helmd.store.session import Pool, connect
from helmd.web.api.audit import Audit
from helmd.web.api.details import Details
from helmd.web.api.events import ChangeSignal
from helmd.web.api.events import Events as EventsHandler
from helmd.web.api.logs import Logs
from helmd.web.api.stream import Streams
from helmd.web.auth.identity import Callers
from helmd.web.documents import with_documents
from helmd.web.routes import audit_routes, detail_routes, event_routes, log_routes
from helmd.web.server import HttpServer, application
from tests.fakes import Statuses
from tests.free_ports import free_port
from tests.unit.core_stand_in import USER, StandIn, signed, standing_in
from tests.waiting import WITHIN

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)

SESSION = Peer(Place.HERE, "127.0.0.1", "session-3.scope")
"""A program that may change things."""

SLOW = r"^(x*)(x*)(x*)(x+)\1\2\3\4y$"
HARD = "x" * 301 + "y"
"""Takes PostgreSQL very long to hold against SLOW, since it is odd."""


def token(level: str) -> str:
    given = {"preferred_username": level, "permission_level": level, "jti": level, "exp": int(time.time()) + 3600}
    return signed({**USER, **given})


def rows(count: int, service: str = "core", level: str = "INFO", text: str = "line") -> list[LogRow]:
    return [LogRow(NOW + timedelta(milliseconds=n), service, level, f"{text} {n}") for n in range(count)]


@dataclass
class Served:
    conninfo: str
    port: int
    unix_socket: Path
    session: aiohttp.ClientSession
    feed: Feed
    core: StandIn
    running: "asyncio.Task[None]"
    known: Statuses
    changed: ChangeSignal
    jobs: list[JobReply]
    records: "asyncio.Queue[tuple[AuditEntry, ...]]"
    journal: list[JournalPart]
    """The last one is what the journal has of the audit trail."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def get(self, path: str, role: str | None = "admin", **given: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token(role)}"} if role else {}
        async with self.session.get(self.url(path), params=given, headers=headers) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if answer.content_type.endswith(("/json", "+json")) else body

    async def append(self, some: Sequence[LogRow]) -> Appended:
        connection = await connect(self.conninfo, "test-append", None)
        try:
            async with connection.transaction():
                return await Appender(lambda _: 90).append(connection, some)
        finally:
            await connection.close()


@dataclass
class Event:
    kind: str
    data: Any
    id: int | None


class Events:
    """A server-sent stream as a browser reads it."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last_id: int | None = None
        self.comments = 0

    async def next(self, seconds: float = WITHIN) -> Event | None:
        """Return the next event with data, None at the end."""
        kind, data = "message", list[str]()
        async with asyncio.timeout(seconds):
            while raw := await self.answer.content.readline():
                line = raw.decode().rstrip("\n")
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif name == "event":
                    kind = value
                elif name == "data":
                    data.append(value)
                elif name == "id":
                    self.last_id = int(value)
                elif not line and data:
                    return Event(kind, json.loads("".join(data)), self.last_id)
        return None

    async def messages(self, count: int) -> list[str]:
        found = []
        for _ in range(count):
            event = await self.next()
            assert event is not None and event.kind == "log", event
            assert event.id == event.data["id"]
            found.append(event.data["message"])
        return found


@asynccontextmanager
async def streaming(
    served: Served, role: str = "admin", path: str = "/api/logs/stream", since: int | None = None, **given: str
) -> AsyncIterator[Events]:
    headers = {"Authorization": f"Bearer {token(role)}"}
    if since is not None:
        headers["Last-Event-ID"] = str(since)
    async with served.session.get(
        served.url(path), params=given, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
    ) as answer:
        assert answer.status == 200, await answer.text()
        yield Events(answer)


@asynccontextmanager
async def serving(
    conninfo: str, directory: Path, heartbeat: float = 15.0, feeding: str | None = None
) -> AsyncIterator[Served]:
    """Yield a running server. FEEDING is another conninfo string for the feed alone."""
    before = asyncio.all_tasks()
    feed = Feed(lambda: Listener.open(feeding or conninfo, "helmd-feed"))
    async with (
        Pool(conninfo, "helmd-logs", CONNECTIONS) as pool,
        standing_in() as core,
        Callers(lambda _: SESSION) as callers,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        callers.adopt(Settings(billing_services=("codex",)), Registry({"core": Service("core", url=core.url)}))
        reader = LogReader(pool, conninfo, lambda: bool(feed.trouble))
        known = Statuses(core=True, codex=False)
        details = Details(
            known,
            known.registry,
            reader,
            MetricHistory(pool),
            HostState([directory], updates=PendingUpdates(directory)),
        )
        changed = ChangeSignal()

        async def jobs() -> tuple[JobReply, ...]:
            return tuple(listed)

        listed: list[JobReply] = []
        journal = [JournalPart([], None)]

        async def audit() -> AsyncGenerator[tuple[AuditEntry, ...], None]:
            while True:
                yield await records.get()

        def read_audit(wanted: AuditQuery, limit: int) -> JournalPart:
            entries, since = journal[-1]
            return JournalPart([each for each in entries if wanted.selects(each)][:limit], since)

        records: asyncio.Queue[tuple[AuditEntry, ...]] = asyncio.Queue()
        events = EventsHandler(known, changed, feed, reader, jobs, audit, heartbeat)
        table = (
            *log_routes(Logs(reader, known), Streams(feed, reader, heartbeat)),
            *detail_routes(details),
            *event_routes(events),
            *audit_routes(Audit(AuditPages(read_audit, reader))),
        )
        server = HttpServer(application(with_documents(table), callers), directory / "h.sock", holder_of)
        port = free_port()
        await server.start("127.0.0.1", port)
        running = asyncio.create_task(feed.run())
        try:
            parts = (session, feed, core, running, known, changed, listed, records, journal)
            yield Served(conninfo, port, directory / "h.sock", *parts)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await server.stop()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
