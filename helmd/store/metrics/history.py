"""Reading the metrics of a service over time: samples, or points computed from the roll-ups."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from psycopg import sql

from helmd.model.api.metrics import Sample
from helmd.model.metrics.steps import FIVE_MINUTES, MINUTES, Source, Span
from helmd.store.session import Connection, store_errors

_ASKED = "service_name = %(service)s AND (%(names)s::text[] IS NULL OR metric_name = ANY (%(names)s::text[]))"
_SAMPLES = (
    f"SELECT id, timestamp, metric_name, metric_value, tags FROM service_metrics WHERE {_ASKED}"  # noqa: S608
    " AND timestamp >= %(start)s AND timestamp < %(end)s AND abs(metric_value) < 'Infinity'"
    " ORDER BY timestamp DESC, id DESC LIMIT %(limit)s"
)
_SERIES = f"SELECT id, metric_name, tags FROM metric_series WHERE {_ASKED} ORDER BY metric_name, id"  # noqa: S608
_RAW_POINTS = (
    "SELECT to_timestamp(floor(extract(epoch FROM timestamp) / %(step)s) * %(step)s) AS begun, metric_name,"  # noqa: S608
    " nullif(tags, '{}') AS tagged, count(*), sum(metric_value), min(metric_value), max(metric_value)"
    f" FROM service_metrics WHERE {_ASKED} AND timestamp >= %(start)s AND timestamp < %(end)s"
    " AND metric_value BETWEEN -1e300 AND 1e300"
    " GROUP BY begun, metric_name, tagged ORDER BY begun DESC, metric_name, tagged LIMIT %(limit)s"
)
_POINTS = (
    "SELECT to_timestamp(floor(extract(epoch FROM begins) / %(step)s) * %(step)s) AS begun, series, sum(samples),"
    " sum(total), min(minimum), max(maximum)"
    " FROM {} WHERE series = ANY (%(series)s) AND begins >= %(start)s AND begins < %(end)s"
    " GROUP BY begun, series ORDER BY begun DESC, series LIMIT %(limit)s"
)
_TABLES: Mapping[Source, str] = {MINUTES: "metric_minutes", FIVE_MINUTES: "metric_five_minutes"}


class Series(NamedTuple):
    """A metric with its tags, which are None if there are none."""

    metric_name: str
    tags: Mapping[str, str] | None


async def newest_samples(
    connection: Connection, service: str, span: Span, names: Collection[str] | None, limit: int
) -> Sequence[Sample]:
    """Return the newest LIMIT measurements of SPAN, the newest first; NAMES selects metrics, None all.

    Raises StoreError.
    """
    with store_errors("metrics can't be read"):
        cursor = await connection.execute(_SAMPLES.encode(), _given(service, span, names, limit))
        return [Sample(row[0], service, *row[1:]) async for row in cursor]


async def series_of(connection: Connection, service: str, names: Collection[str] | None) -> dict[int, Series]:
    """Return the series of a service, by their ids. Raises StoreError."""
    given = {"service": service, "names": None if names is None else list(names)}
    with store_errors("metrics can't be read"):
        cursor = await connection.execute(_SERIES.encode(), given)
        return {number: Series(name, tags or None) async for number, name, tags in cursor}


async def newest_points(
    connection: Connection,
    service: str,
    span: Span,
    names: Collection[str] | None,
    series: Mapping[int, Series],
    limit: int,
) -> Sequence[Sample]:
    """Return the newest LIMIT points of SPAN, the newest first. SERIES are the series by id.

    Raises StoreError.
    """
    given = {**_given(service, span, names, limit), "step": span.step, "series": list(series)}
    table = _TABLES.get(span.source)
    statement = _RAW_POINTS.encode() if table is None else sql.SQL(_POINTS).format(sql.Identifier(table))
    with store_errors("metrics can't be read"):
        cursor = await connection.execute(statement, given)
        rows = await cursor.fetchall()
    if table is not None:
        rows = [(begun, *series[number], *rest) for begun, number, *rest in rows]
    # Divided here, since PostgreSQL raises an error on underflow.
    return [
        Sample(None, service, begun, name, total / count, tags, least, greatest, count)
        for begun, name, tags, count, total, least, greatest in rows
    ]


def _given(service: str, span: Span, names: Collection[str] | None, limit: int) -> dict[str, object]:
    return {
        "service": service,
        "names": None if names is None else list(names),
        "start": span.start,
        "end": span.end,
        "limit": limit,
    }
