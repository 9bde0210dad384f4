"""Posted batches: none is stored twice, whether it came again, or by the journal, or its commit was in doubt."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg

from helmd.model.errors import StoreError
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import LogRow
from helmd.store.ingest.copy_text import RetentionOf
from helmd.store.ingest.logs import Appender
from helmd.store.session import Connection, connect, deadline, reason, store_errors

KEPT_HOURS = 72
"""Hours of running time for which a batch is remembered: a repeat is due within a day, a journal that waited for the
store may take longer."""

_ANSWER_SECONDS, _ROWS_A_SECOND = 1.0, 5_000
"""How long the store may take over a batch of few rows, and with how many it may take a second more."""
_STATEMENT_SECONDS = 60.0
"""How long a statement goes on at the server after the connection was given up."""
_FAULTY = ("22", "23", "54", "0A", "P0")
"""Classes of SQLSTATE in which PostgreSQL refuses values for what they are (manual, appendix A); P0 is that of the
schema's own functions, such as ``make_log_partition``.
"""

_INSERT = """
    INSERT INTO ingest_requests (request, service_name, key, entries, stored)
    SELECT request, service_name, key, entries, stored
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::integer[], %s::integer[])
         AS given (request, service_name, key, entries, stored)
    ORDER BY service_name, key, request
    ON CONFLICT DO NOTHING RETURNING request::text
"""
_KNOWN = """
    SELECT request::text, service_name, key, entries, stored FROM ingest_requests WHERE request IN (
        SELECT request FROM ingest_requests WHERE request = ANY(%s::uuid[])
        UNION ALL
        SELECT request FROM ingest_requests JOIN unnest(%s::text[], %s::text[]) AS given (service_name, key)
                            USING (service_name, key)
    ) ORDER BY request FOR UPDATE
"""
_STORED = """
    UPDATE ingest_requests SET stored = given.stored FROM unnest(%s::uuid[], %s::integer[]) AS given (request, stored)
    WHERE ingest_requests.request = given.request
"""


class RefusedError(StoreError):
    """PostgreSQL is there and refuses rows for what is in them. Nothing was stored."""


class Request(NamedTuple):
    """A batch as it is remembered. ``id`` is a UUID."""

    id: str
    service_name: str
    key: str | None
    entries: int


class Known(NamedTuple):
    """What is remembered of a batch that was there already: perhaps another one, with the same key.

    Its first ``stored`` entries are in the store; the others are not yet, where helmd was killed while it put the batch
    into the journal, or the journal is still being read.
    """

    id: str
    entries: int
    stored: int


async def register(
    connection: Connection, requests: Sequence[Request], *, by_journal: bool = False
) -> dict[str, Known]:
    """Remembers REQUESTS, within the caller's transaction; those that were known before, by their ids.

    No two of them have the same id, or the same key of one service. Comes before the rows are appended: whoever waits
    here for another transaction must not hold the appenders' lock, which that one may need. Of what comes BY_JOURNAL
    nothing is stored yet. Raises psycopg's errors.
    """
    if not requests:
        return {}
    columns = [list(column) for column in zip(*requests, strict=True)]
    stored = [0 if by_journal else request.entries for request in requests]
    cursor = await connection.execute(_INSERT, (*columns, stored), prepare=True)
    new = {row[0] async for row in cursor}
    if len(new) == len(requests):
        return {}
    others = [request for request in requests if request.id not in new]
    keyed = [request for request in others if request.key is not None]
    cursor = await connection.execute(
        _KNOWN,
        ([request.id for request in others], [request.service_name for request in keyed], [r.key for r in keyed]),
        prepare=True,
    )
    by_id: dict[str, Known] = {}
    by_key: dict[tuple[str, str], Known] = {}
    async for number, service, key, entries, count in cursor:
        by_id[number] = Known(number, entries, count)
        if key is not None:
            by_key[service, key] = by_id[number]
    return {r.id: by_id.get(r.id) or by_key[r.service_name, r.key or ""] for r in others}


async def note_stored(connection: Connection, stored: Mapping[str, int]) -> None:
    """That so many entries of a batch, by its id, are in the store with this transaction. Raises psycopg's errors."""
    if stored:
        await connection.execute(_STORED, (list(stored), list(stored.values())), prepare=True)


