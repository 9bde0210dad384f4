"""Storing posted batches exactly once, also if repeated, read from the journal, or with a commit in doubt."""

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
"""Hours of running time for which ids of batches are kept: clients repeat within a day, but entries in the journal may
wait longer for the store."""

_ANSWER_SECONDS, _ROWS_A_SECOND = 1.0, 5_000
"""Time limit in seconds for a small batch, and the number of rows for which a second is added."""
_STATEMENT_SECONDS = 60.0
"""statement_timeout, which ends the statement at the server after the client has closed the connection."""
_FAULTY = ("22", "23", "54", "0A", "P0")
"""Classes of SQLSTATE for invalid values (manual, appendix A); P0 is raised by the schema's own functions, such as
``make_log_partition``.
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
    """PostgreSQL is available and refuses the content of rows. Nothing was stored."""


class Request(NamedTuple):
    """A batch as recorded in ``ingest_requests``. ``id`` is a UUID."""

    id: str
    service_name: str
    key: str | None
    entries: int


class Known(NamedTuple):
    """The record of a batch that was known already; it may be another one with the same key.

    Its first ``stored`` entries are in the store. The others are not yet if helmd was killed while it wrote the batch
    to the journal, or if the journal is still being read.
    """

    id: str
    entries: int
    stored: int


async def register(
    connection: Connection, requests: Sequence[Request], *, by_journal: bool = False
) -> dict[str, Known]:
    """Record REQUESTS in the caller's transaction; return those that were known before, by their ids.

    No two of them may have the same id, or the same key and service. To be called before rows are appended: waiting
    here for another transaction while holding the appenders' lock could deadlock. BY_JOURNAL says that none of their
    entries is stored yet. Raises psycopg.Error; StoreError, if records expired meanwhile: a retry stores the batches.
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
    known = {r.id: by_id.get(r.id) or by_key.get((r.service_name, r.key or "")) for r in others}
    if None in known.values():
        raise StoreError("the record of a posted batch expired while the batch was sent again")
    return {id_: each for id_, each in known.items() if each is not None}


async def note_stored(connection: Connection, stored: Mapping[str, int]) -> None:
    """Record the number of entries, by the id of a batch, stored in this transaction. Raises psycopg.Error."""
    if stored:
        await connection.execute(_STORED, (list(stored), list(stored.values())), prepare=True)


async def admit(connection: Connection, posted: Sequence[PostedRow]) -> list[LogRow]:
    """Return the rows among POSTED, which arrived by the journal, that are to be stored in the caller's transaction.

    Entries that are stored already, by their number in the batch, are dropped: the batch or a repeat of it was stored
    directly after all. A batch may arrive in several parts. Raises psycopg.Error.
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
    """Delete the records of batches older than KEPT_HOURS, as the owner of the tables. Raises StoreError."""
    with store_errors("old posted batches can't be forgotten"):
        await connection.execute(
            # By running time, so that setting the clock forward does not make a repeated batch look new.
            "DELETE FROM ingest_requests WHERE received_up < upkeep_seconds() - %s * 3600",
            (KEPT_HOURS,),
        )


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether PostgreSQL refuses the values themselves, so that a retry would fail the same way.

    An insert into a partition that was dropped meanwhile is not such an error.
    """
    if isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None:
        return False
    return (error.sqlstate or "")[:2] in _FAULTY


class PostedStore:
    """Inserts posted batches, for one task, on a connection of its own.

    After any error the connection is closed and a new object has to be opened.
    """

    def __init__(self, connection: Connection, retention_of: RetentionOf) -> None:
        self._connection = connection
        self._appender = Appender(retention_of)

    @classmethod
    async def open(cls, conninfo: str, retention_of: RetentionOf) -> "PostedStore":
        """Connect. Raises StoreError."""
        return cls(await connect(conninfo, "helmd-posted", _STATEMENT_SECONDS), retention_of)

    async def close(self) -> None:
        await self._connection.close()

    async def append(self, requests: Sequence[Request], rows: Sequence[Sequence[LogRow]]) -> list[int]:
        """Store the rows of those REQUESTS that are new, all or none; return the number of rows of each.

        For a repeated request, that is the number of the first attempt. Requests without a key may share an id if all
        of them are new. Raises RefusedError, and StoreError if the outcome is unknown or the store unavailable.
        """
        seconds = _ANSWER_SECONDS + sum(map(len, rows)) / _ROWS_A_SECOND
        try:
            with deadline(self._connection, seconds):
                await self._connection.execute("BEGIN")
                answers = await self._append(requests, rows)
                await self._connection.execute("COMMIT")
                return answers
        except BaseException as error:
            # No ROLLBACK to a server that may not answer: it rolls back when the connection is lost.
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
                # The entries that are not in the journal, or not read from it yet.
                stored += its_rows[remembered.stored :]
                completed[remembered.id] = remembered.entries
        await note_stored(self._connection, completed)
        await self._appender.append(self._connection, stored)
        return answers
