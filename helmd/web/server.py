"""The application and the sockets it is served on: TCP for everybody with a credential, a unix socket for the owner."""

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

from helmd.model.errors import HelmError, LockedError, PortTakenError
from helmd.web.api.ingest import MAX_BODY
from helmd.web.auth.identity import Callers
from helmd.web.http.problems import CORRELATION, problems
from helmd.web.routes import Route, install

_BACKLOG = 1024
"""Clients that may wait to be let in, as all followers do when helmd was restarted (net.core.somaxconn bounds it)."""
_SHUTDOWN_SECONDS = 0.5
"""How long requests under way may take to end when helmd does."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise itself."""


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "helm"
    response.headers[CORRELATION] = request.get("correlation_id", "")


def application(table: Sequence[Route], callers: Callers | None = None) -> web.Application:
    """The application that answers the routes of TABLE to CALLERS; without them, to the unix socket's alone."""
    made = web.Application(middlewares=[problems], client_max_size=MAX_BODY)
    made.on_response_prepare.append(_add_headers)
    install(made, table, callers or Callers())
    return made


class HttpServer:
    """Serves APPLICATION from `start` until `stop`. HOLDER_OF names the process that listens on a port, or None."""

    def __init__(
        self, application: web.Application, unix_socket: Path, holder_of: Callable[[int], object | None]
    ) -> None:
        self._holder_of = holder_of
        self._runner = web.AppRunner(application, access_log=None)
        self._path = unix_socket
        self._address: tuple[str, int] | None = None
        self._tcp: web.SockSite | None = None
        self._inode = 0

    async def start(self, listen: str, port: int) -> None:
        """Listen on both sockets. Raises PortTakenError, LockedError, or HelmError for an address there is not."""
        await self._runner.setup()
        unix = bind_unix(self._path)
        self._inode = self._path.stat().st_ino
        await self._site(unix).start()
        await self.listen(listen, port)

    async def listen(self, listen: str, port: int) -> None:
        """Listen on another TCP address; the one before is given up once the new one serves. Raises as `start`."""
        if self._address == (listen, port):
            return
        site = self._site(bind_tcp(listen, port, self._holder_of))
        await site.start()
        if self._tcp is not None:
            await self._tcp.stop()
        self._tcp, self._address = site, (listen, port)

    def _site(self, bound: socket.socket) -> web.SockSite:
        return web.SockSite(self._runner, bound, shutdown_timeout=_SHUTDOWN_SECONDS, backlog=_BACKLOG)

    async def stop(self) -> None:
        """Close both sockets, and the connections."""
        await self._runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            # Another helmd may have put its own in place meanwhile.
            if self._inode and self._path.stat().st_ino == self._inode:
                self._path.unlink()


def bind_tcp(listen: str, port: int, holder_of: Callable[[int], object | None]) -> socket.socket:
    """A listening TCP socket. Raises PortTakenError with who has the port, HelmError when it can't be had."""
    try:
        found = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as problem:
        raise HelmError(f"can't listen on {listen} port {port}: {problem.strerror or problem}") from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as problem:
        bound.close()
        if holder := holder_of(port):
            hint = "End that process, or give helmd another port: http.port in helm.toml."
            raise PortTakenError(f"port {port} is taken by {holder}", hint=hint) from None
        raise HelmError(f"can't listen on {listen} port {port}: {problem.strerror or problem}") from None
    bound.setblocking(False)
    return bound


def bind_unix(path: Path) -> socket.socket:
    """A listening unix socket at PATH, for this account alone. One that a dead helmd left is replaced.

    Raises LockedError when a living one serves there.
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
    bound.listen(_BACKLOG)
    bound.setblocking(False)
    return bound


def _alive(path: Path) -> bool:
    """Whether somebody listens on the socket at PATH. What is no socket is not touched: that raises LockedError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LockedError(f"{path} is in the way: it is no socket")
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
