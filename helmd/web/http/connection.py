"""Connections of clients: limits, timeouts, and shutdown (RFC 9110, RFC 9112).

aiohttp waits for the end of a request's headers without limit, parses pipelined requests without limit while one of
them is being answered, and answers what it can't parse in plain text. `ClientConnection` bounds the first two, and its
errors are problem documents (RFC 9457). It uses what aiohttp 3.8 and 3.11 have in common.
"""

import asyncio
import fcntl
import json
import logging
import resource
import socket
import struct
import termios
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from helmd.model.api.json_codec import to_json
from helmd.model.api.problem import PROBLEM_TYPE
from helmd.web.http.problems import COMMON_HEADERS, problem, problem_document

HEADER_SECONDS = 10.0
"""Time limit in seconds from the first byte of a connection or request to the end of the request's headers."""
KEEPALIVE_SECONDS = 75.0
"""Time limit in seconds of an idle connection."""
STALLED_SECONDS = 60
"""TCP_USER_TIMEOUT in seconds (tcp(7)): how long sent data may stay unacknowledged."""
MAX_LINE = 8190
"""Maximum size in bytes of a request line, and of a header field."""
MAX_HEADERS = 64 << 10
"""Maximum size in bytes of a request's headers."""
MAX_CONNECTIONS = 4096
"""Maximum number of connections for TCP and for unix sockets each, within the limit of open files."""
GRACE_SECONDS = 0.5
"""Shutdown timeouts in seconds: for a request on an idle connection, and for a response in progress."""
DRAIN_SECONDS = 4.0
"""Time limit in seconds at shutdown for requests without response. Senders of log entries time out after 5 s."""

_PIECE = 16 << 10
"""Bytes parsed at once, which bounds the number of pipelined requests in memory."""
_UNPARSED = "UNKNOWN"
"""aiohttp's method for requests that it can't parse."""
_LINGER_SECONDS = 1.0
_LOOK_SECONDS, _CUT_SECONDS = 0.02, 0.1

_log = logging.getLogger(__name__)


