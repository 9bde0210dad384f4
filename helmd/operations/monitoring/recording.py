"""Writing service states and measurements to the store; buffered in memory while it is unavailable."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NoReturn
from uuid import uuid4

from helmd.model.errors import StoreError
from helmd.model.suite.names import HELM_SERVICE
from helmd.store.ingest.measurements import MetricBatch, put_batches
from helmd.store.ingest.requests import RefusedError, Request
from helmd.store.metrics.metrics import MetricSample
from helmd.store.metrics.service_status import StatusRow, drop_statuses, put_statuses
from helmd.store.session import Pool

MAX_SAMPLES = 50_000
"""Maximum number of buffered measurements; the oldest are dropped. With 60 services, they cover 40 minutes."""
_CHUNK = 5_000
_COLLECT_SECONDS = 0.2
"""Seconds for which changes are collected before they are written."""
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 10.0

_log = logging.getLogger(__name__)


class Recorder:
    """Buffers `statuses` and `samples`, which `run` writes. ``prepare`` is called before the first write."""

    def __init__(self, pool: Pool, prepare: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._prepare = prepare
        self._prepared = False
        self._statuses: dict[str, StatusRow] = {}
        self._samples: deque[MetricSample] = deque(maxlen=MAX_SAMPLES)
        self._writing: MetricBatch | None = None
        """Measurements being written, or with an unknown outcome; by the id of the batch they are stored once."""
        self._dropped = 0
        self._keep: tuple[str, ...] | None = None
        self._changed = asyncio.Event()
        self.trouble = ""
        """Why the store is currently unavailable, as a sentence; empty if it is available."""

    def statuses(self, rows: Iterable[StatusRow]) -> None:
        """Set the current status of services; only the newest of each is written."""
        given = {row.service_name: row for row in rows}
        self._statuses |= given
        if self._keep is not None:
            # One may be recorded before `keep_only` is called again: it is not deleted with the next write.
            self._keep += tuple(name for name in given if name not in self._keep)
        self._changed.set()

    def samples(self, samples: Sequence[MetricSample]) -> None:
        """Add measurements; if the buffer is full, the oldest are dropped."""
        self._dropped += max(0, len(self._samples) + len(samples) - MAX_SAMPLES)
        self._samples.extend(samples)
        self._changed.set()

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete the statuses of services other than NAMES, with each write, until the next call."""
        keep = tuple(names)
        if keep != self._keep:
            self._keep = keep
            self._statuses = {name: row for name, row in self._statuses.items() if name in keep}
            self._changed.set()

    async def run(self) -> NoReturn:
        """Write until cancelled; retry while the store is unavailable."""
        pause = _FIRST_PAUSE
        while True:
            await self._changed.wait()
            await asyncio.sleep(_COLLECT_SECONDS)
            self._changed.clear()
            try:
                await self._write()
            except StoreError as error:
                # prepare() fails at once with the reason, while the pool would wait for a connection.
                self._prepared = False
                self._changed.set()
                if error.sentence != self.trouble:
                    _log.warning("%s; states and measurements are buffered", error.sentence)
                self.trouble = error.sentence
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE)
                continue
            self._recovered()
            pause = _FIRST_PAUSE

    async def _write(self) -> None:
        if not self._prepared:
            await self._prepare()
            self._prepared = True
        async with self._pool.connection("writing service states") as connection:
            if self._keep is not None:
                # Each time, since a transaction may be rolled back, and a restored store has older rows.
                await drop_statuses(connection, self._keep)
            rows = dict(self._statuses)
            await put_statuses(connection, list(rows.values()))
            self._statuses = {name: row for name, row in self._statuses.items() if rows.get(name) is not row}
        while self._writing is not None or self._samples:
            if self._writing is None:
                chunk = [self._samples.popleft() for _ in range(min(_CHUNK, len(self._samples)))]
                self._writing = MetricBatch(Request(str(uuid4()), HELM_SERVICE, None, len(chunk)), chunk, limited=False)
            async with self._pool.connection("writing measurements") as connection:
                try:
                    await put_batches(connection, [self._writing])
                except RefusedError as error:
                    # A retry would fail as well, and would block all later ones.
                    _log.error("%d measurements are dropped: %s", len(self._writing.samples), error.sentence)
            self._writing = None

    def _recovered(self) -> None:
        if self.trouble:
            _log.info("states and measurements are written again")
        if self._dropped:
            _log.warning("%d measurements were dropped while the store was unavailable", self._dropped)
        self.trouble, self._dropped = "", 0
