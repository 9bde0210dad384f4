"""Counting log entries: from the rollups if possible, else by counting rows, within a time limit."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from helmd.model.errors import UsageError
from helmd.model.logs.filter import LogFilter
from helmd.model.logs.query_language.nodes import conjuncts
from helmd.store.logs.entries import NOT_DUPLICATE, conditions, day_rows, scan_conditions, where
from helmd.store.logs.language import node_condition
from helmd.store.maintenance.partitions import MOST_DAYS, Leaf, group_by_day, growing_groups, leaves, retry_if_dropped
from helmd.store.session import Connection, limit_statements, reason, store_errors

EXACT_UP_TO = 1_000_000
_FEW_DAYS = 8
"""Days counted per statement: enough to save statements, few enough to stop at the deadline."""
_FEW_ENTRIES = 50_000
"""Number of rows that can be scanned within the time limit of a count."""
_SAMPLE, _SAMPLE_SECONDS = 2_000, 0.2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""Later than all entries (``make_log_partition``). A later time may have none that it can be rounded up to."""
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)

Where = tuple[list[sql.Composable], list[object]]


@dataclass(frozen=True, slots=True)
class Total:
    """The number of matching entries; ``estimate`` if not all were counted."""

    entries: int
    estimate: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """Number of entries by level in the step beginning at ``start``; levels without entries are omitted."""

    start: datetime
    levels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Histogram:
    """All buckets in order of time. ``counted_back_to`` is set if the time limit was reached before the start."""

    buckets: tuple[Bucket, ...]
    counted_back_to: datetime | None = None


async def total(connection: Connection, wanted: LogFilter, seconds: float, *, expensive: bool = False) -> Total:
    """Return the number of entries that match WANTED: exact up to a million, unless that takes longer than SECONDS.

    EXPENSIVE says that counting rows is slow, since many of the newest entries match or a search has reached its time
    limit; then rows are counted only if there are few to scan. Raises StoreError, and UsageError for an invalid
    regular expression.
    """
    deadline = time.monotonic() + seconds

    async def attempt() -> Total:
        if wanted.counted:
            return Total(await _by_rollups(connection, wanted))
        everything = await _by_rollups(connection, rollup_filter(wanted)) if expensive else 0
        if everything > _FEW_ENTRIES:
            days = group_by_day(await leaves(connection, wanted.start, wanted.end))
            return await _estimated(connection, wanted, *await _sampled(connection, wanted, days), everything)
        return await _by_scanning(connection, wanted, deadline)

    with store_errors("log entries can't be counted"):
        return await retry_if_dropped(attempt)


async def counted_by_day(connection: Connection, wanted: LogFilter) -> dict[date, int]:
    """Return the number of entries by UTC day from the rollups. WANTED must be ``counted``; its times are ignored.

    Raises psycopg.Error.
    """
    met, given = _rollup_conditions(wanted)
    cursor = await connection.execute(
        sql.SQL("SELECT (slot AT TIME ZONE 'UTC')::date, sum(entries) FROM log_counts_hour WHERE {} GROUP BY 1").format(
            where(met)
        ),
        given,
    )
    return {day: int(entries) async for day, entries in cursor}


