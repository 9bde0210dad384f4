"""The application and its sockets: TCP for callers with a credential, a unix socket for the owner."""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web
from aiohttp_session import session_middleware

from helmd.model.errors import HelmError, LockedError, PortTakenError
from helmd.model.identity.audit import AuditedChange
from helmd.model.suite.names import SOCKET_BACKLOG
from helmd.web.api.ingest import MAX_BODY
from helmd.web.auth.audit import Record
from helmd.web.auth.identity import Callers
from helmd.web.auth.sessions import BrowserSessions
from helmd.web.http.connection import ClientConnection, ClientConnections
from helmd.web.http.problems import BEGUN, COMMON_HEADERS, CORRELATION, Handler, problems
from helmd.web.pages.errors import error_pages
from helmd.web.pages.rendering import Renderer
from helmd.web.route import Route, install

LISTEN_RETRY_SECONDS = 5.0
"""Interval in seconds in which listening on a TCP address is retried."""
_ACCEPTED_SECONDS = 0.01
"""Delay in seconds in which the event loop creates the transports of accepted connections."""

_log = logging.getLogger(__name__)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = response
    for name, value in COMMON_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = COMMON_HEADERS["Server"]
    response.headers[CORRELATION] = request.get("correlation_id", "")
    connection = request.protocol
    if isinstance(connection, ClientConnection):
        connection.answering = True
        if connection.ends_soon:
            # aiohttp has prepared these headers already.
            response.force_close()
            response.headers["Connection"] = "close"


def application(
    table: Sequence[Route],
    callers: Callers | None = None,
    record: Record | None = None,
    sessions: BrowserSessions | None = None,
    renderer: Renderer | None = None,
) -> web.Application:
    """Return the application with the routes of TABLE, for CALLERS; without these, for the unix socket only.

    RECORD is called with records of the audit trail, which are logged without it. SESSIONS are those of browsers;
    RENDERER renders error pages.
    """
    pages = [] if renderer is None else [error_pages(renderer)]
    browsers = [] if sessions is None else [session_middleware(sessions)]
    callers = callers or Callers()

    @web.middleware
    async def proxies(request: web.Request, handler: Handler) -> web.StreamResponse:
        callers.note_proxy(request)
        return await handler(request)

    made = web.Application(middlewares=[proxies, *pages, problems, *browsers], client_max_size=MAX_BODY)
    made.on_response_prepare.append(_add_headers)
    install(made, table, callers, record or _log_change)
    return made


def _log_change(change: AuditedChange) -> None:
    _log.info("%s by %s: %s", change.action, change.actor, change.result)


@dataclass(frozen=True, slots=True)
class Activated:
    """Listening sockets passed by systemd (systemd.socket(5)); None of a kind without socket activation."""

    unix: tuple[socket.socket, ...] = ()
    tcp: tuple[socket.socket, ...] = ()


