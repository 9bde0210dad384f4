"""Asking helmd over the account's unix socket, where the peer's uid is the credential.

http.client does the protocol; the bytes come through `_Bytes`, which waits below its buffers, so that one thread can
watch the socket, the time and the reader of the output at once.
"""

import io
import json
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

from helmd.model.errors import DeniedError, HelmError, UsageError
from helmd.model.printable import printable

HELMD_CONNECT_SECONDS = 1.0
_CHUNK = 64 * 1024
_PROBLEM_LIMIT = 64 * 1024


class HelmdAwayError(HelmError):
    """helmd or its database does not answer. The sentence is also used as the beginning of a longer one."""

    code: ClassVar[str] = "helmd_away"


class OutputClosedError(Exception):
    """The reader of the output has closed it."""


@dataclass(slots=True)
class Wait:
    """How an answer is waited for, byte by byte; may be changed while it comes."""

    seconds: float | None
    """Without a byte that ends it (HelmdAwayError); None for no end."""
    idle: Callable[[], None] | None = None
    """Called before each wait."""
    output: int | None = None
    """A descriptor whose reader may go away (OutputClosedError)."""


class StreamedResponse(HTTPResponse):
    """A response whose body has not been read."""

    def __init__(self, connected: "_Socket") -> None:
        super().__init__(connected, method="GET")
        self._connected = connected

    def give_up(self) -> None:
        """Close the connection, from any thread; a reader gets an incomplete response."""
        with suppress(OSError):
            self._connected.shutdown(socket.SHUT_RDWR)


def request(
    path: Path,
    route: str,
    given: Mapping[str, str],
    wait: Wait,
    last_event: int | None = None,
    method: str = "GET",
) -> StreamedResponse:
    """Return the answer to a request without a body over the socket at PATH, once it is known to be good.

    Raises HelmdAwayError, OutputClosedError, and UsageError and DeniedError as helmd does.
    """
    target = f"{route}?{urlencode(given, errors='replace')}" if given else route
    head = f"{method} {target} HTTP/1.1\r\nHost: helm\r\nConnection: close\r\n"
    if method != "GET":
        head += "Content-Length: 0\r\n"
    if last_event is not None:
        head += f"Last-Event-ID: {last_event}\r\n"
    with _as_helmd_away():
        connected = _Socket(wait)
        try:
            connected.connect(str(path))
            connected.sendall(f"{head}\r\n".encode("ascii"))
            response = StreamedResponse(connected)
            response.begin()
        except BaseException:
            connected.close()
            raise
        if response.status not in (200, 201):
            with response:
                raise _refusal(response, route)
    return response


def document(response: StreamedResponse) -> Any:
    """Return the JSON of an answer. Raises HelmdAwayError."""
    with response, _as_helmd_away():
        return json.loads(response.read())


def lines_of(response: StreamedResponse) -> Iterator[bytes]:
    """Yield the lines of an answer as they come. Raises HelmdAwayError for one that is incomplete."""
    with response:
        yield from _lines(_parts(response))


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event. ``id`` is None where it has none; one with nothing else says how far all is dealt with."""

    kind: str
    data: str
    id: int | None = None


def events_of(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events in the lines of a stream (WHATWG HTML, 9.2.6); comments are skipped."""
    kind, data, number = "message", list[str](), None
    for line in lines:
        if not line:
            if data or number is not None:
                yield Event(kind, "\n".join(data), number)
            kind, data, number = "message", [], None
            continue
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and value.isdecimal():
            number = int(value)


def _parts(response: StreamedResponse) -> Iterator[bytes]:
    while True:
        with _as_helmd_away():
            part = response.read1(_CHUNK)
        if not part:
            return
        yield part


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


class _Socket(socket.socket):
    """A unix socket whose answer is waited for by WAIT."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.settimeout(HELMD_CONNECT_SECONDS)
        self._wait = wait

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:  # type: ignore[override]
        """Return what HTTPResponse reads from. Closing that closes the socket."""
        return io.BufferedReader(_Bytes(self, self._wait), _CHUNK)


class _Bytes(io.RawIOBase):
    """The bytes of a socket, with a wait before each read."""

    def __init__(self, connected: socket.socket, wait: Wait) -> None:
        super().__init__()
        self._socket, self._wait = connected, wait
        self._poller = select.poll()
        self._poller.register(connected.fileno(), select.POLLIN)
        if wait.output is not None:
            self._poller.register(wait.output, 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._wait.idle is not None:
            try:
                self._wait.idle()
            except BrokenPipeError as error:
                raise OutputClosedError from error
        seconds = self._wait.seconds
        ready = self._poller.poll(None if seconds is None else seconds * 1000)
        if not ready:
            raise TimeoutError("no answer in time")
        if any(descriptor == self._wait.output for descriptor, _ in ready):
            raise OutputClosedError
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        self._socket.close()
        super().close()


@contextmanager
def _as_helmd_away() -> Iterator[None]:
    """Convert every failure of a request to helmd into HelmdAwayError."""
    try:
        yield
    except TimeoutError as error:
        raise HelmdAwayError("helmd does not answer", hint="See: systemctl --user status helmd") from error
    except (OSError, HTTPException, ValueError) as error:
        raise HelmdAwayError("helmd can't be reached", hint="See: systemctl --user status helmd") from error


def _refusal(response: StreamedResponse, route: str) -> HelmError:
    """Return the error that a problem document says (RFC 9457)."""
    try:
        problem = json.loads(response.read(_PROBLEM_LIMIT))
        code, detail = str(problem["code"]), printable(str(problem["detail"]), 500)
    except (ValueError, TypeError, KeyError):
        code, detail = "", f"status {response.status} for {route}"
    if code == "usage":
        return UsageError(detail)
    if code == "denied":
        return DeniedError(detail)
    if code == "store":
        return HelmdAwayError("helmd's database can't be reached", hint="See: helmctl doctor")
    return HelmdAwayError(f"helmd failed: {detail}", hint="See: systemctl --user status helmd")
