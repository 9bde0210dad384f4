"""Summaries of all services from the roll-ups of metrics and log counts."""

from collections.abc import Collection, Mapping
from datetime import date, datetime

from helmd.model.metrics.summaries import DayShare, MinuteValues
from helmd.store.session import Connection, store_errors

_FAILING = "metrics can't be read"
_MINUTES = (
    "SELECT series.service_name, series.metric_name, array_agg(extract(epoch FROM point.begins)::bigint"
    " ORDER BY point.begins), array_agg(point.total / point.samples ORDER BY point.begins)"
    " FROM metric_minutes AS point JOIN metric_series AS series ON series.id = point.series"
    " WHERE series.tags = '{}' AND series.metric_name = ANY (%s) AND point.begins >= %s GROUP BY 1, 2"
)
_DAYS = (
    "SELECT series.service_name, (point.begins AT TIME ZONE 'UTC')::date, sum(point.total) / sum(point.samples),"
    " min(point.minimum), max(point.begins) FILTER (WHERE point.minimum < 1)"
    " FROM metric_five_minutes AS point JOIN metric_series AS series ON series.id = point.series"
    " WHERE series.tags = '{}' AND series.metric_name = %s AND point.begins >= %s GROUP BY 1, 2"
)
_INCREASES = (
    "SELECT service_name, sum(CASE WHEN before IS NULL THEN 0 WHEN maximum < before THEN maximum"
    " ELSE maximum - before END) FROM (SELECT series.service_name, point.maximum,"
    " lag(point.maximum) OVER (PARTITION BY point.series ORDER BY point.begins) AS before"
    " FROM metric_five_minutes AS point JOIN metric_series AS series ON series.id = point.series"
    " WHERE series.tags = '{}' AND series.metric_name = %s AND point.begins >= %s) AS counted GROUP BY 1"
)
_LAST = "SELECT service_name, max(slot) FROM log_counts_minute WHERE slot >= %s AND level = ANY (%s) GROUP BY 1"


async def minute_values(
    connection: Connection, names: Collection[str], since: datetime
) -> Mapping[tuple[str, str], MinuteValues]:
    """Return the values of the metrics NAMES by service and metric. Raises StoreError."""
    with store_errors(_FAILING):
        cursor = await connection.execute(_MINUTES.encode(), (list(names), since))
        return {(row[0], row[1]): MinuteValues(tuple(row[2]), tuple(row[3])) async for row in cursor}


async def day_shares(connection: Connection, name: str, since: datetime) -> Mapping[tuple[str, date], DayShare]:
    """Return the shares of the metric NAME by service and UTC day. Raises StoreError."""
    with store_errors(_FAILING):
        cursor = await connection.execute(_DAYS.encode(), (name, since))
        return {(row[0], row[1]): DayShare(*row[2:]) async for row in cursor}


async def increases(connection: Connection, name: str, since: datetime) -> Mapping[str, int]:
    """Return the increase of the counter NAME by service, resets to 0 included. Raises StoreError."""
    with store_errors(_FAILING):
        cursor = await connection.execute(_INCREASES.encode(), (name, since))
        return {service: round(number) async for service, number in cursor}


async def last_of_levels(connection: Connection, levels: Collection[str], since: datetime) -> Mapping[str, datetime]:
    """Return the minute of each service's last entry with one of LEVELS since SINCE. Raises StoreError."""
    with store_errors("log entries can't be counted"):
        cursor = await connection.execute(_LAST, (since, list(levels)))
        return {service: slot async for service, slot in cursor}
