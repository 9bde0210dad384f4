"""The forwarder of a private network, from published ports of the host to ports on the sandbox's loopback.

It runs as a separate process, in the sandbox's cgroup, from `scripts/sandbox up` until the sandbox ends.
"""

import asyncio
import socket
from contextlib import suppress
from functools import partial

from .enter import CLONE_NEWNET, setns
from .network import LOOPBACK


def forward(namespace: int, pairs: list[str]) -> None:
    """Accept connections on sockets of the host and connect in the sandbox, until killed."""
    listeners: list[tuple[socket.socket, int]] = []
    for pair in pairs:
        descriptor, _, port = pair.partition(":")
        listeners.append((socket.socket(fileno=int(descriptor)), int(port)))
    setns(namespace, CLONE_NEWNET)  # existing sockets stay in their namespace

    async def serve() -> None:
        for listener, port in listeners:
            await asyncio.start_server(partial(_relay, port), sock=listener)
        await asyncio.Event().wait()

    asyncio.run(serve())


async def _relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        # If nothing listens inside, reset the connection, which is closest to a refusal.
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
    finally:
        for end in (writer, inner_writer):
            end.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while block := await source.read(1 << 16):
            sink.write(block)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
