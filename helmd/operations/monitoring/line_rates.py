"""Log lines per second of each service, counted in the store."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from helmd.model.errors import StoreError
from helmd.model.logs.parsing.own_checks import OWN_CHECK_LEVEL, OWN_CHECK_WORDS, is_own_check
from helmd.store.ingest.ingested import access_lines_between, lines_between, newest_id
from helmd.store.session import Pool

_SECONDS = 2.0


class LineRates:
    """Each `take` counts the lines stored since the previous call, without those about Helm's own health checks.

    ``health_paths`` are what Helm requests of a service.
    """

    def __init__(self, pool: Pool, health_paths: Callable[[str], Collection[str]] = lambda _: ()) -> None:
        self._pool = pool
        self._health_paths = health_paths
        self._last: tuple[int, float] | None = None
        self.totals: Counter[str] = Counter()
        """What was counted so far, by service."""

    async def take(self) -> Mapping[str, float] | None:
        """Return lines per second by service, without services that wrote none. None if unknown."""
        try:
            async with self._pool.connection("counting log entries", _SECONDS) as connection:
                newest, now = await newest_id(connection), time.monotonic()
                last = self._last
                if last is None or now <= last[1] or newest < last[0]:
                    self._last = newest, now
                    return None
                counts = Counter(await lines_between(connection, last[0], newest))
                access = await access_lines_between(connection, last[0], newest, OWN_CHECK_LEVEL, OWN_CHECK_WORDS)
                self._last = newest, now
        except StoreError:
            # The recorder reports the outage. Lines stored meanwhile are counted by the next successful call.
            return None
        counts.subtract(service for service, text in access if is_own_check(text, self._health_paths(service)))
        self.totals += counts
        return {name: round(count / (now - last[1]), 3) for name, count in counts.items() if count > 0}
