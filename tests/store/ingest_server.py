"""helmd's ingest on a real socket, with a real PostgreSQL, and a list in the journal's place."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from helmd.health.listeners import holder_of
from helmd.journal.reader import JournalError
from helmd.model.config.settings import read_settings_files
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.ingest.token_bucket import Rates
from helmd.model.logs.parsing.format_schema import read_formats
from helmd.model.logs.parsing.formats import parse_message
from helmd.model.logs.parsing.journal_fields import Value
from helmd.model.logs.parsing.parsed import Parsed
from helmd.model.suite.service import Registry, Service
from helmd.operations.logs.posted import PostedLogs
from helmd.operations.monitoring.custom_metrics import PostedMetrics
from helmd.store.ingest.requests import PostedStore
from helmd.store.session import Pool
from helmd.web.api.ingest import Intake
from helmd.web.api.services import Api
from helmd.web.auth.identity import Callers
from helmd.web.routes import routes
from helmd.web.server import HttpServer, application
from tests.fakes import NoHealth, Statuses
from tests.free_ports import free_port
from tests.signing import posted_fields
from tests.unit.core_stand_in import SERVICE, USER, signed, standing_in

FORMATS_FILE = Path(__file__).resolve().parents[2] / "formats.toml"
FORMATS = read_formats([ConfigSource(str(FORMATS_FILE), FORMATS_FILE.read_text())])
LOGS, METRICS = "/api/logs/ingest", "/api/metrics/ingest"


def read_message(message: str, service: str, realtime: int) -> Parsed:
    return parse_message(FORMATS, message, service, realtime)


def service_token(name: str) -> str:
    given = {"sub": f"service:{name}", "calling_service": name, "exp": int(time.time()) + 300}
    return signed({**SERVICE, **given})


def user_token(level: str) -> str:
    given = {"preferred_username": level, "permission_level": level, "jti": level, "exp": int(time.time()) + 3600}
    return signed({**USER, **given})


class Journal:
    """Takes what is written as the fields that journald would have; ``away`` makes it fail."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Value]] = []
        self.away = False
        self.seconds = 0.0

    def write(self, posted: Iterable[PostedRow]) -> None:
        if self.away:
            raise JournalError("the journal can't be written: No such file or directory")
        time.sleep(self.seconds)
        for row in posted:
            fields = posted_fields(row, time.time_ns() // 1000)
            self.entries.append({**fields, "_SYSTEMD_USER_UNIT": b"helmd.service"})


Answer = tuple[int, Any, Any]


class Served:
    """``post`` sends as codex by default."""

    def __init__(self, port: int, session: aiohttp.ClientSession, journal: Journal, measured: PostedMetrics) -> None:
        self.port = port
        self.session = session
        self.journal = journal
        self.measured = measured
        self.tokens = {name: service_token(name) for name in ("codex", "core")}

    async def post(
        self, body: object, path: str = LOGS, token: str | None = "codex", raw: bool = False, **headers: str
    ) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["Authorization"] = f"Bearer {self.tokens.get(token) or token}"
        data = body if raw else json.dumps(body).encode()
        async with self.session.post(f"http://127.0.0.1:{self.port}{path}", data=data, headers=given) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers


@asynccontextmanager
async def serving(
    conninfo: str,
    directory: Path,
    rates: Rates | None = None,
    settings: str = "",
    journal: Journal | None = None,
    paused: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Served]:
    journal = journal or Journal()
    posted = PostedLogs(lambda: PostedStore.open(conninfo, lambda _: 90), journal.write, paused)
    paths = {"codex": ("/up", "/ready")}.get
    rates = rates or Rates(1e6, 1e6)
    async with (
        Pool(conninfo, "test-measured") as pool,
        standing_in() as core,
        Callers() as callers,
        aiohttp.ClientSession() as session,
    ):
        measured = PostedMetrics(pool)
        intake = Intake(posted, measured, rates, lambda _: 90, read_message, lambda name: paths(name, ()))
        callers.adopt(
            read_settings_files([ConfigSource("helm.toml", settings)]),
            Registry({"core": Service("core", url=core.url)}),
        )
        server = HttpServer(
            application(routes(Api(Statuses(), NoHealth()), intake), callers), directory / "h.sock", holder_of
        )
        port = free_port()
        await server.start("127.0.0.1", port)
        running = [asyncio.create_task(posted.run()), asyncio.create_task(measured.run())]
        try:
            yield Served(port, session, journal, measured)
        finally:
            for task in running:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await server.stop()
