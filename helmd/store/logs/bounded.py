"""Statements that somebody waits for who may go away, or who wrote a part of them."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from helmd.model.errors import UsageError
from helmd.store.session import Connection, abort_connection, reason, store_errors

_AGAIN_SECONDS = 0.1

Result = TypeVar("Result")


async def breakable(connection: Connection, work: Coroutine[Any, Any, Result]) -> Result:
    """What WORK gives, which uses CONNECTION. When the caller is cancelled, PostgreSQL is told to break off.

    psycopg 3.1 leaves the statement running when its own task is cancelled, and the connection in the middle of it.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            while not task.done():
                # Again and again: one that comes between two statements of WORK does nothing.
                await asyncio.to_thread(_cancel, connection.pgconn.get_cancel())
                await asyncio.wait({task}, timeout=_AGAIN_SECONDS)
        except (asyncio.CancelledError, psycopg.Error):
            abort_connection(connection)
            task.cancel()
        if task.done() and not task.cancelled():
            task.exception()
        raise


def _cancel(asked: psycopg.pq.abc.PGcancel) -> None:
    with suppress(psycopg.Error):
        asked.cancel()


async def check_expression(connection: Connection, pattern: str) -> None:
    """Raises UsageError when PATTERN is no regular expression to PostgreSQL, StoreError when it can't be asked."""
    with store_errors("the regular expression can't be checked"):
        try:
            await connection.execute("SELECT '' ~* %s", (pattern,))
        except psycopg.errors.InvalidRegularExpression as error:
            raise UsageError(f"q: this is no regular expression ({reason(error)})") from None


async def end_with_client(connection: Connection) -> None:
    """Has PostgreSQL break off a statement once its client is gone, where it can (from 14 on). Raises StoreError."""
    with store_errors("the log store can't be used"):
        await connection.execute(
            "SELECT set_config(name, '2s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'"
        )