def connection_limit() -> int:
    """Return the maximum number of connections of one family: a third of the limit on open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(files // 3, 16))


class ClientConnection(RequestHandler):
    """The server's side of one connection.

    Requests are parsed one after another: while one is being handled, no further data is read.
    """

    def __init__(self, server: "ClientConnections", loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        self._timer: asyncio.TimerHandle | None = None
        self._request: web.BaseRequest | None = None
        self._content: StreamReader | None = None
        self._unparsed = bytearray()
        self._upgraded = self._refused = self._broken = False
        self._line, self._line_ended, self._headers = 0, False, 0
        self.answering = False
        """Whether a response to the current request has begun."""
        self.family, self.address = "tcp", ""

    @property
    def ends_soon(self) -> bool:
        """Whether the current response is the last one."""
        return self._server.closing

    @property
    def idle(self) -> bool:
        """Whether there is no current request."""
        return self._request is None and not self._messages and not self._in_body

    @property
    def has_input(self) -> bool:
        """Whether there is unread input, or part of a request."""
        if self._headers or self._unparsed:
            return True
        connection = None if self.transport is None else self.transport.get_extra_info("socket")
        if connection is None or connection.fileno() < 0:
            return False
        waiting = fcntl.ioctl(connection.fileno(), termios.FIONREAD, b"\0" * 4)
        return bool(struct.unpack("i", waiting)[0])

    @property
    def _in_body(self) -> bool:
        return self._content is not None and not self._content.is_eof()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX:
            self.family = self.address = "unix"
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SECONDS * 1000)
            peer = transport.get_extra_info("peername")
            self.address = f"from {peer[0]}" if peer else ""
        if self._server.admit(self):
            self._expect_headers()
        else:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many connections are open; try again", 1)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        self._unparsed.clear()
        self._server.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unparsed += data
        self._parse()

    def resume_reading(self) -> None:
        if not self._unparsed:
            super().resume_reading()

    # aiohttp's side

    def set_parser(self, parser: Any) -> None:
        """Switch to the WebSocket protocol, in which input is read without delay."""
        self._upgraded = True
        super().set_parser(parser)
        self._parse()

    def begin(self, request: web.BaseRequest, parsed: bool) -> None:
        """Begin handling REQUEST, whose headers were read; one that could not be PARSED only gets an error response."""
        self._stop_timer()
        self._request, self._content = request, request.content
        if parsed:
            self._line, self._line_ended, self._headers = 0, False, 0
        if self._unparsed:
            self._loop.call_soon(self._parse)

    async def finish_response(self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float) -> Any:
        """Send the response, then accept the next request."""
        if self._broken:
            resp.force_close()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._request, self.answering = None, False
            self._parse()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the error response for a request that could not be parsed, or failed outside of handlers."""
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun already")
        if isinstance(exc, HttpProcessingError):
            code, sentence = "bad_request", f"this is not a valid HTTP request: {_first_line(exc)}"
            status = HTTPStatus.BAD_REQUEST
            if isinstance(exc, LineTooLong) and (not self._line_ended or self._line > MAX_LINE):
                status, code = HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long"
                sentence = f"the request line is longer than {MAX_LINE} bytes"
            elif isinstance(exc, LineTooLong):
                status, code = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large"
                sentence = f"a header field is longer than {MAX_LINE} bytes"
        else:
            _log.error("a request failed outside of its handler", exc_info=exc)
            code, sentence = "internal", "something went wrong inside Helm; its log says what"
        response = problem(request, status, code, sentence)
        response.headers.update(COMMON_HEADERS)
        response.force_close()
        return response

    # what happens in between

    def refuse(self, status: HTTPStatus, code: str, sentence: str, retry_after: int | None = None) -> None:
        """Send an error response without a request, and close the connection."""
        body = json.dumps(to_json(problem_document(status, code, sentence, ""))).encode()
        headers = {
            **COMMON_HEADERS,
            "Content-Type": PROBLEM_TYPE,
            "Content-Length": len(body),
            "Connection": "close",
        }
        if retry_after is not None:
            headers["Retry-After"] = retry_after
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        if self.transport is not None:
            self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            # If it were closed at once, the kernel would respond to further input with RST, by which the client could
            # lose the response (RFC 9112, section 9.6).
            self._refused = True
            self._unparsed.clear()
            self.transport.write_eof()
            super().resume_reading()
            self._stop_timer()
            self._timer = self._loop.call_later(_LINGER_SECONDS, self.force_close)

    def _parse(self) -> None:
        """Parse the input until a request is complete."""
        while self._unparsed and self.transport is not None and not self._occupied:
            piece = bytes(self._unparsed[:_PIECE])
            del self._unparsed[:_PIECE]
            self._parse_piece(piece)
        if self.transport is None:
            self._unparsed.clear()
        elif self._unparsed:
            self.pause_reading()
        elif not self._in_body:
            # In a body, aiohttp's flow control pauses and resumes.
            self.resume_reading()

    @property
    def _occupied(self) -> bool:
        """Whether the next data belongs to a later request than the current one."""
        return not self._upgraded and (bool(self._messages) or (self._request is not None and not self._in_body))

    def _parse_piece(self, piece: bytes) -> None:
        in_headers = self._request is None and not self._in_body
        if in_headers:
            if not self._headers:
                self._expect_headers()
            self._headers += len(piece)
            if not self._line_ended:
                end = piece.find(b"\n")
                self._line += len(piece) if end < 0 else end
                self._line_ended = end >= 0
        try:
            super().data_received(piece)
        except ValueError:
            # A request target that yarl can't read.
            self.refuse(HTTPStatus.BAD_REQUEST, "bad_request", "the request target is not a valid URL")
            return
        if self._request is not None and self._content is not None and self._in_body and self._messages:
            # The parser failed inside this request's body, of which aiohttp does not notify its reader.
            self._broken = True
            self._content.set_exception(web.RequestPayloadError("the body is not validly encoded"))
            self._content.feed_eof()
        elif in_headers and not self._messages and self._headers > MAX_HEADERS:
            sentence = f"the headers are longer than {MAX_HEADERS >> 10} KiB"
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", sentence)

    def _expect_headers(self) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(HEADER_SECONDS, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        if self.idle and self._headers:
            sentence = f"the request's headers did not come within {HEADER_SECONDS:g} s"
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", sentence)
        elif self.idle:
            self.force_close()


def _first_line(error: HttpProcessingError) -> str:
    """Return the parser's message without the input."""
    return str(error.message).partition("\n")[0].rstrip(":. ")[:200]


class ClientConnections(web.Server):
    """Creates the connections of an application, of whose ``web.Server`` it is made, and tracks the open ones."""

    def __init__(self, application: web.Server) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(application.request_handler, request_factory=self._begin, loop=loop)
        self._application = application
        self._options: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": KEEPALIVE_SECONDS,
            "max_line_size": MAX_LINE,
            "max_field_size": MAX_LINE,
            # Bodies are never decompressed automatically (helmd/web/http/body.py).
            "auto_decompress": False,
        }
        self._loop = loop
        self.limit = connection_limit()
        """Maximum number of open connections, for TCP and for unix sockets each."""
        self._open: dict[ClientConnection, None] = {}
        self._count: Counter[str] = Counter()
        self.closing = False
        """Whether each connection ends with its next response."""

    def __call__(self) -> RequestHandler:
        return ClientConnection(self, self._loop, **self._options)

    def _begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        """Create a request. ``Expect`` is removed from the headers, since aiohttp would respond to it before any check.

        Responses to versions other than HTTP/1.0 are in HTTP/1.1.
        """
        version = message.version
        parsed = message.method != _UNPARSED
        if not parsed or version not in (HttpVersion10, HttpVersion11):
            message = message._replace(version=HttpVersion11)
        expected = message.headers.get("Expect")
        if expected is not None:
            headers = message.headers.copy()
            headers.popall("Expect")
            message = message._replace(headers=cast(Any, headers))
        request = self._application.request_factory(message, payload, protocol, writer, task)
        request["version"], request["expect"] = version, expected
        cast(ClientConnection, protocol).begin(request, parsed)
        return request

    def admit(self, connection: ClientConnection) -> bool:
        """Return whether a new CONNECTION may stay.

        When there are too many, the oldest one without a request is closed. TCP and unix socket have a limit each, so
        that nobody keeps the owner out; one address gets half of TCP's.
        """
        self._open[connection] = None
        self._count.update({connection.family, connection.address})
        if connection.family == "tcp" and self._count[connection.address] > self.limit // 2:
            rivals = [other for other in self._open if other.address == connection.address]
        elif self._count[connection.family] > self.limit:
            rivals = [other for other in self._open if other.family == connection.family]
        else:
            return True
        oldest = next((other for other in rivals if other is not connection and other.idle), None)
        if oldest is not None:
            self.forget(oldest)
            oldest.force_close()
        return oldest is not None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ClientConnection]:
        return iter(self._open)

    def forget(self, connection: ClientConnection) -> None:
        """CONNECTION is closed."""
        if connection in self._open:
            del self._open[connection]
            self._count.subtract({connection.family, connection.address})
            self._count += Counter()

    async def drain(self) -> None:
        """Close all connections. Pending requests get responses, also one that arrives now on an idle connection.

        Those that exceed the time limits are aborted.
        """
        self.closing = True
        begun = self._loop.time()
        while self._open and (waited := self._loop.time() - begun) < DRAIN_SECONDS:
            if waited >= GRACE_SECONDS:
                for connection in [each for each in self._open if each.idle and not each.has_input]:
                    connection.force_close()
                # Followers and exports, which would run for long.
                begun_ones = [connection for connection in self._open if connection.answering]
                await asyncio.gather(*(connection.shutdown(_CUT_SECONDS) for connection in begun_ones))
            await asyncio.sleep(_LOOK_SECONDS)
        await self.shutdown(_CUT_SECONDS)
