"""How many lines a second each service writes, counted in the store."""

import time
from collections.abc import Mapping

from helmd.model.errors import StoreError
from helmd.store.ingest.ingested import lines_between, newest_id
from helmd.store.session import Pool

_SECONDS = 2.0


class LineRates:
    """Each `take` counts what has come since the one before."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._last: tuple[int, float] | None = None

    async def take(self) -> Mapping[str, float] | None:
        """Lines a second by service; services that wrote nothing are left out. None when it is not known."""
        try:
            async with self._pool.connection("counting log entries", _SECONDS) as connection:
                newest, now = await newest_id(connection), time.monotonic()
                last, self._last = self._last, (newest, now)
                if last is None or now <= last[1] or newest < last[0]:
                    return None
                counts = await lines_between(connection, last[0], newest)
        except StoreError:
            # The recorder says that the store is away. What comes meanwhile is counted in when it is back.
            return None
        return {name: round(count / (now - last[1]), 3) for name, count in counts.items()}
