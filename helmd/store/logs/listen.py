"""Listening for the notifications that writers send with each commit, and reading the new entries."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from helmd.model.logs.notify_payload import Announcement
from helmd.store.ingest.ingested import newest_id
from helmd.store.ingest.logs import LOG_CHANNEL
from helmd.store.logs.entries import StoredEntry, after
from helmd.store.session import Connection, abort_connection, connect, deadline, store_errors

_TIMEOUT_SECONDS = 10.0


class Listener:
    """A dedicated connection with LISTEN. After a StoreError it must be closed and a new one opened."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last_id = 0
        self._leaves: set[str] = set()
        self._anywhere = False
        connection.add_notify_handler(lambda notification: self._handle(notification.payload))

    @classmethod
    async def open(cls, conninfo: str, application: str) -> "Listener":
        """Connect and listen. Raises StoreError."""
        connection = await connect(conninfo, application, _TIMEOUT_SECONDS)
        try:
            with store_errors("new log entries can't be listened for"), deadline(connection, _TIMEOUT_SECONDS):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(LOG_CHANNEL)))
        except BaseException:
            abort_connection(connection)
            await connection.close()
            raise
        return cls(connection)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def next(self, seconds: float) -> Announcement | None:
        """Return the notifications since the last call, merged into one, or None if there is none within SECONDS.

        Raises StoreError if the connection is lost.
        """
        if not self._last_id:
            await self._readable(seconds)
            with store_errors("new log entries can't be listened for"):
                self._consume()
        if not self._last_id:
            return None
        notified = Announcement(self._last_id, () if self._anywhere else tuple(sorted(self._leaves)))
        self._last_id, self._leaves, self._anywhere = 0, set(), False
        return notified

    async def newest_id(self) -> int:
        """Return the highest id in the store. Raises StoreError."""
        with deadline(self._connection, _TIMEOUT_SECONDS):
            return await newest_id(self._connection)

    async def after(self, last_seen: int, up_to: int, limit: int, leaves: Sequence[str] = ()) -> list[StoredEntry]:
        """Return entries as `helmd.store.logs.entries.after` does. Raises StoreError."""
        with deadline(self._connection, _TIMEOUT_SECONDS):
            return await after(self._connection, last_seen, up_to, limit, leaves)

    async def _readable(self, seconds: float) -> None:
        """Wait until the connection is readable, at most for SECONDS.

        psycopg's ``notifies()`` is not used, since cancelling it leaves the connection locked or in an unknown state.
        """
        with store_errors("new log entries can't be listened for"):
            number = self._connection.fileno()
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(number, readable.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await readable.wait()
        finally:
            loop.remove_reader(number)

    def _consume(self) -> None:
        pgconn = self._connection.pgconn
        pgconn.consume_input()
        while notification := pgconn.notifies():
            self._handle(notification.extra.decode("utf-8", "replace"))
        if pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("the connection is lost")

    def _handle(self, payload: str) -> None:
        notified = Announcement.parse(payload)
        if notified is None:
            return
        self._last_id = max(self._last_id, notified.last_id)
        self._leaves.update(notified.leaves)
        self._anywhere |= not notified.leaves
