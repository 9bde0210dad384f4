"""Connections that the server has closed, as when it was restarted."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import psycopg
import pytest

from helmd.model.errors import StoreError
from helmd.store.ingest.ingested import newest_id
from helmd.store.ingest.takeover import take_over
from helmd.store.maintenance.expiry import expire
from helmd.store.maintenance.indexes import compact, has_trigrams, index_text, seal, summarize
from helmd.store.maintenance.partitions import make_ahead
from helmd.store.session import Connection, Pool, connect, store_errors
from tests.store.conftest import Database
from tests.waiting import WITHIN, eventually

COUNT = 3


async def test_connections_that_the_server_closed_are_replaced_before_use(database: Database) -> None:
    async with Pool(database.owner, "test-pool", COUNT, kept=COUNT) as pool:
        async with AsyncExitStack() as stack:
            for _ in range(COUNT):
                await stack.enter_async_context(pool.connection("testing"))
        assert database.kill_backends("test-pool") == COUNT
        running = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'test-pool'"
        await eventually(lambda: not database.query(running))
        for _ in range(2 * COUNT):
            async with pool.connection("testing") as connection:
                cursor = await connection.execute("SELECT 1")
                assert await cursor.fetchone() == (1,)


@pytest.mark.parametrize(
    "step",
    [
        has_trigrams,
        summarize,
        compact,
        newest_id,
        lambda connection: take_over(connection, lambda _: 7, print),
        lambda connection: index_text(connection, datetime.now(UTC)),
        lambda connection: seal(connection, datetime.now(UTC), lambda leaf, newest: True, True),
        lambda connection: make_ahead(connection, [7], datetime.now(UTC)),
        lambda connection: expire(connection, datetime.now(UTC), 1.0, True),
    ],
)
async def test_maintenance_on_a_lost_connection_fails_with_a_store_error(
    database: Database, step: Callable[[Connection], Awaitable[object]]
) -> None:
    """Any other error would end the daemon."""
    connection = await connect(database.owner, "maintenance")
    await connection.close()
    with pytest.raises(StoreError):
        await step(connection)


async def test_a_lost_connection_does_not_hide_a_cancellation() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        with store_errors("testing"):
            try:
                begun.set()
                await asyncio.sleep(WITHIN)
            except asyncio.CancelledError:
                raise psycopg.OperationalError("server closed the connection unexpectedly") from None

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
