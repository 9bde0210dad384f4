"""Connections that readers are lent know the partitions before somebody waits for them."""

import asyncio

import psycopg

from helmd.operations.logs.reader import LogReader
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import Pool, connect
from tests.store.conftest import Database
from tests.store.stored import append, random_rows
from tests.waiting import WITHIN


async def test_connections_are_warmed_also_those_that_come_after_an_outage(database: Database) -> None:
    await migrate(database.owner, "helm")
    writer = await connect(database.store, "writer")
    await append(writer, random_rows(200, seed=7))
    await writer.close()
    async with Pool(database.store, "test-reader", 3, kept=2) as pool:
        reader = LogReader(pool, database.store, lambda: False)
        task = asyncio.create_task(reader.run())
        try:
            first = await _warm(pool)
            database.kill_backends("test-reader")
            # The pool finds that out from whoever is lent one of them.
            second = await _warm(pool)
        finally:
            task.cancel()
            await asyncio.wait({task})
    assert not first & second


async def _warm(pool: Pool) -> set[int]:
    """Return the server's processes behind two connections, once both are warm."""
    async with asyncio.timeout(WITHIN):
        while True:
            found: set[int] = set()
            async with pool.connection("testing") as one, pool.connection("testing") as other:
                for connection in (one, other):
                    try:
                        cursor = await connection.execute(
                            "SELECT pg_backend_pid() FROM pg_prepared_statements WHERE generic_plans > 0"
                            " AND statement LIKE '%log_entries_%' LIMIT 1"
                        )
                        found.update([pid async for (pid,) in cursor])
                    except psycopg.OperationalError:
                        continue
            if len(found) == 2:
                return found
            await asyncio.sleep(0.1)
