"""Statements on behalf of clients: cancelled when the client disconnects, and with patterns checked beforehand."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from helmd.model.errors import UsageError
from helmd.store.session import Connection, abort_connection, reason, store_errors

_CANCEL_INTERVAL = 0.1

Result = TypeVar("Result")


async def breakable(connection: Connection, work: Coroutine[Any, Any, Result]) -> Result:
    """Await WORK, which uses CONNECTION, and return its result. If the caller is cancelled, cancel the statement, too.

    When a task is cancelled, psycopg 3.1 leaves its statement running and the connection in an undefined state.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            while not task.done():
                # Repeated, since a cancel request has no effect if it arrives between two statements of WORK.
                await asyncio.to_thread(_cancel, connection.pgconn.get_cancel())
                await asyncio.wait({task}, timeout=_CANCEL_INTERVAL)
        except (asyncio.CancelledError, psycopg.Error):
            abort_connection(connection)
            task.cancel()
        if task.done() and not task.cancelled():
            task.exception()
        raise


def _cancel(handle: psycopg.pq.abc.PGcancel) -> None:
    with suppress(psycopg.Error):
        handle.cancel()


async def check_expression(connection: Connection, pattern: str) -> None:
    """Raise UsageError if PATTERN is not a valid regular expression for PostgreSQL, StoreError if that is unknown."""
    with store_errors("the regular expression can't be checked"):
        try:
            await connection.execute("SELECT '' ~* %s", (pattern,))
        except psycopg.errors.InvalidRegularExpression as error:
            raise UsageError(f"q: invalid regular expression ({reason(error)})") from None


async def end_with_client(connection: Connection) -> None:
    """Make the server cancel statements of disconnected clients, if it can (PostgreSQL 14 and later).

    Raises StoreError.
    """
    with store_errors("the log store can't be used"):
        await connection.execute(
            "SELECT set_config(name, '2s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'"
        )
