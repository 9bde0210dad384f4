"""helmd's connections to Core and Keycloak: nothing is sent to another unit that listens on their port."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import aiohttp
import pytest

from helmd.health.peers import Peers
from helmd.health.sock_diag import socket_between
from helmd.model.identity.peer import Peer, Place
from helmd.model.suite.service import Registry, Service
from helmd.web.auth.connector import CheckedConnector, WrongServerError, server_refusal, units_by_port
from helmd.web.auth.core import Core, CoreUnreachableError, core_session
from tests.waiting import WITHIN

UNIT = "hivematrix-core.service"
CORE = Peer(Place.HERE, "127.0.0.1", UNIT, owned=True)
CODEX = Peer(Place.HERE, "127.0.0.1", "hivematrix-codex.service", owned=True)


@pytest.mark.parametrize(
    ("peer", "refused"),
    [
        (CORE, False),
        (CODEX, True),
        (Peer(Place.HERE, "127.0.0.1", UNIT), True),
        (Peer(Place.HERE, "127.0.0.1", "session-3.scope"), True),
        (Peer(Place.UNKNOWN, "127.0.0.1"), True),
        (Peer(Place.ELSEWHERE, "198.51.100.3"), False),
    ],
    ids=["its own", "a service", "another account's", "a session", "unknown", "another host"],
)
def test_who_may_be_there(peer: Peer, refused: bool) -> None:
    assert (server_refusal(peer, 5000, UNIT) is not None) is refused


def test_ports_of_the_suites_own_services_are_checked() -> None:
    services = (
        Service("core", port=5000),
        Service("keycloak", "external", url="https://id.example:8443", port=8443),
        Service("worker", "command"),
    )
    assert units_by_port(Registry({each.name: each for each in services})) == {5000: UNIT}


async def test_a_service_on_cores_port_gets_nothing_and_gives_nothing() -> None:
    received = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not received.endswith(b"}") and (part := await reader.read(4096)):
            received.extend(part)
        body = json.dumps({"valid": True, "user": {}}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        await reader.read(4096)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = [CODEX]
    connector = CheckedConnector(lambda _: found[-1])
    connector.units = {port: UNIT}
    try:
        async with core_session(connector) as session:
            core = Core(session, f"http://127.0.0.1:{port}")
            with pytest.raises(CoreUnreachableError, match=f"port {port} is taken by hivematrix-codex.service"):
                await core.lasts("a-secret-token")
            assert not received
            found.append(CORE)
            assert await core.lasts("a-secret-token") and b"a-secret-token" in received
            received.clear()
            # The connection is used again, and looked at again.
            found.append(CODEX)
            with pytest.raises(CoreUnreachableError):
                await core.lasts("a-secret-token")
            assert not received
            connector.units = {}
            assert await core.lasts("a-secret-token"), "a port that no service of the suite has"
    finally:
        server.close()
        await server.wait_closed()


async def test_who_can_not_be_determined_at_once_is_looked_at_again() -> None:
    """A kept connection whose server has just ended, or a handshake that is not through yet; a refusal stays one."""
    unknown = Peer(Place.UNKNOWN, "127.0.0.1")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4096):
            writer.write(b"HTTP/1.0 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answers: list[Peer] = []
    connector = CheckedConnector(lambda _: answers.pop(0))
    connector.units = {port: UNIT}
    timeout = aiohttp.ClientTimeout(total=WITHIN)
    try:
        async with core_session(connector) as session:
            for given, looks, error in (
                ([unknown, CORE], 2, None),
                ([unknown, unknown, unknown, CORE], 3, WrongServerError),
                ([unknown, CODEX, CORE], 2, WrongServerError),
            ):
                answers[:] = given
                with nullcontext() if error is None else pytest.raises(error):
                    await session.get(f"http://127.0.0.1:{port}/", timeout=timeout)
                assert len(given) - len(answers) == looks
    finally:
        server.close()
        await server.wait_closed()


@contextmanager
def client_of(listener: socket.socket) -> Iterator[socket.socket]:
    with closing(socket.create_connection(listener.getsockname())) as client:
        yield client


def test_the_kernel_names_the_unit_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before it accepts the connection: the socket has the control group of the one that listens."""
    paths: dict[int | None, str] = {}
    monkeypatch.setattr(Peers, "_path", lambda self, number: paths.get(number))
    with socket.create_server(("127.0.0.1", 0)) as listener, client_of(listener) as client:
        peers = Peers(os.getuid())
        own = socket_between(*client.getpeername()[:2], *client.getsockname()[:2])
        assert own is not None and own.control_group is not None
        manager = f"/user.slice/user-{os.getuid()}.slice/user@{os.getuid()}.service"
        paths[own.control_group] = f"{manager}/app.slice/{UNIT}"
        assert peers.peer(client) == Peer(Place.HERE, "127.0.0.1", UNIT, owned=True)


def test_the_error_is_one_of_a_connection() -> None:
    """So that whoever asks takes it for a server that is away."""
    assert issubclass(WrongServerError, aiohttp.ClientError)
