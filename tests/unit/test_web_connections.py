"""What clients do wrong or slowly, over real sockets: each is answered with a problem document, and none holds more
than its share.
"""

import asyncio
import gzip
import json
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from helmd.health.listeners import holder_of
from helmd.web.auth.roles import PeerRule, Role
from helmd.web.http import body, connection
from helmd.web.http.body import receive_body
from helmd.web.http.problems import json_response
from helmd.web.route import Route
from helmd.web.server import HttpServer, application
from tests.free_ports import free_port
from tests.waiting import WITHIN, eventually

LIMIT = 1 << 20


class Handlers:
    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.handled = 0

    async def plain(self, request: web.Request) -> web.Response:
        self.handled += 1
        return json_response([request.path, dict(request.query)])

    async def size(self, request: web.Request) -> web.Response:
        return json_response(len(await receive_body(request, LIMIT)))

    async def slow(self, request: web.Request) -> web.Response:
        self.handled += 1
        await self.go_on.wait()
        return json_response("done")

    async def endless(self, request: web.Request) -> web.StreamResponse:
        self.handled += 1
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"more\n")
            await asyncio.sleep(0.05)


class Served:
    def __init__(self, port: int, path: Path, server: HttpServer, handlers: Handlers) -> None:
        self.port, self.path, self.server, self.handlers = port, path, server, handlers

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, *parts: bytes) -> "Reply":
        """Return what comes back for PARTS, sent with pauses, until the connection ends or nothing more comes."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.05)
        try:
            return await read_reply(reader)
        finally:
            writer.close()


class Reply:
    """The parts of a response; the status is 0 without one."""

    def __init__(self, raw: bytes, closed: bool) -> None:
        self.raw, self.closed = raw, closed
        self.interim = raw.startswith(b"HTTP/1.1 100 ")
        if self.interim:
            raw = raw.partition(b"\r\n\r\n")[2]
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1]) if lines[0] else 0
        self.version = lines[0].split()[0] if lines[0] else ""
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}

    @property
    def problem(self) -> Any:
        """The problem document, which this must be."""
        assert self.headers["content-type"] == "application/problem+json", self.raw
        found = json.loads(self.body)
        assert found["status"] == self.status and found["error"] == found["detail"]
        assert {"type", "title", "instance", "code"} <= set(found)
        return found


async def read_reply(reader: asyncio.StreamReader, raw: bytes = b"") -> Reply:
    """Return the reply that begins with RAW, which was read already.

    Where it is the last one of its connection, the end of that is waited for as well.
    """
    closed = False
    with suppress(TimeoutError):
        async with asyncio.timeout(WITHIN):
            while not closed and not complete(raw):
                part = await reader.read(65536)
                raw, closed = raw + part, not part
        if not closed:
            reply = Reply(raw, closed)
            last = reply.headers.get("connection") == "close" or reply.version == "HTTP/1.0"
            async with asyncio.timeout(WITHIN if last else 0.1):
                closed = not await reader.read(1)
    return Reply(raw, closed)


def complete(raw: bytes) -> bool:
    """Return whether RAW holds a whole final response."""
    if raw.startswith(b"HTTP/1.1 100 "):
        raw = raw.partition(b"\r\n\r\n")[2]
    head, end, rest = raw.partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and bool(length) and len(rest) >= int(length[0].split(b":")[1])


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """Yield a server that cuts nobody off for being slow; tests of its limits lower them."""
    monkeypatch.setattr(connection, "HEADER_SECONDS", 600.0)
    monkeypatch.setattr(body, "READ_SECONDS", 600.0)
    handlers = Handlers()
    table = (
        Route("GET", "/open", handlers.plain, Role.PUBLIC, "open"),
        Route("GET", "/slow", handlers.slow, Role.PUBLIC, "slow"),
        Route("GET", "/endless", handlers.endless, Role.PUBLIC, "endless"),
        Route("POST", "/size", handlers.size, Role.PUBLIC, "size", peer=PeerRule.ANY),
        Route("POST", "/admin", handlers.size, Role.ADMIN, "admin"),
    )
    path, port = tmp_path / "run/helm.sock", free_port()
    server = HttpServer(application(table), path, holder_of)
    await server.start("127.0.0.1", port)
    try:
        yield Served(port, path, server, handlers)
    finally:
        handlers.go_on.set()
        await server.stop()


def get(path: bytes, *headers: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + b"".join(each + b"\r\n" for each in (b"Host: helm", *headers)) + b"\r\n"


def post(path: bytes, *headers: bytes, content: bytes = b"") -> bytes:
    head = b"".join(each + b"\r\n" for each in (b"Host: helm", *headers))
    return b"POST " + path + b" HTTP/1.1\r\n" + head + b"\r\n" + content


CHUNKED = b"Transfer-Encoding: chunked"

UNREADABLE = {
    "no request line": (b"GARBAGE\r\n\r\n", 400, "bad_request"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request"),
    "unknown method": (b"BREW /open HTTP/1.1\r\nHost: helm\r\n\r\n", 400, "bad_request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "HTTP/0.9": (b"GET /open\r\n\r\n", 505, "http_version"),
    "long URL": (get(b"/" + b"a" * 9000), 414, "uri_too_long"),
    "long header": (get(b"/open", b"X: " + b"a" * 9000), 431, "headers_too_large"),
    "no Host": (b"GET /open HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "target is not a URL": (get(b"http://[::1/open"), 400, "bad_request"),
    "two lengths": (post(b"/size", b"Content-Length: 3", b"Content-Length: 4", content=b"abcd"), 400, "bad_request"),
    "length and chunks": (post(b"/size", b"Content-Length: 3", CHUNKED, content=b"0\r\n\r\n"), 400, "bad_request"),
    "negative length": (post(b"/size", b"Content-Length: -3", content=b"abc"), 400, "bad_request"),
    "length of 30 digits": (post(b"/size", b"Content-Length: " + b"9" * 30), 400, "bad_request"),
    "bad chunk": (post(b"/size", CHUNKED, content=b"zz\r\nabc\r\n0\r\n\r\n"), 400, "bad_request"),
    "two codings": (post(b"/size", b"Transfer-Encoding: gzip, chunked", content=b"0\r\n"), 501, "transfer_encoding"),
    "NUL in a header": (get(b"/open", b"A: b\0c"), 400, "bad_request"),
    "NUL in the path": (get(b"/open%00"), 400, "usage"),
    "NUL in the query": (get(b"/open?q=a%00b"), 400, "usage"),
    "path is not UTF-8": (get(b"/%ff%fe"), 400, "usage"),
    "query is not UTF-8": (get(b"/open?q=\xff"), 400, "usage or bad_request"),  # aiohttp 3.11's parser refuses it
    "unknown expectation": (post(b"/size", b"Expect: a miracle", content=b""), 417, "expectation_failed"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "status", "code"), UNREADABLE.values(), ids=UNREADABLE)
async def test_what_is_refused_before_its_handler_gets_a_problem_document(
    served: Served, caplog: pytest.LogCaptureFixture, raw: bytes, status: int, code: str
) -> None:
    with caplog.at_level(logging.WARNING):
        reply = await served.send(raw)
    assert (reply.version, reply.status) == ("HTTP/1.1", status)
    assert reply.problem["code"] in code.split(" or ")
    assert reply.headers["server"] == "helm"
    logged = [record for record in caplog.records if record.name.startswith(("helmd", "aiohttp"))]
    assert not logged, "whoever sends nonsense does not fill the log"
    assert (await served.send(get(b"/open"))).status == 200


async def test_headers_have_a_limit_together(served: Served) -> None:
    many = [b"X-%d: %s" % (number, b"a" * 8000) for number in range(20)]
    reply = await served.send(get(b"/open", *many))
    assert (reply.status, reply.problem["code"], reply.closed) == (431, "headers_too_large", True)


async def test_http_1_0_and_head_are_answered(served: Served) -> None:
    reply = await served.send(b"GET /open HTTP/1.0\r\n\r\n")
    assert (reply.version, reply.status, reply.closed) == ("HTTP/1.0", 200, True)
    reader, writer = await served.connect()
    writer.write(b"HEAD /nothing HTTP/1.1\r\nHost: helm\r\nConnection: close\r\n\r\n")
    raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 404 ") and raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("coding", [b"br", b"gzip", b"zstd", b"gzip, gzip"])
async def test_a_content_encoding_is_refused_and_never_decoded(served: Served, coding: bytes) -> None:
    bomb = gzip.compress(b"\0" * (50 << 20))
    assert len(bomb) < LIMIT
    length = b"Content-Length: %d" % len(bomb)
    reply = await served.send(post(b"/size", b"Content-Encoding: " + coding, length, content=bomb))
    assert (reply.status, reply.problem["code"]) == (415, "content_encoding")
    assert reply.headers["accept-encoding"] == "identity"


async def test_a_body_that_is_too_large_is_refused_before_it_is_asked_for(served: Served) -> None:
    reply = await served.send(post(b"/size", b"Expect: 100-continue", b"Content-Length: %d" % (LIMIT + 1)))
    assert (reply.interim, reply.status, reply.problem["code"]) == (False, 413, "too_large")
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(("path", "status"), [(b"/admin", 401), (b"/nothing", 404), (b"/open", 405)])
async def test_a_body_that_nobody_wants_is_not_asked_for(served: Served, path: bytes, status: int) -> None:
    reply = await served.send(post(path, b"Expect: 100-continue", b"Content-Length: 3"))
    assert (reply.interim, reply.status) == (False, status)


async def test_a_body_that_is_wanted_is_asked_for(served: Served) -> None:
    reply = await served.send(post(b"/size", b"Expect: 100-continue", b"Content-Length: 3"), b"abc")
    assert (reply.interim, reply.status, reply.body) == (True, 200, b"3")


async def test_chunks_that_break_off_in_the_middle_are_answered_at_once(served: Served) -> None:
    """aiohttp leaves who waits for the body waiting."""
    reply = await served.send(post(b"/size", CHUNKED, content=b"3\r\nabc\r\n"), b"zz\r\n")
    assert (reply.status, reply.problem["code"], reply.closed) == (400, "bad_request", True)


async def test_a_body_without_length_is_bounded(served: Served) -> None:
    part = b"%x\r\n%s\r\n" % (300_000, b"a" * 300_000)
    reply = await served.send(post(b"/size", CHUNKED, content=part * 4))
    assert (reply.status, reply.problem["code"]) == (413, "too_large")


async def test_headers_that_trickle_in_are_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = await served.connect()
    await eventually(lambda: len(served.server.connections))
    # Counts from the request's first byte on.
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.3)
    writer.write(b"GET /open HTTP/1.1\r\n")
    begun = asyncio.create_task(reader.read(65536))
    for number in range(20):
        writer.write(b"X-%d: a\r\n" % number)
        # Whoever goes on writing to a connection that is closed meanwhile may not get to read the reply.
        if (await asyncio.wait({begun}, timeout=0.05))[0]:
            break
    reply = await read_reply(reader, await begun)
    writer.close()
    assert (reply.status, reply.problem["code"], reply.closed) == (408, "request_timeout", True)


async def test_later_requests_of_a_connection_have_a_time_limit_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await served.connect()
    writer.write(get(b"/open"))
    assert (await read_reply(reader)).status == 200
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.3)
    await asyncio.sleep(0.5)  # a connection that is kept alive may rest longer
    writer.write(b"GET /op")
    reply = await read_reply(reader)
    writer.close()
    assert (reply.status, reply.closed) == (408, True)


async def test_a_connection_without_any_request_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.2)
    reader, writer = await served.connect()
    assert await asyncio.wait_for(reader.read(), WITHIN) == b""
    writer.close()


async def test_a_body_that_trickles_in_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "READ_SECONDS", 0.3)
    reply = await served.send(post(b"/size", b"Content-Length: 10"), b"a", b"b")
    assert (reply.status, reply.problem["code"]) == (408, "request_timeout")
    assert reply.headers["connection"] == "close"


async def test_pipelined_requests_wait_unread_and_are_answered_in_order(served: Served) -> None:
    """A million of them behind a slow one would be a gigabyte of parsed requests."""
    reader, writer = await served.connect()
    sent = get(b"/slow") + b"".join(get(b"/open?n=%d" % number) for number in range(10_000))
    writer.write(sent)
    await eventually(lambda: served.handlers.handled)
    await asyncio.sleep(0.3)
    assert served.handlers.handled == 1
    (open_one,) = served.server.connections
    assert len(open_one._messages) < 1000
    assert len(open_one._unparsed) < 512 << 10, "nor is it read from the socket"
    served.handlers.go_on.set()
    await asyncio.wait_for(reader.readuntil(b'"done"'), WITHIN)
    for number in range(10_000):
        await asyncio.wait_for(reader.readuntil(b'["/open", {"n": "%d"}]' % number), WITHIN)
    writer.close()


async def test_a_body_comes_through_in_small_and_large_pieces(served: Served) -> None:
    reader, writer = await served.connect()
    for content in (b"a" * LIMIT, b"", b"b" * 70_001, b"c"):
        writer.write(post(b"/size", b"Content-Length: %d" % len(content), content=content) + get(b"/open"))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n%d" % len(content)), WITHIN)).startswith(
            b"HTTP/1.1 200"
        )
        await asyncio.wait_for(reader.readuntil(b'["/open", {}]'), WITHIN)
    writer.close()


async def test_when_there_are_too_many_connections_the_oldest_idle_one_goes(served: Served) -> None:
    served.server.connections.limit = 10
    idle = [await served.connect() for _ in range(5)]
    busy_reader, busy = await served.connect()
    busy.write(get(b"/slow"))
    await eventually(lambda: served.handlers.handled)
    # From one address at most half of them; and the one that is answered stays.
    more = [await served.connect() for _ in range(20)]
    reply = await served.send(get(b"/open"))
    assert reply.status == 200
    assert await asyncio.wait_for(idle[0][0].read(), WITHIN) == b""
    assert len(served.server.connections) <= 6
    unix_reader, unix = await asyncio.open_unix_connection(served.path)
    unix.write(get(b"/open"))
    assert (await read_reply(unix_reader)).status == 200
    served.handlers.go_on.set()
    assert (await read_reply(busy_reader)).status == 200
    for _, writer in (*idle, *more, (busy_reader, busy), (unix_reader, unix)):
        writer.close()


async def test_when_all_connections_are_busy_others_are_refused(served: Served) -> None:
    served.server.connections.limit = 6
    busy = [await served.connect() for _ in range(3)]
    for _, writer in busy:
        writer.write(get(b"/slow"))
    await eventually(lambda: served.handlers.handled == 3)
    reply = await served.send(get(b"/open"))
    assert (reply.status, reply.problem["code"], reply.headers["retry-after"]) == (503, "busy", "1")
    for _, writer in busy:
        writer.close()


# the end


async def test_at_the_end_requests_are_answered_and_kept_connections_get_a_last_one(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "GRACE_SECONDS", 300.0)
    monkeypatch.setattr(connection, "DRAIN_SECONDS", 600.0)
    slow_reader, slow = await served.connect()
    slow.write(get(b"/slow"))
    half_reader, half = await served.connect()
    half.write(post(b"/size", b"Content-Length: 6", content=b"abc"))
    kept = [await served.connect() for _ in range(20)]
    for reader, writer in kept:
        writer.write(get(b"/open"))
        assert (await read_reply(reader)).status == 200
    draining = asyncio.create_task(served.server.drain())
    await eventually(lambda: served.server.connections.closing)
    with pytest.raises(ConnectionError):
        await served.connect()
    for _, writer in kept:
        writer.write(get(b"/open"))
    for reader, writer in kept:
        reply = await read_reply(reader)
        assert (reply.status, reply.headers.get("connection"), reply.closed) == (200, "close", True)
        writer.close()
    half.write(b"def")
    assert (await read_reply(half_reader)).body == b"6"
    served.handlers.go_on.set()
    reply = await read_reply(slow_reader)
    assert (reply.body, reply.closed) == (b'"done"', True)
    await asyncio.wait_for(draining, WITHIN)
    slow.close()
    half.close()


async def test_at_the_end_nobody_keeps_helmd_waiting(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who follows, nor who says nothing, nor a request that takes forever."""
    monkeypatch.setattr(connection, "DRAIN_SECONDS", 600.0)
    follower_reader, follower = await served.connect()
    follower.write(get(b"/endless"))
    idle_reader, idle = await served.connect()
    stuck_reader, stuck = await served.connect()
    stuck.write(get(b"/slow"))
    await eventually(lambda: served.handlers.handled == 2)
    draining = asyncio.create_task(served.server.drain())
    assert b"more" in await asyncio.wait_for(follower_reader.read(), WITHIN)
    assert await asyncio.wait_for(idle_reader.read(), WITHIN) == b""
    await asyncio.sleep(2 * connection.GRACE_SECONDS)
    assert not draining.done(), "a request without a response has longer than these"
    monkeypatch.setattr(connection, "DRAIN_SECONDS", 1.0)
    await asyncio.wait_for(draining, WITHIN)
    assert await asyncio.wait_for(stuck_reader.read(), WITHIN) == b""
    for writer in (follower, idle, stuck):
        writer.close()


async def test_limits_follow_the_limit_on_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 300))
    assert connection.connection_limit() == 100
    monkeypatch.setattr(resource, "getrlimit", lambda _: (524288, 524288))
    assert connection.connection_limit() == connection.MAX_CONNECTIONS