async def histogram(
    connection: Connection, wanted: LogFilter, start: datetime, end: datetime, step: timedelta, seconds: float = 2.0
) -> Histogram:
    """Return the number of entries by level in each STEP (whole minutes) from START to END, rounded to whole steps.

    Raises as `total`.
    """
    first, last = _floor(start, step), _ceiling(end, step)
    wanted = replace(wanted, start=first, end=last)
    deadline = time.monotonic() + seconds
    counts: dict[datetime, dict[str, int]] = {}
    reached = None

    async def attempt() -> datetime | None:
        counts.clear()
        return await _histogram_by_scanning(connection, wanted, step, deadline, counts)

    with store_errors("log entries can't be counted"):
        if wanted.counted:
            table = "log_counts_hour" if step % _HOUR == timedelta() else "log_counts_minute"
            met, given = _rollup_conditions(wanted)
            # One JSON value, since psycopg takes longer to read thousands of rows than PostgreSQL to compute them.
            cursor = await connection.execute(
                sql.SQL(
                    "SELECT json_agg(json_build_array(extract(epoch FROM bucket - %s), level, entries)) FROM"
                    " (SELECT date_bin(%s, slot, %s) AS bucket, level, sum(entries)::bigint AS entries"
                    " FROM {} WHERE {} GROUP BY 1, 2) AS counts"
                ).format(sql.Identifier(table), where([*met, sql.SQL("slot >= %s"), sql.SQL("slot < %s")])),
                [first, step, _EPOCH, *given, first, last],
            )
            found = await cursor.fetchone()
            for seconds_on, level, entries in (found and found[0]) or ():
                counts.setdefault(first + timedelta(seconds=seconds_on), {})[level] = entries
        else:
            reached = await retry_if_dropped(attempt)
    number = max(0, -(-(last - first) // step))
    return Histogram(tuple(Bucket(first + n * step, counts.get(first + n * step, {})) for n in range(number)), reached)


async def level_counts(connection: Connection, since: datetime) -> dict[str, dict[str, int]]:
    """Return the number of entries by service and level from the minute of SINCE on. Raises StoreError."""
    hour = _ceiling(since, _HOUR)
    found: dict[str, dict[str, int]] = {}
    with store_errors("log entries can't be counted"):
        cursor = await connection.execute(
            "SELECT service_name, level, sum(entries) FROM ("
            " SELECT * FROM log_counts_hour WHERE slot >= %s UNION ALL"
            " SELECT * FROM log_counts_minute WHERE slot >= %s AND slot < %s) AS counts GROUP BY 1, 2",
            (hour, _floor(since, _MINUTE), hour),
            prepare=True,
        )
        async for service, level, entries in cursor:
            found.setdefault(service, {})[level] = int(entries)
    return found


def _floor(timestamp: datetime, step: timedelta) -> datetime:
    return timestamp - (timestamp - _EPOCH) % step


def _ceiling(timestamp: datetime, step: timedelta) -> datetime:
    timestamp = min(timestamp, _LATEST)
    return timestamp + (_EPOCH - timestamp) % step


def _rollup_conditions(wanted: LogFilter) -> Where:
    met: list[sql.Composable] = []
    given: list[object] = []
    for column, chosen in (("service_name", wanted.services), ("level", wanted.levels)):
        if chosen is not None:
            met.append(sql.SQL("{} = ANY(%s)").format(sql.Identifier(column)))
            given.append(sorted(chosen))
    for node in conjuncts(wanted.rest):
        asked, values = node_condition(node)
        met.append(sql.SQL("({})").format(asked))
        given += values
    return met, given


async def _by_rollups(connection: Connection, wanted: LogFilter) -> int:
    found = await grouped_by_rollups(connection, wanted, sql.SQL("true"))
    return found.get(True, 0)


async def grouped_by_rollups(connection: Connection, wanted: LogFilter, column: sql.Composable) -> dict[Any, int]:
    """Return the number of entries that match WANTED, which must be ``counted``, by the values of COLUMN, which rollups
    have.

    Sums whole hours and minutes from the rollups and counts rows at both ends, in one statement (one snapshot). Raises
    psycopg.Error.
    """
    parts = _rollup_parts(wanted, column)
    if not parts:
        return {}
    statement = sql.SQL(
        "SELECT value, sum(entries)::bigint FROM ({}) AS parts GROUP BY 1 HAVING sum(entries) > 0"
    ).format(sql.SQL(" UNION ALL ").join(part for part, _ in parts))
    # Not prepared: to consider a generic plan, PostgreSQL would plan for all partitions once.
    cursor = await connection.execute(statement, [value for _, given in parts for value in given], prepare=False)
    return {value: entries async for value, entries in cursor}


def _rollup_parts(wanted: LogFilter, column: sql.Composable) -> list[tuple[sql.Composable, list[object]]]:
    """Return queries for COLUMN and numbers of entries, with their parameters; together they have each entry once."""
    start, end = wanted.start, wanted.end
    parts: list[tuple[sql.Composable, list[object]]] = []
    if start is not None and end is not None and end <= start:
        return parts
    first = None if start is None else _ceiling(start, _MINUTE)
    last = None if end is None else _floor(end, _MINUTE)
    if first is not None and last is not None and first > last:
        # The range lies within one minute.
        first = last = end
    if start is not None and first is not None and start < first:
        parts.append(_count_rows(replace(wanted, end=first), column))
    if end is not None and last is not None and last < end:
        parts.append(_count_rows(replace(wanted, start=last), column))
    first_hour = None if first is None else _ceiling(first, _HOUR)
    last_hour = None if last is None else _floor(last, _HOUR)
    if first_hour is not None and last_hour is not None and first_hour >= last_hour:
        parts.append(_sum_rollups("log_counts_minute", wanted, column, first, last))
    else:
        parts.append(_sum_rollups("log_counts_hour", wanted, column, first_hour, last_hour))
        if first is not None:
            parts.append(_sum_rollups("log_counts_minute", wanted, column, first, first_hour))
        if last is not None:
            parts.append(_sum_rollups("log_counts_minute", wanted, column, last_hour, last))
    return parts


def _count_rows(wanted: LogFilter, column: sql.Composable) -> tuple[sql.Composable, list[object]]:
    met, given = conditions(wanted)
    counted = sql.SQL("SELECT {} AS value, count(*)::numeric AS entries FROM log_entries WHERE {} GROUP BY 1")
    return counted.format(column, where(met)), given


def _sum_rollups(
    table: str, wanted: LogFilter, column: sql.Composable, first: datetime | None, last: datetime | None
) -> tuple[sql.Composable, list[object]]:
    met, given = _rollup_conditions(wanted)
    for condition, timestamp in ((sql.SQL("slot >= %s"), first), (sql.SQL("slot < %s"), last)):
        if timestamp is not None:
            met.append(condition)
            given.append(timestamp)
    summed = sql.SQL("SELECT {} AS value, sum(entries) AS entries FROM {} WHERE {} GROUP BY 1")
    return summed.format(column, sql.Identifier(table), where(met)), given


async def _by_scanning(connection: Connection, wanted: LogFilter, deadline: float) -> Total:
    counted = 0
    reached = None
    days = group_by_day(await leaves(connection, wanted.start, wanted.end))
    by_index = not scan_conditions(wanted)[0]
    count_leaf = _leaf_counters(connection, wanted, apart=by_index)
    for some in growing_groups(days, MOST_DAYS if by_index else _FEW_DAYS):
        parts: list[str] = []
        given: list[object] = []
        for leaf in (leaf for day in some for leaf in day):
            for part, values in count_leaf(leaf):
                parts.append(part)
                given += values
        statement = f"SELECT {' + '.join(parts)}".encode()
        rows = await within_deadline(connection, statement, given, deadline, keep_plan=True, few=wanted.few)
        if rows is None:
            if not counted:
                counted, reached = await _sampled(connection, wanted, days)
            return await _estimated(connection, wanted, counted, reached)
        counted += int(rows[0][0])
        reached = some[-1][-1].begins
        if counted > EXACT_UP_TO:
            return await _estimated(connection, wanted, counted, reached)
    return Total(counted)


def _leaf_counters(
    connection: Connection, wanted: LogFilter, *, apart: bool
) -> Callable[[Leaf], list[tuple[str, list[object]]]]:
    """Return a function that returns SQL expressions which count a partition's entries, one per index, with parameters.

    With APART, all rows are counted and the few duplicates are subtracted, so that index-only scans suffice.
    """
    made: dict[LogFilter, tuple[list[str], list[object]]] = {}

    def count_leaf(leaf: Leaf) -> list[tuple[str, list[object]]]:
        narrowed = wanted.of_day(leaf.begins)
        if narrowed not in made:
            met, given = conditions(narrowed)
            whole = [condition for condition in met if condition is not NOT_DUPLICATE] if apart else met
            again = [[*whole, sql.SQL("duplicate_of IS NOT NULL")]] if len(whole) < len(met) else []
            made[narrowed] = [where(each).as_string(connection) for each in (whole, *again)], given
        each, given = made[narrowed]
        return [
            (
                " - ".join(f"(SELECT count(*) FROM {leaf.name} WHERE {' AND '.join([asked, *ids])})" for asked in each),  # noqa: S608
                given * len(each),
            )
            for ids in id_ranges(leaf, wanted)
        ]

    return count_leaf


def rollup_filter(wanted: LogFilter) -> LogFilter:
    """Return the part of the filter that the rollups support."""
    rest = wanted.rest if wanted.rest_counted else None
    return replace(wanted, trace_id=None, user_id=None, text=None, sources=None, streams=None, rest=rest)


async def _estimated(
    connection: Connection, wanted: LogFilter, counted: int, reached: datetime | None, everything: int | None = None
) -> Total:
    """Extrapolate from the COUNTED entries since REACHED to the whole range.

    EVERYTHING is the number of rows that the rollups have for the range, if already known.
    """
    if reached is None:
        return Total(counted, True)
    like = rollup_filter(wanted)
    if everything is None:
        everything = await _by_rollups(connection, like)
    seen = await _by_rollups(connection, replace(like, start=max(reached, like.start) if like.start else reached))
    return Total(counted * everything // seen if seen else counted, True)


async def _sampled(
    connection: Connection, wanted: LogFilter, days: Sequence[Sequence[Leaf]]
) -> tuple[int, datetime | None]:
    """Return the number of matches among the newest entries, and the time of the oldest of these."""
    met, given = conditions(replace(wanted, trace_id=None, user_id=None, text=None, rest=None))
    asked, values = conditions(wanted)
    for day in days:
        tables = day_rows((leaf.name for leaf in day), met)
        statement = sql.SQL(
            "SELECT count(*) FILTER (WHERE {}), min(timestamp)"
            " FROM (SELECT * FROM ({}) AS day ORDER BY timestamp DESC, id DESC LIMIT {}) AS few"
        ).format(where(asked), tables, sql.Literal(_SAMPLE))
        rows = await within_deadline(
            connection, statement, [*values, *given * len(day)], time.monotonic() + _SAMPLE_SECONDS
        )
        if rows is None or rows[0][1] is not None:
            return (0, None) if rows is None else (rows[0][0], rows[0][1])
    return 0, None


async def _histogram_by_scanning(
    connection: Connection,
    wanted: LogFilter,
    step: timedelta,
    deadline: float,
    counts: dict[datetime, dict[str, int]],
) -> datetime | None:
    """Fill COUNTS, newest days first. Return the time reached if the deadline passed, else None."""
    met, given = conditions(wanted)
    for some in growing_groups(group_by_day(await leaves(connection, wanted.start, wanted.end)), _FEW_DAYS):
        parts = [
            sql.SQL("SELECT timestamp, level FROM {} WHERE {}").format(
                sql.Identifier(leaf.name), where([*met, *map(sql.SQL, ids)])
            )
            for day in some
            for leaf in day
            for ids in id_ranges(leaf, wanted)
        ]
        statement = sql.SQL("SELECT date_bin(%s, timestamp, %s), level, count(*) FROM ({}) AS e GROUP BY 1, 2").format(
            sql.SQL(" UNION ALL ").join(parts)
        )
        values = [step, _EPOCH, *given * len(parts)]
        rows = await within_deadline(connection, statement, values, deadline, few=wanted.few)
        if rows is None:
            return some[0][0].begins + timedelta(days=1)
        for bucket, level, entries in rows:
            levels = counts.setdefault(bucket, {})
            levels[level] = levels.get(level, 0) + entries
    return None


def id_ranges(leaf: Leaf, wanted: LogFilter) -> list[list[str]]:
    """Return conditions for the ranges of ids with an index of their own; only a text search needs them."""
    if wanted.text is None or leaf.sealed:
        return [[]]
    return [
        [f"id >= {first:d}"] if end is None else [f"id >= {first:d}", f"id < {end:d}"]
        for first, end in leaf.text_ranges
    ]


async def within_deadline(
    connection: Connection,
    statement: sql.Composed | bytes,
    given: Sequence[object],
    deadline: float,
    *,
    keep_plan: bool = False,
    few: bool = False,
) -> list[TupleRow] | None:
    """Return the rows of STATEMENT, or None if DEADLINE passes first.

    KEEP_PLAN and FEW are those of `helmd.store.session.limit_statements`.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    try:
        async with connection.transaction():
            await limit_statements(connection, left, keep_plans=keep_plan, few=few)
            cursor = await connection.execute(statement, given, prepare=keep_plan)
            return await cursor.fetchall()
    except psycopg.errors.QueryCanceled:
        return None
    except psycopg.errors.InvalidRegularExpression as error:
        raise UsageError(f"q: invalid regular expression ({reason(error)})") from None
