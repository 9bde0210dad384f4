"""Storing an account's journal: log rows, and in the same transaction the position up to which it was read."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

import psycopg

from helmd.model.errors import CONTENT_FAULTS, StoreError
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import LogRow, datetime_of
from helmd.model.logs.parsing.journal_fields import fault_row, text_row
from helmd.model.logs.parsing.position import Position
from helmd.store.ingest.copy_text import RetentionOf
from helmd.store.ingest.logs import Appender
from helmd.store.ingest.requests import admit, is_refusal
from helmd.store.session import LOCK_CLASS, Connection, connect, deadline, reason, store_errors

_ANSWER_SECONDS = 20.0
"""Time limit for a batch, after which the connection is closed."""
_MOST_SPLITS = 400
"""How often a batch with rows that PostgreSQL refuses is split; the parts left then are stored as text only."""

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


_log = logging.getLogger(__name__)

Part = TypeVar("Part")


class PositionMovedError(StoreError):
    """The stored position is not the one before the rows. Nothing was stored; reading must restart there."""


class IngestTakenError(StoreError):
    """Another process stores this account's journal."""


class JournalStore:
    """The store of an account's journal, for one process at a time, on a connection of its own.

    After an error of `append` the connection is closed, and a new JournalStore must be opened: its stored positions
    show whether the transaction was committed.
    """

    def __init__(self, connection: Connection, machine_id: str, uid: int, retention_of: RetentionOf) -> None:
        self._connection = connection
        self._machine_id = machine_id
        self._uid = uid
        self._retention_of = retention_of
        self._appender = Appender(retention_of)

    @classmethod
    async def open(cls, conninfo: str, machine_id: str, uid: int, retention_of: RetentionOf) -> "JournalStore":
        """Connect and take the advisory lock of this account's journal. Raises StoreError, IngestTakenError."""
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
        """Close the connection, which releases the lock."""
        await self._connection.close()

    async def positions(self) -> dict[str, Position]:
        """Return the stored position in each boot of the journal, by boot id. Raises StoreError."""
        with store_errors("the journal's position can't be read"), deadline(self._connection, _ANSWER_SECONDS):
            cursor = await self._connection.execute(
                "SELECT boot_id, cursor, realtime, monotonic, ties, finished FROM journal_cursor"
                " WHERE (machine_id, uid) = (%s, %s)",
                (self._machine_id, self._uid),
            )
            return {row[0]: Position(*row) async for row in cursor}

    async def pending(self, boot_id: str) -> dict[str, Any]:
        """Return the state stored with a boot's position, such as unfinished entries. Raises StoreError."""
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
        pending: Mapping[str, Any] | None = None,
        posted: Sequence[PostedRow] = (),
    ) -> None:
        """Store ROWS, POSITION and the PENDING state in one transaction; BEFORE is the boot's stored position.

        POSTED are rows that Helm wrote to the journal, of which some may be stored already. A row that PostgreSQL
        refuses for its content is stored as text only, or replaced by a row that reports it.

        Raises PositionMovedError if BEFORE is not stored, StoreError if the outcome is unknown or the store fails.
        """
        try:
            with store_errors("log entries can't be stored"), deadline(self._connection, _ANSWER_SECONDS):
                try:
                    await self._connection.execute("BEGIN")
                    # First, since it waits for a commit of another process, or of this one's former connection.
                    await self._move(position, before, pending)
                    admitted = await admit(self._connection, posted) if posted else []
                    await self._appender.append(self._connection, [*rows, *admitted])
                except (psycopg.Error, *CONTENT_FAULTS) as fault:
                    if not _is_of_content(fault):
                        raise
                    await self._connection.execute("ROLLBACK")
                    await self._append_isolating(rows, position, before, pending, posted, fault)
                await self._connection.execute("COMMIT")
        except CONTENT_FAULTS as fault:
            await self._connection.close()
            raise StoreError(f"log entries can't be stored: {_sentence(fault)}") from fault
        except BaseException:
            # No ROLLBACK, since the server may not answer; it rolls back when the connection is closed.
            await self._connection.close()
            raise

    async def _append_isolating(
        self,
        rows: Sequence[LogRow],
        position: Position,
        before: Position | None,
        pending: Mapping[str, Any] | None,
        posted: Sequence[PostedRow],
        fault: Exception,
    ) -> None:
        """After FAULT, begin another transaction, and halve the batch until the refused rows are found."""
        _log.warning("the log store refuses log entries of the journal: %s; storing the others", _sentence(fault))
        self._appender = Appender(self._retention_of)
        await self._connection.execute("BEGIN")
        try:
            async with self._connection.transaction():
                await self._move(position, before, pending)
        except (psycopg.Error, *CONTENT_FAULTS) as error:
            if not _is_of_content(error):
                raise
            _log.warning("unfinished log entries can't be kept for a restart: %s", _sentence(error))
            await self._move(position, before, None)
        splits = _Splits()
        # A row's own time may be why it is refused.
        now = datetime_of(position.realtime)
        admitted: list[LogRow] = []

        async def admit_part(part: Sequence[PostedRow]) -> None:
            admitted.extend(await admit(self._connection, part))

        async def store(part: Sequence[LogRow]) -> None:
            await self._appender.append(self._connection, part)

        async def store_as_text(part: Sequence[LogRow], error: Exception) -> None:
            sentence = _sentence(error)
            try:
                async with self._connection.transaction():
                    await store([text_row(row, sentence) for row in part])
            except (psycopg.Error, *CONTENT_FAULTS) as another:
                if not _is_of_content(another):
                    raise
                await store([fault_row(now, sentence, len(part))])

        async def report(part: Sequence[PostedRow], error: Exception) -> None:
            await store([fault_row(now, _sentence(error), len(part))])

        await self._in_parts(posted, admit_part, report, splits)
        await self._in_parts([*rows, *admitted], store, store_as_text, splits)

    async def _in_parts(
        self,
        part: Sequence[Part],
        store: Callable[[Sequence[Part]], Awaitable[None]],
        refused: Callable[[Sequence[Part], Exception], Awaitable[None]],
        splits: "_Splits",
    ) -> None:
        """STORE a PART of a batch, or each half of it; REFUSED takes a part that can't be split any more."""
        if not part:
            return
        try:
            async with self._connection.transaction():
                await store(part)
            return
        except (psycopg.Error, *CONTENT_FAULTS) as error:
            if not _is_of_content(error):
                raise
            fault = error
        if len(part) == 1 or splits.left == 0:
            await refused(part, fault)
            return
        splits.left -= 1
        middle = len(part) // 2
        await self._in_parts(part[:middle], store, refused, splits)
        await self._in_parts(part[middle:], store, refused, splits)

    async def _move(self, position: Position, before: Position | None, pending: Mapping[str, Any] | None) -> None:
        """Replace the stored position BEFORE, or insert one. Raises PositionMovedError, psycopg.Error."""
        key = (self._machine_id, self._uid, position.boot_id)
        state = json.dumps(pending, ensure_ascii=False) if pending else None
        value = (position.cursor, position.realtime, position.monotonic, position.ties, position.finished, state)
        if before is None:
            done = await self._connection.execute(_INSERT_POSITION, key + value)
        else:
            known = (before.cursor, before.monotonic, before.ties, before.finished)
            done = await self._connection.execute(_MOVE_POSITION, value + key + known, prepare=True)
        if done.rowcount != 1:
            raise PositionMovedError("the journal was stored further by somebody else")


@dataclass(slots=True)
class _Splits:
    """The number of splits left for a batch."""

    left: int = _MOST_SPLITS


def _is_of_content(error: Exception) -> bool:
    """Return whether ERROR is due to the content of rows, not to the connection or the server."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        # The code that makes the COPY text failed; the server only reports that COPY was aborted.
        return isinstance(error.__context__, CONTENT_FAULTS)
    return isinstance(error, CONTENT_FAULTS) or (isinstance(error, psycopg.Error) and is_refusal(error))


def _sentence(error: Exception) -> str:
    return reason(error) if isinstance(error, psycopg.Error) else f"{type(error).__name__}: {error}"
