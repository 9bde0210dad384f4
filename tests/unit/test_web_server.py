"""The application on real sockets: who gets in, what errors look like, what happens to the sockets."""

import asyncio
import importlib
import logging
import os
import pkgutil
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import helmd
from helmd.health.listeners import holder_of
from helmd.model.errors import ConfigurationError, Fault, HelmError, LockedError, PortTakenError, StartFailedError
from helmd.model.problems import PROBLEMS
from helmd.web import server as web_server
from helmd.web.auth.roles import Role
from helmd.web.route import Route
from helmd.web.server import Activated, HttpServer, application, bind_tcp, bind_unix
from tests.free_ports import free_port
from tests.waiting import WITHIN, eventually


async def who(request: web.Request) -> web.Response:
    identity = request["identity"]
    return web.json_response(None if identity is None else [identity.name, identity.role, identity.via])


async def break_down(request: web.Request) -> web.Response:
    raise RuntimeError("a fault nobody foresaw")


async def fail(request: web.Request) -> web.Response:
    raise StartFailedError("core exited with code 1", hint="Look at its log.", lines=["boom"])


async def refuse(request: web.Request) -> web.Response:
    raise ConfigurationError([Fault("services.toml", 3, "services.core.port", "is not a port")])


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    raise RuntimeError("a fault in the middle")


TABLE = (
    Route("GET", "/broken-off", break_off, Role.PUBLIC, "aborted"),
    Route("GET", "/open", who, Role.PUBLIC, "open"),
    Route("GET", "/guarded", who, Role.CLIENT, "guarded"),
    Route("POST", "/admin", who, Role.ADMIN, "admin"),
    Route("GET", "/broken", break_down, Role.PUBLIC, "broken"),
    Route("GET", "/failed", fail, Role.PUBLIC, "failed"),
    Route("GET", "/refused", refuse, Role.PUBLIC, "refused"),
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Path, int]]:
    """Yield the unix socket and the TCP port of a running server."""
    path, port = tmp_path / "run" / "helm.sock", free_port()
    server = HttpServer(application(TABLE), path, holder_of)
    await server.start("127.0.0.1", port)
    try:
        yield path, port
    finally:
        await server.stop()


Answer = tuple[int, Any, Any]


async def over_tcp(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    async with aiohttp.ClientSession() as session:
        async with session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers


async def over_unix(socket_path: Path, path: str, method: str = "GET") -> Answer:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket_path))) as session:
        async with session.request(method, f"http://helm{path}") as answer:
            return answer.status, await answer.json(content_type=None), answer.headers


async def test_a_fault_in_the_middle_of_a_stream_ends_the_connection(
    served: tuple[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Its reader sees that it did not end, and connects again; the log has the cause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served[1])
    writer.write(b"GET /broken-off HTTP/1.1\r\nHost: helm\r\nX-Correlation-ID: off-1\r\n\r\n")
    async with asyncio.timeout(WITHIN):
        given = await reader.read(-1)
    writer.close()
    head, _, body = given.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and body == b"9\r\ndata: 1\n\n\r\n", given
    (logged,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "/broken-off was aborted (correlation id off-1)" in logged.getMessage() and logged.exc_info
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{served[1]}/broken-off") as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_the_account_itself_is_admin_over_the_unix_socket(served: tuple[Path, int]) -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    for path, method in (("/guarded", "GET"), ("/admin", "POST"), ("/helm/guarded", "GET"), ("/open", "GET")):
        status, body, _ = await over_unix(served[0], path, method)
        assert (status, body) == (200, [name, "admin", "socket"])


async def test_over_tcp_only_what_is_public_is_open(served: tuple[Path, int]) -> None:
    assert (await over_tcp(served[1], "/open"))[:2] == (200, None)
    for path, method in (("/guarded", "GET"), ("/helm/admin", "POST")):
        status, body, headers = await over_tcp(served[1], path, method, Authorization="Bearer anything")
        assert (status, body["code"], body["error"]) == (401, "no_credential", body["detail"])
        assert headers["WWW-Authenticate"] == 'Bearer realm="helm"'


async def test_another_account_is_turned_away_even_when_it_reaches_the_socket(served: tuple[Path, int]) -> None:
    """Only root can become somebody else to try; as anybody else the file's mode is all there is to see."""
    path = served[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    if os.getuid() != 0:
        return
    path.chmod(0o666)
    nobody = pwd.getpwnam("nobody").pw_uid
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1])\n"
        "os.setgroups([]); os.setuid(int(sys.argv[2]))\n"
        "s.connect('helm.sock')\n"
        "s.sendall(b'GET /guarded HTTP/1.0\\r\\n\\r\\n'); print(s.recv(999).split()[1].decode())\n"
    )
    for directory in (path.parent, *path.parent.parents):
        if not directory.stat().st_mode & 0o001 and directory.stat().st_uid == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    words = [sys.executable, "-c", program, str(path.parent), str(nobody)]
    notified = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=WITHIN)
    assert notified.stdout.strip() == "403", notified.stderr


