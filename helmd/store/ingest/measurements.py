"""Storing batches of metrics exactly once, also if they are repeated or their commit was in doubt."""

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from helmd.model.errors import StoreError
from helmd.store.ingest.requests import RefusedError, Request, is_refusal, register
from helmd.store.metrics.metrics import MetricSample, append_samples, tags_text
from helmd.store.session import Connection, reason

MOST_SERIES, MOST_OF_ALL = 1_000, 20_000
"""Maximum number of series (a metric with its tags) of one service, and of all, within 14 days. A series takes up to
115,000 rows in 13 months."""

_ADMIT = "SELECT admit_metric_series(%s, %s::text[], %s::text[], %s, %s)"


class MetricBatch(NamedTuple):
    """Samples to store together. ``limited`` says that they are of one service, whose number of series is bounded."""

    request: Request
    samples: Sequence[MetricSample]
    limited: bool


class TooManySeriesError(RefusedError):
    """A batch would exceed the number of series of its service. Nothing of it was stored."""


async def put_batches(connection: Connection, batches: Sequence[MetricBatch]) -> list[int]:
    """Store BATCHES, all or none; return the number of samples of each, for a repeated one that of the first attempt.

    Raises TooManySeriesError and RefusedError for errors that a retry can't fix, else StoreError.
    """
    answers = []
    try:
        async with connection.transaction():
            for batch in batches:
                answers.append(await _put(connection, batch))
    except psycopg.Error as error:
        kind = RefusedError if is_refusal(error) else StoreError
        raise kind(f"metrics can't be stored: {reason(error)}") from error
    return answers


async def _put(connection: Connection, batch: MetricBatch) -> int:
    request = batch.request
    if batch.limited:
        # First, since it takes the writers' lock: taking it while holding other locks could deadlock.
        await _admit(connection, batch)
    known = (await register(connection, [request])).get(request.id)
    if known is not None:
        return known.entries
    await append_samples(connection, batch.samples)
    return request.entries


async def _admit(connection: Connection, batch: MetricBatch) -> None:
    series = sorted({(sample.metric_name, tags_text(sample)) for sample in batch.samples})
    service = batch.request.service_name
    names, tags = [name for name, _ in series], [text for _, text in series]
    cursor = await connection.execute(_ADMIT, (service, names, tags, MOST_SERIES, MOST_OF_ALL))
    if await cursor.fetchone() != (True,):
        raise TooManySeriesError(
            f"with these, {service} would have more than {MOST_SERIES:,} series (a metric with its tags) within 14"
            f" days, or all services more than {MOST_OF_ALL:,}: what has ever new values, such as an id, belongs into a"
            " log entry, not into a tag"
        )
