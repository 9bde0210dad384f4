"""Writing log entries by COPY, within the caller's transaction.

It also creates the partitions, assigns ids that become visible in order, updates the rollups, marks duplicates (lines
that a service both prints and posts), and notifies followers.
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
"""Maximum number of time windows in which duplicates are searched for; entries of many days that come late need no
more.
"""
_ONE_WINDOW = timedelta(hours=6)
"""Maximum time range of printed lines whose duplicates are searched for by one query."""
_SINGLES = (
    "SELECT id, timestamp, service_name, message, source FROM {{}} WHERE source = '{}' AND timestamp BETWEEN %s AND %s"
    " AND service_name = ANY(%s) AND duplicate_of IS NULL AND message = ANY(%s) LIMIT 50000"
)
_POSTED, _PRINTED = (sql.SQL(_SINGLES.format(source)) for source in (HTTP, JOURNAL))
_POSTERS = sql.SQL(
    "SELECT DISTINCT service_name FROM {} WHERE source = 'http' AND timestamp BETWEEN %s AND %s"
    " AND service_name = ANY(%s) AND duplicate_of IS NULL"
)
_EXISTING = "SELECT leaf FROM log_partitions WHERE leaf = ANY(%s)"
_BOOTS = "SELECT long_id, short_id FROM log_boots WHERE long_id = ANY(%s::text[])"
_NEW_BOOTS = "INSERT INTO log_boots (long_id) SELECT unnest(%s::text[]) RETURNING long_id, short_id"
_REFERRED = sql.SQL("SELECT duplicate_of FROM {} WHERE duplicate_of = ANY(%s)")


_service, _source, _boot, _duplicate_of = map(field_reader, ("service_name", "source", "boot_id", "duplicate_of"))


@dataclass(frozen=True, slots=True)
class Appended:
    """The rows that `Appender.append` wrote. Of the ``stored`` rows, ``duplicates`` are marked as such."""

    first_id: int
    last_id: int
    stored: int
    duplicates: int


def leaf_of(retention: int, day: str) -> str:
    """Return the name of the partition of a retention class, in days, and a day (``2026-01-31``)."""
    return f"log_entries_{retention}_{day.replace('-', '')}"


class Appender:
    """Appends rows, for one connection or task. It caches the names of existing partitions.

    After an error of the store a new one must be made.
    """

    def __init__(self, retention_of: RetentionOf) -> None:
        self._retention_of = retention_of
        self._known_leaves: set[str] = set()

    async def append(self, connection: Connection, rows: Sequence[LogRow]) -> Appended:
        """Insert ROWS within the caller's transaction. Raises psycopg.Error.

        An advisory lock is held from before the first id is drawn until the commit, so ids become visible in order,
        and a reader that asks for ids greater than N misses nothing.
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
            if leaf in self._known_leaves:
                continue
            cursor = await connection.execute("SELECT make_log_partition(%s::smallint, %s::date)", (retention, day))
            if await cursor.fetchone() == (False,):
                # A partition that this transaction created does not exist if it is rolled back.
                self._known_leaves.add(leaf)
        return leaves

    async def _marked(self, connection: Connection, rows: Sequence[LogRow], first: int) -> Sequence[LogRow]:
        """Return ROWS with ``duplicate_of`` set on duplicates of stored rows and of one another."""
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
            singles = await self._unpaired(connection, singles)
        if not singles and len(sources) < len(OTHER):
            return rows
        return paired(rows, first, singles)

    async def _leaves(self, connection: Connection, window: Window) -> list[str]:
        """Return the existing partitions that can have duplicates of the rows of WINDOW."""
        classes = {self._retention_of(service) for service in {*map(_service, window.rows)}}
        return await self._existing(connection, {leaf_of(each, day) for each in classes for day in days_in(window)})

    async def _existing(self, connection: Connection, leaves: set[str]) -> list[str]:
        """Return the partitions among LEAVES that exist."""
        unknown = leaves - self._known_leaves
        if unknown:
            cursor = await connection.execute(_EXISTING, (list(unknown),), prepare=True)
            # Not cached, since this transaction may have created them.
            unknown = {row[0] async for row in cursor}
        return sorted(leaves & self._known_leaves | unknown)

    async def _unpaired(self, connection: Connection, singles: Sequence[Single]) -> list[Single]:
        """Return those of SINGLES that no stored row is marked as a duplicate of."""
        ids = [single.id for single in singles]
        classes = {self._retention_of(service) for service in {single.service_name for single in singles}}
        times = {single.timestamp + apart for single in singles for apart in (-MAX_DISTANCE, MAX_DISTANCE)}
        days = {time.astimezone(UTC).date().isoformat() for time in times}
        referred: set[int] = set()
        for leaf in await self._existing(connection, {leaf_of(each, day) for each in classes for day in days}):
            cursor = await connection.execute(_REFERRED.format(sql.Identifier(leaf)), (ids,))
            referred |= {row[0] async for row in cursor}
        return [single for single in singles if single.id not in referred]


async def _short_boots(connection: Connection, rows: Sequence[LogRow]) -> dict[str, str]:
    """Return the short ids of the boots of ROWS. Not cached, since a rollback removes new ones."""
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
    """Return the time windows of the printed ones among ROWS: one, unless the clock was set or they span hours."""
    window = whole_window(rows, JOURNAL)
    return [window] if window.until - window.since < _ONE_WINDOW else windows(rows, JOURNAL)[-_WINDOWS:]


async def _singles(connection: Connection, statement: sql.SQL, leaf: str, window: Window) -> list[Single]:
    """Return rows of LEAF that may be duplicates of WINDOW's, selected by message, since others may be many."""
    wanted = {(row.service_name, row.message) for row in window.rows}
    texts, services = list({message for _, message in wanted}), list({service for service, _ in wanted})
    given = (window.since, window.until, services, texts)
    cursor = await connection.execute(statement.format(sql.Identifier(leaf)), given, prepare=True)
    return [Single(*row) async for row in cursor if (row[2], row[3]) in wanted]


async def _posted(connection: Connection, leaf: str, window: Window) -> list[Single]:
    """Return posted rows of LEAF that may be duplicates of WINDOW's.

    Usually none of the services has posted, and no messages are sent to the server.
    """
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
    """Insert ROWS of an older store with reserved IDS, below the current ones, within the caller's transaction.

    Followers are not notified, since they have read further. Raises psycopg.Error.
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
    """Yield the start and end indexes of the runs of consecutive numbers in IDS."""
    begin = 0
    for number in range(1, len(ids) + 1):
        if number == len(ids) or ids[number] != ids[number - 1] + 1:
            yield begin, number
            begin = number


async def _count(connection: Connection, counts: Counts) -> None:
    """Add COUNTS to the rollups by minute and by hour."""
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
