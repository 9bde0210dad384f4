"""Writing log entries: by COPY, with everything that goes with them, in one transaction.

What goes with rows: the partitions they need, ids that become visible in order, the counts of the rollups, the mark on
lines that are there already because a service both prints and posts them, and word to followers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta

from psycopg import sql

from helmd.model.logs.deduplication import MAX_DISTANCE, OTHER, Single, Window, days_in, paired, whole_window, windows
from helmd.model.logs.entry import HTTP, JOURNAL, LogRow, field_reader
from helmd.model.logs.ids import with_short_ids
from helmd.model.logs.notify_payload import Announcement
from helmd.store.ingest.copy_text import COLUMNS, Counts, RetentionOf, chunks, partitions_of
from helmd.store.session import APPEND_LOCK, LOCK_CLASS, Connection

LOG_CHANNEL = "log_entries"
"""NOTIFY channel of `Announcement`."""

_COPY = sql.SQL("COPY log_entries ({}) FROM STDIN").format(sql.SQL(", ").join(map(sql.Identifier, COLUMNS)))
_WINDOWS = 20
"""The number of time windows in which duplicates are searched for; entries posted late, of many days, need no more."""
_ONE_WINDOW = timedelta(hours=6)
"""How long a stretch of printed lines may be for one look at what was posted meanwhile."""
_SINGLES = (
    "SELECT id, timestamp, service_name, message, source FROM {{}} WHERE source = '{}' AND timestamp BETWEEN %s AND %s"
    " AND service_name = ANY(%s) AND duplicate_of IS NULL AND message = ANY(%s) LIMIT 50000"
)
_POSTED, _PRINTED = (sql.SQL(_SINGLES.format(source)) for source in (HTTP, JOURNAL))
_POSTERS = sql.SQL(
    "SELECT DISTINCT service_name FROM {} WHERE source = 'http' AND timestamp BETWEEN %s AND %s"
    " AND service_name = ANY(%s) AND duplicate_of IS NULL"
)
_THERE = "SELECT leaf FROM log_partitions WHERE leaf = ANY(%s)"
_BOOTS = "SELECT long_id, short_id FROM log_boots WHERE long_id = ANY(%s::text[])"
_NEW_BOOTS = "INSERT INTO log_boots (long_id) SELECT unnest(%s::text[]) RETURNING long_id, short_id"
_REFERRED = sql.SQL("SELECT duplicate_of FROM {} WHERE duplicate_of = ANY(%s)")


_service, _source, _boot, _duplicate_of = map(field_reader, ("service_name", "source", "boot_id", "duplicate_of"))


@dataclass(frozen=True, slots=True)
class Appended:
    """What `append_rows` did. ``same`` of the ``stored`` rows are lines that were there already."""

    first_id: int
    last_id: int
    stored: int
    same: int


def leaf_of(retention: int, day: str) -> str:
    """The partition of a retention class and a day (``2026-01-31``)."""
    return f"log_entries_{retention}_{day.replace('-', '')}"


class Appender:
    """Appends rows. One for each connection, or for each task that appends: it remembers which partitions there are.

    After an error of the store a new one is to be made.
    """

    def __init__(self, retention_of: RetentionOf) -> None:
        self._retention_of = retention_of
        self._there: set[str] = set()

    async def append(self, connection: Connection, rows: Sequence[LogRow]) -> Appended:
        """Insert rows, within the caller's transaction. Raises psycopg's errors.

        Whoever inserts holds one lock from before the first id is drawn until the commit, so ids become visible in
        their order and a reader that asks for what is after id N misses nothing.
        """
        if not rows:
            return Appended(0, 0, 0, 0)
        rows = with_short_ids(rows)
        cursor = await connection.execute(
            "SELECT pg_advisory_xact_lock(%s, %s), reserve_log_ids(%s)",
            (LOCK_CLASS, APPEND_LOCK, len(rows)),
            prepare=True,
        )
        found = await cursor.fetchone()
        assert found is not None
        last = int(found[1])
        first = last - len(rows) + 1
        leaves = await self._partitions(connection, partitions_of(rows, self._retention_of))
        marked = await self._marked(connection, rows, first)
        boots = await _short_boots(connection, rows)
        counts: Counts = {}
        async with connection.cursor() as copying, copying.copy(_COPY) as copy:
            for text in chunks(marked, first, self._retention_of, boots, counts):
                await copy.write(text)
        await _count(connection, counts)
        await connection.execute(
            "SELECT pg_notify(%s, %s)", (LOG_CHANNEL, str(Announcement(last, tuple(leaves)))), prepare=True
        )
        return Appended(first, last, len(rows), len(rows) - [*map(_duplicate_of, marked)].count(None))

    async def _partitions(self, connection: Connection, days: Iterable[tuple[int, str]]) -> list[str]:
        """Create the missing partitions for each (retention, day); return the names of all."""
        leaves = []
        for retention, day in sorted(days):
            leaf = leaf_of(retention, day)
            leaves.append(leaf)
            if leaf in self._there:
                continue
            cursor = await connection.execute("SELECT make_log_partition(%s::smallint, %s::date)", (retention, day))
            if await cursor.fetchone() == (False,):
                # One made just now is gone again if this transaction fails.
                self._there.add(leaf)
        return leaves

    async def _marked(self, connection: Connection, rows: Sequence[LogRow], first: int) -> Sequence[LogRow]:
        """ROWS with ``duplicate_of`` set where a line is there already."""
        sources = {*map(_source, rows)} & OTHER.keys()
        singles: list[Single] = []
        if HTTP in sources:
            for window in windows(rows, HTTP)[:_WINDOWS]:
                for leaf in await self._leaves(connection, window):
                    singles += await _singles(connection, _PRINTED, leaf, window)
        if JOURNAL in sources:
            for window in _journal_windows(rows):
                for leaf in await self._leaves(connection, window):
                    singles += await _posted(connection, leaf, window)
        if singles:
            singles = await self._untaken(connection, singles)
        if not singles and len(sources) < len(OTHER):
            return rows
        return paired(rows, first, singles)

    async def _leaves(self, connection: Connection, window: Window) -> list[str]:
        """The partitions that can have duplicates of the rows of WINDOW."""
        classes = {self._retention_of(service) for service in {*map(_service, window.rows)}}
        return await self._existing(connection, {leaf_of(each, day) for each in classes for day in days_in(window)})

    async def _existing(self, connection: Connection, leaves: set[str]) -> list[str]:
        """Those of LEAVES that there are; none is made for rows that may have been."""
        unknown = leaves - self._there
        if unknown:
            cursor = await connection.execute(_THERE, (list(unknown),), prepare=True)
            # Not to be remembered: one of them may be of this transaction.
            unknown = {row[0] async for row in cursor}
        return sorted(leaves & self._there | unknown)

    async def _untaken(self, connection: Connection, singles: Sequence[Single]) -> list[Single]:
        """Those of SINGLES that have no duplicate yet: none that came later refers to them."""
        ids = [single.id for single in singles]
        classes = {self._retention_of(service) for service in {single.service_name for single in singles}}
        times = {single.timestamp + apart for single in singles for apart in (-MAX_DISTANCE, MAX_DISTANCE)}
        days = {time.astimezone(UTC).date().isoformat() for time in times}
        taken: set[int] = set()
        for leaf in await self._existing(connection, {leaf_of(each, day) for each in classes for day in days}):
            cursor = await connection.execute(_REFERRED.format(sql.Identifier(leaf)), (ids,))
            taken |= {row[0] async for row in cursor}
        return [single for single in singles if single.id not in taken]


async def _short_boots(connection: Connection, rows: Sequence[LogRow]) -> dict[str, str]:
    """The short ids of the boots of ROWS. They are not kept: a transaction that fails takes new ones back."""
    boots = {*map(_boot, rows)} - {None}
    if not boots:
        return {}
    cursor = await connection.execute(_BOOTS, (list(boots),), prepare=True)
    known = {long: short async for long, short in cursor}
    if unknown := sorted(boot for boot in boots if boot is not None and boot not in known):
        cursor = await connection.execute(_NEW_BOOTS, (unknown,))
        known |= {long: short async for long, short in cursor}
    return known


def _journal_windows(rows: Sequence[LogRow]) -> list[Window]:
    """The stretches of time of the printed ones among ROWS: one, unless a clock was set or the batch spans days."""
    window = whole_window(rows, JOURNAL)
    return [window] if window.until - window.since < _ONE_WINDOW else windows(rows, JOURNAL)[-_WINDOWS:]


async def _singles(connection: Connection, statement: sql.SQL, leaf: str, window: Window) -> list[Single]:
    """Rows of LEAF that may be duplicates of WINDOW's. They may be among a flood, of which only these texts matter."""
    wanted = {(row.service_name, row.message) for row in window.rows}
    texts, services = list({message for _, message in wanted}), list({service for service, _ in wanted})
    given = (window.since, window.until, services, texts)
    cursor = await connection.execute(statement.format(sql.Identifier(leaf)), given, prepare=True)
    return [Single(*row) async for row in cursor if (row[2], row[3]) in wanted]


