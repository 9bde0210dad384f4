"""Connections of a pool after the server was restarted."""

from contextlib import AsyncExitStack

from helmd.store.session import Pool
from tests.store.conftest import Database
from tests.waiting import eventually

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
