"""Storing metrics posted by services; buffered in memory while the store is unavailable."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NoReturn
from uuid import uuid4

from helmd.model.errors import StoreError, UsageError
from helmd.model.ingest.metrics import Measurement
from helmd.store.ingest.measurements import MetricBatch, TooManySeriesError, put_batches
from helmd.store.ingest.requests import RefusedError, Request
from helmd.store.metrics.metrics import MetricSample, tags_text
from helmd.store.session import Pool

MAX_WAITING, MAX_WAITING_BYTES = 50_000, 32 << 20
"""Maximum number of buffered measurements, and of bytes of their request bodies."""
_GROUP = 10_000
"""Maximum number of measurements per transaction; a single batch may be larger."""
_ANSWER_SECONDS = 2.0
"""Maximum time in seconds to wait for the store before responding. Clients time out after 5 s."""
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 10.0
MOST_LATEST, LATEST_SECONDS = 5_000, 300.0
"""Maximum number of series with their newest values, and maximum age of these in seconds, as in Prometheus."""
_OF_METRICS = "\tmetrics"
"""Suffix of Idempotency-Keys, which can't contain a tab: a service may use the same key for log entries."""

_log = logging.getLogger(__name__)


class _Latest(NamedTuple):
    """The newest sample of a series, and the earlier one of its time and the time of its arrival."""

    since: datetime
    sample: MetricSample


@dataclass(slots=True, eq=False)
class _Waiting:
    """A batch, the size of its body, and the number of measurements of it, or of the first batch with its key."""

    batch: MetricBatch
    size: int
    answer: "asyncio.Future[int]"


class PostedMetrics:
    """`post` queues batches, `run` stores them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._queue: deque[_Waiting] = deque()
        self._by_key: dict[tuple[str, str], _Waiting] = {}
        self._samples = self._bytes = 0
        self._changed = asyncio.Event()
        self._latest: dict[tuple[str, str, str], _Latest] = {}
        self.trouble = ""
        """Why the store is currently unavailable, as a sentence; empty if it is available."""

    def latest(self) -> list[MetricSample]:
        """Return the newest stored sample of each series, if not older than LATEST_SECONDS; at most MOST_LATEST."""
        oldest = datetime.now(UTC) - timedelta(seconds=LATEST_SECONDS)
        self._latest = {series: each for series, each in self._latest.items() if each.since >= oldest}
        return [each.sample for each in self._latest.values()]

    def _note(self, samples: Sequence[MetricSample]) -> None:
        if len(self._latest) + len(samples) > MOST_LATEST:
            self.latest()
        now = datetime.now(UTC)
        for sample in samples:
            series = (sample.service_name, sample.metric_name, tags_text(sample))
            known = self._latest.get(series)
            if known is None and len(self._latest) >= MOST_LATEST:
                continue
            # A clock that was ahead may be corrected: later samples then have earlier times.
            since = min(sample.timestamp, now)
            if known is None or (since, sample.timestamp) >= (known.since, known.sample.timestamp):
                self._latest[series] = _Latest(since, sample)

    async def post(self, service: str, measured: Sequence[Measurement], key: str | None, size: int) -> int:
        """Store MEASURED of one SERVICE, from a body of SIZE bytes; return their number, or that of the first with KEY.

        While the store is unavailable, returns immediately; they are in memory then, and lost if helmd stops. Raises
        UsageError for too many series, StoreError if the store refuses them or the buffer is full.
        """
        place = (service, key or "")
        waiting = self._by_key.get(place) if key is not None else None
        if waiting is None:
            if self._samples + len(measured) > MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
                why = self.trouble or "it is slow"
                raise StoreError(f"too many measurements wait for the log store ({why}): these were not taken")
            samples = [MetricSample(service, one.timestamp, one.name, one.value, one.tags) for one in measured]
            stored_key = None if key is None else key + _OF_METRICS
            request = Request(str(uuid4()), service, stored_key, len(samples))
            answer = asyncio.get_running_loop().create_future()
            waiting = _Waiting(MetricBatch(request, samples, limited=True), size, answer)
            if key is not None:
                self._by_key[place] = waiting
            self._queue.append(waiting)
            self._samples, self._bytes = self._samples + len(samples), self._bytes + size
            self._changed.set()
        if not self.trouble:
            await asyncio.wait([waiting.answer], timeout=_ANSWER_SECONDS)
        return await waiting.answer if waiting.answer.done() else waiting.batch.request.entries

    async def run(self) -> NoReturn:
        """Store batches until cancelled; retry while the store is unavailable."""
        pause = _FIRST_PAUSE
        while True:
            await self._changed.wait()
            group = self._next_group()
            try:
                await self._store(group)
            except StoreError as error:
                if error.sentence != self.trouble:
                    _log.warning("%s; posted measurements are kept in memory", error.sentence)
                self.trouble = error.sentence
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE)
                continue
            if self.trouble:
                _log.info("posted measurements are stored again")
            self.trouble, pause = "", _FIRST_PAUSE
            if not self._queue:
                self._changed.clear()

    def _next_group(self) -> list[_Waiting]:
        """Return the oldest batches, as many as fit into a transaction. They stay in the queue."""
        group: list[_Waiting] = []
        count = 0
        for waiting in self._queue:
            count += len(waiting.batch.samples)
            if group and count > _GROUP:
                break
            group.append(waiting)
        return group

    async def _store(self, group: Sequence[_Waiting]) -> None:
        """Raises StoreError while the store is unavailable."""
        try:
            async with self._pool.connection("storing posted measurements") as connection:
                answers = await put_batches(connection, [waiting.batch for waiting in group])
        except RefusedError as error:
            if len(group) > 1:
                for waiting in group:
                    await self._store([waiting])
                return
            (refused,) = group
            _log.warning("measurements of %s are refused: %s", refused.batch.request.service_name, error.sentence)
            self._forget(refused)
            if not refused.answer.done():
                refused.answer.set_exception(_as_answer(error))
                # It may not be awaited any more.
                refused.answer.exception()
            return
        for waiting, count in zip(group, answers, strict=True):
            self._forget(waiting)
            self._note(waiting.batch.samples)
            if not waiting.answer.done():
                waiting.answer.set_result(count)

    def _forget(self, waiting: _Waiting) -> None:
        request = waiting.batch.request
        self._queue.remove(waiting)
        if request.key is not None:
            del self._by_key[request.service_name, request.key.removesuffix(_OF_METRICS)]
        self._samples -= len(waiting.batch.samples)
        self._bytes -= waiting.size


def _as_answer(error: RefusedError) -> UsageError | StoreError:
    return UsageError(error.sentence) if isinstance(error, TooManySeriesError) else error