async def _posted(connection: Connection, leaf: str, window: Window) -> list[Single]:
    """Posted rows of LEAF that may be duplicates of WINDOW's. Mostly there are none, and no text is sent."""
    services = list({*map(_service, window.rows)})
    cursor = await connection.execute(
        _POSTERS.format(sql.Identifier(leaf)), (window.since, window.until, services), prepare=True
    )
    posters = {row[0] async for row in cursor}
    if not posters:
        return []
    of_posters = window._replace(rows=tuple(row for row in window.rows if row.service_name in posters))
    return await _singles(connection, _POSTED, leaf, of_posters)


async def append_with_ids(
    connection: Connection, rows: Sequence[LogRow], ids: Sequence[int], retention_of: RetentionOf
) -> None:
    """Insert ROWS that came long ago, with IDS below those that are given out now; within the caller's transaction.

    Followers are not notified: they have read further. Raises psycopg's errors.
    """
    await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, APPEND_LOCK))
    rows = with_short_ids(rows)
    leaves = [leaf_of(retention, day) for retention, day in sorted(partitions_of(rows, retention_of))]
    await connection.execute(
        "SELECT make_log_partition(class, day) FROM unnest(%s::smallint[], %s::date[]) AS wanted (class, day)",
        tuple(map(list, zip(*sorted(partitions_of(rows, retention_of)), strict=True))),
    )
    await connection.execute(
        "UPDATE log_partitions SET begun = least(begun, %s) WHERE leaf = ANY(%s)", (min(ids) - 1, leaves)
    )
    boots = await _short_boots(connection, rows)
    counts: Counts = {}
    async with connection.cursor() as copying, copying.copy(_COPY) as copy:
        for first, last in _runs(ids):
            for text in chunks(rows[first:last], ids[first], retention_of, boots, counts):
                await copy.write(text)
    await _count(connection, counts)


def _runs(ids: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Where in IDS those begin and end that follow one another."""
    begin = 0
    for number in range(1, len(ids) + 1):
        if number == len(ids) or ids[number] != ids[number - 1] + 1:
            yield begin, number
            begin = number


async def _count(connection: Connection, counts: Counts) -> None:
    """Adds COUNTS to the rollups."""
    hours: Counts = {}
    for (minute, *rest), entries in counts.items():
        key = (minute[:13] + ":00", *rest)
        hours[key] = hours.get(key, 0) + entries  # type: ignore[index, arg-type]
    for table, slots in (("log_counts_minute", counts), ("log_counts_hour", hours)):
        if not slots:
            continue
        keys = sorted(slots)
        await connection.execute(
            sql.SQL(
                "INSERT INTO {0} SELECT * FROM unnest(%s::timestamptz[], %s::smallint[], %s::text[], %s::text[],"
                " %s::bigint[]) ON CONFLICT (slot, service_name, level, retention)"
                " DO UPDATE SET entries = {0}.entries + excluded.entries"
            ).format(sql.Identifier(table)),
            ([f"{key[0]}Z" for key in keys], *([key[n] for key in keys] for n in (1, 2, 3)), [slots[k] for k in keys]),
            prepare=True,
        )
