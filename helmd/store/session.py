"""Connections to the store: opening, timeouts, and conversion of their errors to StoreError."""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from helmd.model.errors import StoreError, StoreTimeoutError

Connection = psycopg.AsyncConnection[TupleRow]

CONNECT_SECONDS = 5
"""connect_timeout."""

_RECONNECT_SECONDS = 2.0
_PREPARED = 40
"""Maximum number of prepared statements of a connection; one over many partitions takes up to 0.7 MB in the backend."""

LOCK_CLASS = 0x48454C4D
"""First key of Helm's advisory locks: the letters HELM in ASCII."""
MIGRATE_LOCK = 1
APPEND_LOCK = 2
ROLL_UP_LOCK = 6
"""Second key of the lock of writers of metrics; the schema's functions take it (0006_metric_rollups.sql)."""

STATEMENT_SECONDS = 5.0
"""statement_timeout of a connection in a `Pool`."""
_LEAST_MILLISECONDS = 20
"""Minimum timeout of `limit_statements`: it applies to COMMIT too, which may be late on a busy machine."""
# A host that has disappeared must not hold its advisory locks for hours. No effect on unix sockets.
_KEEPALIVES = "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Convert psycopg.Error to a StoreError, with what was being done and PostgreSQL's message.

    To CancelledError in a task that is being cancelled: on a lost connection psycopg raises an error in its place.
    """
    try:
        yield
    except psycopg.Error as error:
        if _is_being_cancelled():
            raise asyncio.CancelledError from error
        kind = StoreTimeoutError if isinstance(error, psycopg.errors.QueryCanceled) else StoreError
        raise kind(f"{doing}: {reason(error)}") from error


def _is_being_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


def reason(error: psycopg.Error) -> str:
    """Return PostgreSQL's message of an error, on one line."""
    if isinstance(error, PoolTimeout):
        return "the log store can't be reached"
    said = error.diag.message_primary or str(error)
    lines = said.strip().splitlines()
    return lines[0] if lines else type(error).__name__


def session_parameters(conninfo: str, application: str, statement_seconds: float | None) -> dict[str, Any]:
    """Return the connection parameters (libpq) that go with CONNINFO. Raises StoreError.

    Its own ``options`` and ``connect_timeout`` are kept, except for the settings ``timezone``, which defines days, and
    ``statement_timeout``, which is STATEMENT_SECONDS; None means unlimited.
    """
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        raise StoreError(f"store.database is not a valid connection string: {reason(error)}") from error
    limit = 0 if statement_seconds is None else max(1, round(statement_seconds * 1000))
    # The last one of two settings with the same name takes effect.
    options = (_KEEPALIVES, given.get("options") or "", f"-c timezone=UTC -c statement_timeout={limit}")
    return {
        "connect_timeout": given.get("connect_timeout") or CONNECT_SECONDS,
        "application_name": application,
        "options": " ".join(part for part in options if part),
    }


async def connect(
    conninfo: str,
    application: str,
    statement_seconds: float | None = STATEMENT_SECONDS,
    database: str = "the log store",
) -> Connection:
    """Return a new connection in autocommit mode, with a statement_timeout of STATEMENT_SECONDS.

    DATABASE is a noun for error messages. Raises StoreError.
    """
    parameters = session_parameters(conninfo, application, statement_seconds)
    with store_errors(f"{database} can't be reached"):
        return await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **parameters)


@asynccontextmanager
async def unlimited(connection: Connection) -> AsyncIterator[None]:
    """Suspend statement_timeout, for example to build an index. Raises psycopg.Error."""
    await connection.execute("SET statement_timeout = 0")
    try:
        yield
    finally:
        if not connection.broken and not connection.closed:
            await connection.execute("RESET statement_timeout")


def role_of(conninfo: str) -> str | None:
    """Return the role that a connection string names, or None."""
    role = conninfo_to_dict(conninfo).get("user")
    return None if role is None else str(role)


@contextmanager
def deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """Close the connection if the block takes longer than SECONDS; it then fails as if the server were gone.

    If the task were cancelled instead, psycopg would wait for the response of a server that hangs.
    """
    timer = asyncio.get_running_loop().call_later(seconds, abort_connection, connection)
    try:
        yield
    finally:
        timer.cancel()


async def limit_statements(
    connection: Connection, seconds: float, *, keep_plans: bool = False, few: bool = False
) -> None:
    """Set statement_timeout until the end of the transaction; a statement that takes longer raises QueryCanceled.

    Parallel workers are disabled, since starting them takes longer than such statements, and takes the processor from
    others. KEEP_PLANS selects generic plans for prepared statements (plan_cache_mode). FEW says that an index finds the
    few rows: sequential scans are disabled, since the planner expects of a BRIN index that it finds nearly all rows.
    """
    await connection.execute(
        "SELECT set_config('statement_timeout', %s, true), set_config('plan_cache_mode', %s, true),"
        " set_config('max_parallel_workers_per_gather', '0', true), set_config('enable_seqscan', %s, true)",
        (
            f"{max(_LEAST_MILLISECONDS, round(seconds * 1000))}ms",
            "force_generic_plan" if keep_plans else "auto",
            "off" if few else "on",
        ),
        prepare=True,
    )


def abort_connection(connection: Connection) -> None:
    """Close the connection's socket, without sending anything to the server."""
    with suppress(OSError, psycopg.OperationalError):
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def _is_closed_by_server(connection: Connection) -> bool:
    """Return whether something arrived on an unused connection: usually that the server has ended it."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


class Pool:
    """A connection pool for the tasks of a daemon; an async context manager. Opening it does not need the server.

    ``kept`` of up to ``size`` connections are opened at once and kept open.
    """

    def __init__(self, conninfo: str, application: str, size: int = 4, kept: int = 1) -> None:
        self._pool = AsyncConnectionPool(
            conninfo,
            min_size=kept,
            max_size=size,
            open=False,
            configure=self._configure,
            name=application,
            # After this time of attempts, with exponential backoff, the pool waits for the next request. With the
            # default of five minutes the store could stay unused for minutes after an outage.
            reconnect_timeout=_RECONNECT_SECONDS,
            kwargs={"autocommit": True, **session_parameters(conninfo, application, STATEMENT_SECONDS)},
        )

    async def __aenter__(self) -> "Pool":
        await self._pool.open(wait=False)
        return self

    async def _configure(self, connection: Connection) -> None:
        connection.prepared_max = _PREPARED

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close(timeout=0.3)

    @asynccontextmanager
    async def connection(self, doing: LiteralString, seconds: float = 5.0) -> AsyncIterator[Connection]:
        """Yield a connection, for at most SECONDS, after waiting for it at most SECONDS. Raises StoreError.

        DOING is a noun phrase for the error message, such as "reading metrics". Connections that the server has closed,
        when it was restarted, are replaced first.
        """
        with store_errors(doing):
            for attempts in range(self._pool.max_size, -1, -1):
                async with self._pool.connection(timeout=seconds) as connection:
                    if attempts and _is_closed_by_server(connection):
                        await connection.close()
                        continue
                    with deadline(connection, seconds):
                        yield connection
                    return


async def columns_of(connection: Connection, table: str) -> dict[str, str]:
    """Return the types of the columns of TABLE by name; empty if there is no such table."""
    cursor = await connection.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(%s)"
        " AND attnum > 0 AND NOT attisdropped",
        (table,),
    )
    return {name: kind async for name, kind in cursor}
