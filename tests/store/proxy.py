"""A line to PostgreSQL that can be cut: at any time, or when the server has committed and its answer is on the way."""

import asyncio
import os
from pathlib import Path


class Proxy:
    """Listens as a PostgreSQL socket in ``directory`` and passes everything on; an async context manager."""

    def __init__(self, directory: Path, server: Path) -> None:
        self.directory = directory
        self._server = server / ".s.PGSQL.5432"
        self._pairs: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lose_answers_to_commit = 0
        """How many of the next COMMITs are carried out while the client never receives the reply."""
        self.lost = 0

    async def __aenter__(self) -> "Proxy":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Take connections from now on."""
        self._listener = await asyncio.start_unix_server(self._serve, self.directory / ".s.PGSQL.5432")

    async def close(self) -> None:
        """Refuse connections and cut those that are open."""
        self._listener.close()
        (self.directory / ".s.PGSQL.5432").unlink(missing_ok=True)
        while self._tasks:  # also those that only now get through to the server
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.05)
        await self._listener.wait_closed()  # since Python 3.12 also for the end of all connections

    def cut(self) -> None:
        """Break all connections, both ways."""
        for writer in self._pairs:
            writer.transport.abort()

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._tasks.add(serving)
        from_server, to_server = await asyncio.open_unix_connection(os.fspath(self._server))
        self._pairs |= {to_client, to_server}
        silent = asyncio.Event()
        tasks = {
            asyncio.create_task(self._pass_on(from_client, to_server, silent, watch=True)),
            asyncio.create_task(self._pass_on(from_server, to_client, silent, watch=False)),
        }
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for writer in (to_client, to_server):
            writer.transport.abort()
        await asyncio.wait(tasks)
        self._pairs -= {to_client, to_server}
        self._tasks.discard(serving)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, silent: asyncio.Event, *, watch: bool
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                if watch and self.lose_answers_to_commit and b"COMMIT\0" in data:
                    self.lose_answers_to_commit -= 1
                    silent.set()
                if not watch and silent.is_set():
                    # The server has answered, so it has committed; only the client does not know.
                    self.lost += 1
                    return
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