async def test_many_clients_may_come_at_once(served: tuple[Path, int]) -> None:
    """A full queue of a unix socket turns clients away with EAGAIN, where one of a TCP socket lets them wait."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    try:
        for client in clients:
            client.setblocking(False)
            client.connect(str(served[0]))  # nobody accepts meanwhile: the server is a task of this thread
    finally:
        for client in clients:
            client.close()
    assert (await over_unix(served[0], "/open"))[0] == 200
    await asyncio.sleep(0.1)  # for the server to see that they are gone


async def test_an_error_is_a_problem_document(served: tuple[Path, int]) -> None:
    status, body, headers = await over_tcp(served[1], "/helm/failed")
    assert (status, headers["Content-Type"]) == (500, "application/problem+json")
    assert body == {
        "type": "/helm/docs/problems/start_failed",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "core exited with code 1",
        "instance": "/helm/failed",
        "code": "start_failed",
        "error": "core exited with code 1",
        "hint": "Look at its log.",
        "lines": ["boom"],
    }


async def test_faults_of_the_configuration_are_listed(served: tuple[Path, int]) -> None:
    status, body, _ = await over_tcp(served[1], "/refused")
    assert (status, body["faults"]) == (422, ["services.toml:3: services.core.port: is not a port"])


async def test_what_nobody_foresaw_is_logged_under_the_correlation_id_and_not_shown(
    served: tuple[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status, body, _ = await over_tcp(served[1], "/broken", **{"X-Correlation-ID": "abc-123"})
    assert (status, body["code"], body["correlation_id"]) == (500, "internal", "abc-123")
    assert "nobody foresaw" not in str(body)
    assert "abc-123" in caplog.text
    assert "RuntimeError: a fault nobody foresaw" in caplog.text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/open", 405)])
async def test_what_is_not_there_is_a_problem_too(
    served: tuple[Path, int], method: str, path: str, status: int
) -> None:
    code, body, headers = await over_tcp(served[1], path, method)
    assert (code, body["status"], body["instance"]) == (status, status, path)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers.get("Allow") == ("GET, HEAD" if status == 405 else None)


async def test_a_correlation_id_is_echoed_when_harmless_and_made_otherwise(served: tuple[Path, int]) -> None:
    for given in ("3ebc7ed0-e20f-43bb-a535-30a5f6b03d83", "req_1:2.3"):
        assert (await over_tcp(served[1], "/open", **{"X-Correlation-ID": given}))[2]["X-Correlation-ID"] == given
    made = set()
    for given in ("", "a b", "<script>", "x" * 129, "é"):
        made.add((await over_tcp(served[1], "/open", **{"X-Correlation-ID": given}))[2]["X-Correlation-ID"])
    assert len(made) == 5
    assert all(len(one) == 36 for one in made)


async def test_security_headers_are_on_every_answer(served: tuple[Path, int]) -> None:
    for path in ("/open", "/guarded", "/nothing", "/broken"):
        headers = (await over_tcp(served[1], path))[2]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "aiohttp" not in headers["Server"]


def errors(kind: type[HelmError] = HelmError) -> Iterator[type[HelmError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from errors(below)


def test_every_error_has_its_http_status() -> None:
    for module in pkgutil.walk_packages(helmd.__path__, "helmd."):
        importlib.import_module(module.name)
    assert {kind.code for kind in errors() if kind.__module__.startswith("helmd.")} <= set(PROBLEMS)


async def test_a_socket_that_a_dead_helmd_left_is_replaced_and_ours_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "helm.sock"
    bind_unix(path).close()
    assert path.exists()
    server = HttpServer(application(TABLE), path, holder_of)
    await server.start("127.0.0.1", free_port())
    assert (await over_unix(path, "/open"))[0] == 200
    await server.stop()
    assert not path.exists()


async def test_a_living_helmds_socket_is_left_alone(served: tuple[Path, int]) -> None:
    with pytest.raises(LockedError, match="another helmd"):
        bind_unix(served[0])
    assert (await over_unix(served[0], "/open"))[0] == 200


def test_what_is_no_socket_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "helm.sock"
    path.write_text("precious")
    with pytest.raises(LockedError, match="not a socket"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_a_taken_port_is_reported_with_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        with pytest.raises(PortTakenError, match=f"pid {os.getpid()}"):
            bind_tcp("127.0.0.1", holder.getsockname()[1], holder_of)


def test_an_address_that_is_not_ours_is_reported() -> None:
    with pytest.raises(HelmError, match=r"can't listen on 203\.0\.113\.9"):
        bind_tcp("203.0.113.9", free_port(), holder_of)


async def test_another_port_is_taken_up_while_serving(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    server = HttpServer(application(TABLE), tmp_path / "helm.sock", holder_of)
    await server.start("127.0.0.1", first)
    try:
        await server.listen("127.0.0.1", second)
        assert (await over_tcp(second, "/open"))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await over_tcp(first, "/open")
        with socket.create_server(("127.0.0.1", 0)) as holder:
            with pytest.raises(PortTakenError):
                await server.listen("127.0.0.1", holder.getsockname()[1])
        assert (await over_tcp(second, "/open"))[0] == 200
    finally:
        await server.stop()


async def test_connections_outlive_the_address_they_came_by(served: tuple[Path, int], tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    server = HttpServer(application(TABLE), tmp_path / "helm.sock", holder_of)
    await server.start("127.0.0.1", first)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "helm.sock"), limit=1)) as kept:
            assert (await kept.get("http://helm/open")).status == 200
            (connection,) = list(server.connections)
            await server.listen("127.0.0.1", second)
            assert (await kept.get("http://helm/open")).status == 200
            assert list(server.connections) == [connection]
    finally:
        await server.stop()


async def test_a_taken_port_costs_tcp_alone_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web_server, "LISTEN_RETRY_SECONDS", 0.1)
    path = tmp_path / "helm.sock"
    server = HttpServer(application(TABLE), path, holder_of)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        await server.start("127.0.0.1", port)
        running = asyncio.create_task(server.run(lambda: said.append(server.trouble)))
        assert server.trouble.startswith(f"TCP: port {port} is taken by pid {os.getpid()}")
        assert server.trouble[5:] in caplog.text
        assert (await over_unix(path, "/open"))[0] == 200
        await asyncio.sleep(0.3)
    await eventually(lambda: not server.trouble and said[-1:] == [""])
    assert (await over_tcp(port, "/open"))[0] == 200
    running.cancel()
    await server.stop()


async def test_sockets_of_systemds_are_served_and_left_in_place(tmp_path: Path) -> None:
    path = tmp_path / "helm.sock"
    unix, tcp = bind_unix(path), socket.create_server(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    for _ in range(2):
        server = HttpServer(application(TABLE), path, holder_of, Activated((unix.dup(),), (tcp.dup(),)))
        await server.start("127.0.0.1", port)
        assert server.trouble == ""
        assert (await over_unix(path, "/open"))[0] == (await over_tcp(port, "/open"))[0] == 200
        await server.listen("127.0.0.1", port + 1)
        assert "helmctl apply" in server.trouble, "another port is for systemd to listen on"
        await server.drain()
        await server.stop()
        assert path.exists()
        # Nobody is refused meanwhile.
        socket.create_connection(("127.0.0.1", port)).close()
    unix.close()
    tcp.close()


async def test_without_systemds_tcp_socket_that_one_is_made(tmp_path: Path) -> None:
    path, port = tmp_path / "helm.sock", free_port()
    unix = bind_unix(path)
    server = HttpServer(application(TABLE), path, holder_of, Activated((unix,)))
    await server.start("127.0.0.1", port)
    assert (await over_unix(path, "/open"))[0] == (await over_tcp(port, "/open"))[0] == 200
    await server.stop()


async def test_whoever_connects_while_it_ends_is_served_by_it_or_by_the_next(tmp_path: Path) -> None:
    """Also a connection that was accepted just before."""
    unix, tcp = bind_unix(tmp_path / "helm.sock"), socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = tcp.getsockname()[1]
    server = HttpServer(application(TABLE), tmp_path / "helm.sock", holder_of, Activated((unix.dup(),), (tcp.dup(),)))
    await server.start("127.0.0.1", port)

    clients = []
    for steps in range(6):
        for _ in range(10):
            client = socket.create_connection(("127.0.0.1", port), 10)
            client.sendall(b"GET /open HTTP/1.0\r\n\r\n")
            clients.append(client)
        # In one of these steps of the event loop they are accepted, and have no transport yet.
        for _ in range(steps):
            await asyncio.sleep(0)
        await server.drain()
        await server.stop()
        after = Activated((unix.dup(),), (tcp.dup(),))
        server = HttpServer(application(TABLE), tmp_path / "helm.sock", holder_of, after)
        await server.start("127.0.0.1", port)
    for client in clients:
        assert (await asyncio.to_thread(client.recv, 12)) == b"HTTP/1.0 200"
        client.close()
    await server.stop()
    unix.close()
    tcp.close()
