"""Log lines per second of each service, counted in the store."""

import time
from collections.abc import Mapping

from helmd.model.errors import StoreError
from helmd.store.ingest.ingested import lines_between, newest_id
from helmd.store.session import Pool

_SECONDS = 2.0


class LineRates:
    """Each `take` counts the lines stored since the previous call."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._last: tuple[int, float] | None = None

    async def take(self) -> Mapping[str, float] | None:
        """Return lines per second by service, without services that wrote none. None if unknown."""
        try:
            async with self._pool.connection("counting log entries", _SECONDS) as connection:
                newest, now = await newest_id(connection), time.monotonic()
                last, self._last = self._last, (newest, now)
                if last is None or now <= last[1] or newest < last[0]:
                    return None
                counts = await lines_between(connection, last[0], newest)
        except StoreError:
            # The recorder reports the outage. Lines stored meanwhile are counted by the next successful call.
            return None
        return {name: round(count / (now - last[1]), 3) for name, count in counts.items()}