async def admit(connection: Connection, posted: Sequence[PostedRow]) -> list[LogRow]:
    """The rows among POSTED, which came by the journal, that are to be stored now; within the caller's transaction.

    An entry that is there already, by its number in the batch, is dropped: helmd did store the batch after all, or a
    repeat of it. A batch may come in several parts. Raises psycopg's errors.
    """
    firsts: dict[object, Request] = {}
    for row, request, key, entries, _ in posted:
        place = request if key is None else (row.service_name, key)
        firsts.setdefault(place, Request(request, row.service_name, key, entries))
    known = await register(connection, list(firsts.values()), by_journal=True)
    ids = {place: known[first.id].id if first.id in known else first.id for place, first in firsts.items()}
    stored = {each.id: each.stored for each in known.values()}
    admitted = []
    for row, request, key, _, number in posted:
        batch = ids[request if key is None else (row.service_name, key)]
        if number >= stored.get(batch, 0):
            stored[batch] = number + 1
            admitted.append(row)
    await note_stored(connection, stored)
    return admitted


async def drop_old_requests(connection: Connection) -> None:
    """Forgets batches of long ago; needs the owner's rights. Raises StoreError."""
    with store_errors("old posted batches can't be forgotten"):
        await connection.execute(
            # By running time: a clock that is set forward must not make a repeat look new.
            "DELETE FROM ingest_requests WHERE received_up < upkeep_seconds() - %s * 3600",
            (KEPT_HOURS,),
        )


def is_refusal(error: psycopg.Error) -> bool:
    """Whether PostgreSQL refuses values for what they are: another attempt would fail the same way.

    That of a partition which was dropped in the meantime would not.
    """
    if isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None:
        return False
    return (error.sqlstate or "")[:2] in _FAULTY


class PostedStore:
    """The store as the one task sees it that appends what is posted; on a connection of its own.

    After any error the connection is gone and a new one has to be opened.
    """

    def __init__(self, connection: Connection, retention_of: RetentionOf) -> None:
        self._connection = connection
        self._appender = Appender(retention_of)

    @classmethod
    async def open(cls, conninfo: str, retention_of: RetentionOf) -> "PostedStore":
        """Raises StoreError."""
        return cls(await connect(conninfo, "helmd-posted", _STATEMENT_SECONDS), retention_of)

    async def close(self) -> None:
        await self._connection.close()

    async def append(self, requests: Sequence[Request], rows: Sequence[Sequence[LogRow]]) -> list[int]:
        """Stores the rows of each of REQUESTS that was not there before, all or none; how many each one had.

        Of one that is a repeat that is what the first had. Requests without a key may share an id, if all of them
        are new. Raises RefusedError, and StoreError when the outcome is unknown or the store is away.
        """
        seconds = _ANSWER_SECONDS + sum(map(len, rows)) / _ROWS_A_SECOND
        try:
            with deadline(self._connection, seconds):
                await self._connection.execute("BEGIN")
                answers = await self._append(requests, rows)
                await self._connection.execute("COMMIT")
                return answers
        except BaseException as error:
            # No word to a server that may not answer: without a connection it rolls back by itself.
            await self._connection.close()
            if not isinstance(error, psycopg.Error):
                raise
            kind = RefusedError if is_refusal(error) else StoreError
            raise kind(f"posted entries can't be stored: {reason(error)}") from error

    async def _append(self, requests: Sequence[Request], rows: Sequence[Sequence[LogRow]]) -> list[int]:
        firsts: dict[object, Request] = {}
        for request in requests:
            place = request.id if request.key is None else (request.service_name, request.key)
            before = firsts.get(place)
            if before is None:
                firsts[place] = request
            elif request.key is None:
                firsts[place] = before._replace(entries=before.entries + request.entries)
        known = await register(self._connection, list(firsts.values()))
        answers = []
        stored: list[LogRow] = []
        completed: dict[str, int] = {}
        for request, its_rows in zip(requests, rows, strict=True):
            first = request if request.key is None else firsts[request.service_name, request.key]
            remembered = known.get(first.id)
            if remembered is None:
                answers.append(first.entries)
                if first.id == request.id:
                    stored += its_rows
                continue
            answers.append(request.entries if remembered.id == request.id else remembered.entries)
            if request.key is not None and first.id == request.id and remembered.stored < remembered.entries:
                # What of it the journal does not have, or has not brought yet.
                stored += its_rows[remembered.stored :]
                completed[remembered.id] = remembered.entries
        await note_stored(self._connection, completed)
        await self._appender.append(self._connection, stored)
        return answers
