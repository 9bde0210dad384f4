"""A service that stores notes in its own PostgreSQL database: the sample Codex, Ledger and KnowledgeTree."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import aiohttp
import psycopg
from aiohttp import web
from psycopg.rows import dict_row

from .logs import AccessStyle, configure_logs
from .registry import Registry
from .server import bearer_token, disk_check, health_reply, json_body, json_reply, make_app, run
from .settings import Settings, load_settings
from .tokens import CoreUnreachableError, InvalidTokenError, TokenVerifier

_QUERY_SECONDS = 2.0
_MAX_NOTE = 10_000
_TABLE = """
CREATE TABLE IF NOT EXISTS notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)"""
_LIST = "SELECT id, author, body, created_at FROM notes ORDER BY id DESC LIMIT 100"
_ADD = "INSERT INTO notes (author, body) VALUES (%s, %s) RETURNING id, author, body, created_at"

_log = logging.getLogger("app")

Row = dict[str, Any]
Checks = Mapping[str, Mapping[str, object]]


class DatabaseError(Exception):
    """The database is unavailable or failed; the text does not contain the DSN."""


class NoteStore:
    """A connection to the service's database, opened on demand and reopened after an error."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Row] | None = None

    async def ping(self) -> float:
        """Execute `SELECT 1`; return its duration in milliseconds."""
        started = time.perf_counter()
        await self._read("SELECT 1")
        return (time.perf_counter() - started) * 1000

    async def notes(self) -> list[Row]:
        return [_public(row) for row in await self._read(_LIST)]

    async def add(self, author: str, body: str) -> Row:
        """Store a note. Not retried after a connection error, since the first attempt may have been committed."""
        return _public((await self._execute(_ADD, (author, body)))[0])

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _read(self, query: str) -> list[Row]:
        """Run a read-only query, with one retry if a reused connection fails."""
        reused = self._connection is not None
        try:
            return await self._execute(query)
        except DatabaseError:
            if not reused:
                raise
            return await self._execute(query)

    async def _execute(self, query: str, values: tuple[str, ...] = ()) -> list[Row]:
        async with self._lock:
            try:
                async with asyncio.timeout(_QUERY_SECONDS):
                    connection = self._connection or await self._open()
                    cursor = await connection.execute(query, values)
                    return await cursor.fetchall()
            except (psycopg.Error, TimeoutError) as error:
                await self.close()
                _log.warning("the database failed: %s", str(error).strip() or "no answer in time")
                raise DatabaseError("the database cannot be used") from error

    async def _open(self) -> psycopg.AsyncConnection[Row]:
        if not self._dsn:
            raise psycopg.OperationalError("DATABASE_URL is not set")
        connection = await psycopg.AsyncConnection[Row].connect(self._dsn, autocommit=True, row_factory=dict_row)
        try:
            await connection.execute(_TABLE)
        except psycopg.Error:
            await connection.close()
            raise
        self._connection = connection
        return connection


def _public(row: Row) -> Row:
    return {**row, "created_at": row["created_at"].isoformat()}


class NotesService:
    """The routes of one notes service."""

    def __init__(self, settings: Settings, checks: Checks) -> None:
        self._settings, self._checks = settings, checks
        self._store = NoteStore(settings.text("DATABASE_URL"))
        self._registry = Registry(settings.directory / "services.json")
        self._verifier: TokenVerifier | None = None

    def app(self) -> web.Application:
        app = make_app()
        app.cleanup_ctx.append(self._connections)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/api/notes", self._list),
                web.post("/api/notes", self._add),
                web.get("/", self._page),
                web.get("/{place:.*}cookies", self._cookies),
            ]
        )
        return app

    async def _connections(self, app: web.Application) -> AsyncIterator[None]:
        core_url = self._settings.text("CORE_SERVICE_URL") or self._registry.url("core", "http://127.0.0.1:5000")
        async with aiohttp.ClientSession() as session:
            self._verifier = TokenVerifier(session, core_url)
            try:
                await self._store.ping()
            except DatabaseError:
                _log.warning("starting without the database; every request tries it again")
            yield
            await self._store.close()

    async def _health(self, request: web.Request) -> web.Response:
        database: dict[str, object] = {"status": "healthy", "type": "postgresql"}
        try:
            database["latency_ms"] = round(await self._store.ping(), 1)
        except DatabaseError as error:
            database |= {"status": "unhealthy", "error": str(error)}
        return health_reply(self._settings.name, {"database": database, "disk": disk_check(), **self._checks})

    async def _list(self, request: web.Request) -> web.Response:
        author = await self._author(request)
        if isinstance(author, web.Response):
            return author
        try:
            return json_reply({"notes": await self._store.notes()})
        except DatabaseError as error:
            return json_reply({"error": str(error)}, 503)

    async def _add(self, request: web.Request) -> web.Response:
        author = await self._author(request)
        if isinstance(author, web.Response):
            return author
        body = (await json_body(request)).get("body")
        if not isinstance(body, str) or not 0 < len(body) <= _MAX_NOTE or not body.isprintable():
            return json_reply({"error": f"body must be 1 to {_MAX_NOTE} printable characters"}, 400)
        try:
            note = await self._store.add(author, body)
        except DatabaseError as error:
            return json_reply({"error": str(error)}, 503)
        _log.info("note %d added by %s", note["id"], author)
        return json_reply(note, 201)

    async def _page(self, request: web.Request) -> web.Response:
        """The notes as a page. Markup in them is not escaped: the hole that tests of Helm's pages use."""
        author = await self._author(request)
        if isinstance(author, web.Response):
            return author
        try:
            notes = "".join(f"<li>{note['body']}</li>" for note in await self._store.notes())
        except DatabaseError as error:
            return json_reply({"error": str(error)}, 503)
        page = f'<!doctype html><html lang="en"><head><title>Notes</title></head><body><ul>{notes}</ul></body></html>'
        return web.Response(text=page, content_type="text/html")

    async def _cookies(self, request: web.Request) -> web.Response:
        """Which cookies have come, at any path: all that a module gets to know of the browser."""
        return json_reply({"cookies": dict(request.cookies)})

    async def _author(self, request: web.Request) -> str | web.Response:
        """Return the user name in the caller's token, or an error response."""
        token = bearer_token(request)
        if not token or self._verifier is None:
            return json_reply({"error": "Authentication required"}, 401)
        try:
            claims = await self._verifier.verify(token, target=self._settings.name)
        except InvalidTokenError as error:
            return json_reply({"error": str(error)}, 401)
        except CoreUnreachableError as error:
            _log.warning("%s", error)
            return json_reply({"error": "Core is not reachable"}, 503)
        return str(claims.get("preferred_username") or claims["sub"])


def run_notes_service(name: str, default_port: int, checks: Checks = MappingProxyType({})) -> None:
    """Run the service until SIGTERM. Its health document has CHECKS, too."""
    settings = load_settings(name, default_port)
    configure_logs(settings.mode)
    print(f" * Serving sample app '{name}'", flush=True)
    run(NotesService(settings, checks).app(), settings, AccessStyle.WERKZEUG)
