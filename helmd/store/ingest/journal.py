"""The store as the one process that reads an account's journal sees it: rows, and with them how far it was read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from helmd.model.errors import StoreError
from helmd.model.ingest.journal_codec import PostedRow
from helmd.model.logs.entry import LogRow
from helmd.model.logs.parsing.position import Position
from helmd.store.ingest.copy_text import RetentionOf
from helmd.store.ingest.logs import Appender
from helmd.store.ingest.requests import admit
from helmd.store.session import LOCK_CLASS, Connection, connect, deadline, store_errors

_ANSWER_SECONDS = 20.0
"""How long the store may take over a batch before the connection counts as dead."""

_INSERT_POSITION = """
    INSERT INTO journal_cursor (machine_id, uid, boot_id, cursor, realtime, monotonic, ties, finished, pending)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_MOVE_POSITION = """
    UPDATE journal_cursor
    SET cursor = %s, realtime = %s, monotonic = %s, ties = %s, finished = %s, pending = %s, updated_at = now()
    WHERE (machine_id, uid, boot_id) = (%s, %s, %s)
      AND (cursor, monotonic, ties, finished) = (%s, %s, %s, %s)
"""


class PositionMovedError(StoreError):
    """The stored position is not the one that was read on from. Nothing was stored; read again from where it is."""


class IngestTakenError(StoreError):
    """Another process is storing this account's journal right now."""


class JournalStore:
    """On a connection of its own.

    After any error the connection is gone and a new JournalStore has to be opened: then what was in doubt has either
    been committed or not, and the stored position tells which.
    """

    def __init__(self, connection: Connection, machine_id: str, uid: int, retention_of: RetentionOf) -> None:
        self._connection = connection
        self._machine_id = machine_id
        self._uid = uid
        self._appender = Appender(retention_of)

    @classmethod
    async def open(cls, conninfo: str, machine_id: str, uid: int, retention_of: RetentionOf) -> "JournalStore":
        """Connect and become the only one to store this account's journal. Raises StoreError, IngestTakenError."""
        connection = await connect(conninfo, "helmd-journal", _ANSWER_SECONDS)
        try:
            with store_errors("the log store can't be used"), deadline(connection, _ANSWER_SECONDS):
                key = crc32(f"{machine_id}/{uid}".encode()) - 2**31
                cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS + 1, key))
                found = await cursor.fetchone()
            if found is None or not found[0]:
                raise IngestTakenError("another process is storing this account's journal")
        except BaseException:
            await connection.close()
            raise
        return cls(connection, machine_id, uid, retention_of)

    async def close(self) -> None:
        """Let go of the connection and, with it, of the right to store."""
        await self._connection.close()

    async def positions(self) -> dict[str, Position]:
        """How far each boot of the journal was read and stored, by boot id. Raises StoreError."""
        with store_errors("the journal's position can't be read"), deadline(self._connection, _ANSWER_SECONDS):
            cursor = await self._connection.execute(
                "SELECT boot_id, cursor, realtime, monotonic, ties, finished FROM journal_cursor"
                " WHERE (machine_id, uid) = (%s, %s)",
                (self._machine_id, self._uid),
            )
            return {row[0]: Position(*row) async for row in cursor}

    async def kept(self, boot_id: str) -> dict[str, Any]:
        """What was stored with a boot's position: entries that were begun before it. Raises StoreError."""
        with store_errors("the journal's position can't be read"), deadline(self._connection, _ANSWER_SECONDS):
            cursor = await self._connection.execute(
                "SELECT pending FROM journal_cursor WHERE (machine_id, uid, boot_id) = (%s, %s, %s)",
                (self._machine_id, self._uid, boot_id),
            )
            found = await cursor.fetchone()
        return found[0] if found is not None and isinstance(found[0], dict) else {}

    async def append(
        self,
        rows: Sequence[LogRow],
        position: Position,
        before: Position | None,
        kept: Mapping[str, Any] | None = None,
        posted: Sequence[PostedRow] = (),
    ) -> None:
        """Store rows, POSITION and what is KEPT with it together, or none; BEFORE is what is stored for that boot now.

        POSTED are rows that helmd put into the journal, of which some may be in the store already.

        Raises PositionMovedError when it is not, StoreError when the outcome is unknown or the store refuses.
        """
        try:
            with store_errors("log entries can't be stored"), deadline(self._connection, _ANSWER_SECONDS):
                await self._connection.execute("BEGIN")
                # First of all: a rival, or this process' own former connection still at its commit, holds this row.
                await self._move(position, before, kept)
                admitted = await admit(self._connection, posted) if posted else []
                await self._appender.append(self._connection, [*rows, *admitted])
                await self._connection.execute("COMMIT")
        except BaseException:
            # No word to a server that may not answer: without a connection it rolls back by itself.
            await self._connection.close()
            raise

    async def _move(self, position: Position, before: Position | None, pending: Mapping[str, Any] | None) -> None:
        key = (self._machine_id, self._uid, position.boot_id)
        kept = json.dumps(pending, ensure_ascii=False) if pending else None
        value = (position.cursor, position.realtime, position.monotonic, position.ties, position.finished, kept)
        if before is None:
            done = await self._connection.execute(_INSERT_POSITION, key + value)
        else:
            known = (before.cursor, before.monotonic, before.ties, before.finished)
            done = await self._connection.execute(_MOVE_POSITION, value + key + known, prepare=True)
        if done.rowcount != 1:
            raise PositionMovedError("the journal was stored further by somebody else")