class HttpServer:
    """Serves APPLICATION from `start` until `stop`, on sockets passed by systemd if there are any, else on its own.

    HOLDER_OF names the process that listens on a port, or None.
    """

    def __init__(
        self,
        application: web.Application,
        unix_socket: Path,
        holder_of: Callable[[int], object | None],
        activated: Activated = Activated(),
    ) -> None:
        self._holder_of = holder_of
        self._runner = web.AppRunner(application, access_log=None)
        self._path = unix_socket
        self._activated = activated
        self._open: ClientConnections | None = None
        self._listeners: list[asyncio.Server] = []
        self._wanted: tuple[str, int] | None = None
        self._tcp: tuple[tuple[str, int], asyncio.Server] | None = None
        self._inode = 0
        self.trouble = ""
        """Why it does not listen on the configured TCP address, as a sentence; empty if it does."""

    @property
    def connections(self) -> ClientConnections:
        """The open connections; only after `start`."""
        assert self._open is not None
        return self._open

    async def start(self, listen: str, port: int) -> None:
        """Listen on both sockets. Raises LockedError when another helmd serves on the unix socket.

        Failing to listen on the TCP address only affects TCP: see `trouble` and `run`.
        """
        await self._runner.setup()
        assert self._runner.server is not None
        self._open = ClientConnections(self._runner.server)
        if self._activated.unix:
            for each in self._activated.unix:
                await self._serve(each)
        else:
            unix = bind_unix(self._path)
            self._inode = self._path.stat().st_ino
            await self._serve(unix)
        for each in self._activated.tcp:
            await self._serve(each)
        self._wanted = listen, port
        try:
            await self.listen(listen, port)
        except HelmError as error:
            _log.error("%s", " ".join(part for part in (f"{error.sentence}.", error.hint) if part))

    async def listen(self, listen: str, port: int) -> None:
        """Listen on another TCP address; then stop listening on the old one, whose connections are kept.

        Has no effect on sockets passed by systemd: `trouble` says so. Raises PortTakenError, or HelmError for an
        address that can't be bound; then nothing has changed.
        """
        if self._activated.tcp:
            self._wanted = listen, port
            there = [each.getsockname()[:2] for each in self._activated.tcp]
            here = address_of(listen, port)[1][:2]
            self.trouble = (
                "" if here in there else f"TCP: not listening on {listen} port {port} yet; run: helmctl apply"
            )
            return
        if self._tcp is None or self._tcp[0] != (listen, port):
            try:
                server = await self._serve(bind_tcp(listen, port, self._holder_of))
            except HelmError as error:
                if self._tcp is None:
                    self.trouble = f"TCP: {error.sentence}"
                raise
            before, self._tcp = self._tcp, ((listen, port), server)
            if before is not None:
                await self._close([before[1]])
        self._wanted, self.trouble = (listen, port), ""

    async def run(self, changed: Callable[[], None]) -> NoReturn:
        """Run until cancelled; retry to listen on a TCP address that failed. CHANGED is called on success."""
        while True:
            await asyncio.sleep(LISTEN_RETRY_SECONDS)
            if self.trouble and self._wanted is not None and not self._activated.tcp:
                with contextlib.suppress(HelmError):
                    await self.listen(*self._wanted)
                if not self.trouble:
                    _log.info("listening on %s port %d", *self._wanted)
                changed()

    async def _serve(self, bound: socket.socket) -> asyncio.Server:
        bound.setblocking(False)
        server = await asyncio.get_running_loop().create_server(self.connections, sock=bound, backlog=SOCKET_BACKLOG)
        self._listeners.append(server)
        return server

    async def drain(self) -> None:
        """Stop accepting connections and close the open ones, each after its response.

        New connections to a socket of systemd's wait there for the next helmd.
        """
        await self._close(self._listeners)
        if self._open is not None:
            await self._open.drain()

    async def stop(self) -> None:
        """Close all sockets."""
        await self._close(self._listeners)
        if self._open is not None:
            await self._open.shutdown(0.1)
        await self._runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            # Another helmd may have put its own in place meanwhile.
            if self._inode and self._path.stat().st_ino == self._inode:
                self._path.unlink()

    async def _close(self, listeners: Sequence[asyncio.Server]) -> None:
        """Close LISTENERS, without losing accepted connections.

        asyncio would drop a connection whose transport does not exist yet when its listener is closed
        (`asyncio.Server._attach` fails then), so accepting is stopped some time before.
        """
        loop = asyncio.get_running_loop()
        for listener in listeners:
            for listening in listener.sockets:
                loop.remove_reader(listening)
        if listeners:
            await asyncio.sleep(_ACCEPTED_SECONDS)
        for listener in list(listeners):
            self._listeners.remove(listener)
            listener.close()


def address_of(listen: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Return the family and address for ``http.listen`` and ``http.port``. Raises HelmError."""
    try:
        found = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as problem:
        raise HelmError(f"can't listen on {listen} port {port}: {problem.strerror or problem}") from None
    return found[0][0], found[0][4]


def bind_tcp(listen: str, port: int, holder_of: Callable[[int], object | None]) -> socket.socket:
    """Return a listening TCP socket.

    Raises PortTakenError with the process that uses the port, HelmError for other errors.
    """
    family, address = address_of(listen, port)
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as problem:
        raise HelmError(f"can't listen on {listen} port {port}: {problem.strerror or problem}") from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(SOCKET_BACKLOG)
    except OSError as problem:
        bound.close()
        if holder := holder_of(port):
            hint = "End that process, or give helmd another port: http.port in helm.toml."
            raise PortTakenError(f"port {port} is taken by {holder}", hint=hint) from None
        raise HelmError(f"can't listen on {listen} port {port}: {problem.strerror or problem}") from None
    bound.setblocking(False)
    return bound


def bind_unix(path: Path) -> socket.socket:
    """Return a listening unix socket at PATH, for this account only. A stale socket is replaced.

    Raises LockedError if a process listens on it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    if _alive(path):
        raise LockedError(f"another helmd serves on {path}", hint="See: systemctl --user status helmd")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
    finally:
        os.umask(before)
    bound.listen(SOCKET_BACKLOG)
    bound.setblocking(False)
    return bound


def _alive(path: Path) -> bool:
    """Return whether a process listens on the socket at PATH. Raises LockedError for anything but a socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LockedError(f"{path} is in the way: it is not a socket")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        tried.settimeout(0.5)
        try:
            tried.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
