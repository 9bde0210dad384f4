"""Reading stored log entries by id, and translating a filter to SQL conditions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql
from psycopg.rows import TupleRow

from helmd.model.api.logs import LogEntry
from helmd.model.logs.entry import HTTP, LogRow
from helmd.model.logs.filter import LogFilter, words_of
from helmd.model.logs.query_language.nodes import conjuncts
from helmd.store.logs.columns import PLAIN_SQL, READ_SQL
from helmd.store.logs.language import like_pattern, node_condition
from helmd.store.session import Connection, store_errors


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row of ``log_entries`` with its id."""

    id: int
    row: LogRow

    @property
    def body(self) -> LogEntry:
        """The entry as in the API."""
        return LogEntry(self.id, *self.row)  # type: ignore[arg-type]  # PostgreSQL checks that the level is one

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of `body`, which streams need quickly; the time is ISO 8601 in UTC."""
        return {"id": self.id, **self.row._asdict(), "timestamp": self.row.timestamp.isoformat()}


def stored(found: TupleRow) -> StoredEntry:
    """Return the entry for a result row with the columns READ_SQL."""
    return StoredEntry(found[0], LogRow(*found[1:]))


NOT_DUPLICATE = sql.SQL("duplicate_of IS NULL")
"""For a line both printed and posted, only the entry stored first is returned."""

_POSTED = frozenset({HTTP})
"""The one source that has an index: log_entries_posted."""

Conditions = tuple[list[sql.Composable], list[object]]
"""SQL conditions, and their parameters."""


def conditions(wanted: LogFilter) -> Conditions:
    """Return all conditions of the filter."""
    indexed, scanned = indexed_conditions(wanted), scan_conditions(wanted)
    return [*indexed[0], *scanned[0]], [*indexed[1], *scanned[1]]


def indexed_conditions(wanted: LogFilter) -> Conditions:
    """Return the conditions supported by an index that is ordered by time, so that the newest matches come first."""
    met: list[sql.Composable] = [*_among("service_name", wanted.services), *_among("level", wanted.levels)]
    given: list[object] = []

    def add(condition: LiteralString, *values: object) -> None:
        met.append(sql.SQL(condition))
        given.extend(values)

    if wanted.sources is None:
        met.append(NOT_DUPLICATE)
    elif wanted.sources == _POSTED:
        met += _among("source", wanted.sources)
    if wanted.start is not None:
        add("timestamp >= %s", wanted.start)
    if wanted.end is not None:
        add("timestamp < %s", wanted.end)
    if wanted.trace_id is not None:
        add("trace_id = %s", wanted.trace_id)
    if wanted.user_id is not None:
        add("user_id = %s", wanted.user_id)
    return met, given


def scan_conditions(wanted: LogFilter) -> Conditions:
    """Return the other conditions: they need a scan of the rows, or the trigram index."""
    sources = None if wanted.sources == _POSTED else wanted.sources
    met: list[sql.Composable] = [*_among("source", sources), *_among("stream", wanted.streams)]
    given: list[object] = []
    if wanted.text is not None:
        for condition, value in _text_conditions(wanted):
            met.append(condition)
            given.append(value)
    for node in conjuncts(wanted.rest):
        asked, values = node_condition(node)
        met.append(sql.SQL("({})").format(asked))
        given += values
    return met, given


def _among(column: str, chosen: frozenset[str] | None) -> list[sql.Composable]:
    if chosen is None:
        return []
    # "=" for a single value, since only then an index returns rows in order of time.
    name, values = sql.Identifier(column), sorted(chosen)
    shown = sql.SQL(", ").join(map(sql.Literal, values)) if values else sql.SQL("NULL")
    return [(sql.SQL("{} = {}") if len(values) == 1 else sql.SQL("{} IN ({})")).format(name, shown)]


def _text_conditions(wanted: LogFilter) -> list[tuple[sql.Composable, str]]:
    """Return conditions on the message, each with its parameter; all can use a trigram index."""
    text = wanted.text or ""
    if wanted.mode == "regex":
        return [(sql.SQL("message ~* %s"), text)]
    if wanted.mode == "words":
        # The constraints match at any end that is not a word character, so "(error)" is found as well.
        return [(sql.SQL("message ~* %s"), _bounded(word)) for word in words_of(text)]
    return [(sql.SQL("message ILIKE %s"), f"%{like_pattern(text)}%")]


def _bounded(word: str) -> str:
    """Return a PostgreSQL regular expression for a whole word (manual, section 9.7.3)."""
    escaped = "".join(c if c.isalnum() or c == "_" or not c.isascii() else "\\" + c for c in word)
    # Not \m and \M, which never match beside a character that is not part of a word.
    return rf"(?<!\w){escaped}(?!\w)"


def where(met: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(met) if met else sql.SQL("true")


def day_rows(leaves: Iterable[str], met: Sequence[sql.Composable]) -> sql.Composed:
    """Return a UNION ALL of the rows that meet MET in several partitions; parameters are repeated for each.

    Its columns are those of PLAIN_SQL.
    """
    one = sql.SQL("SELECT {} FROM {} WHERE {}")
    return sql.SQL(" UNION ALL ").join(one.format(PLAIN_SQL, sql.Identifier(leaf), where(met)) for leaf in leaves)


async def entry(connection: Connection, number: int) -> StoredEntry | None:
    """Return the entry with this id, or None. Raises StoreError."""
    with store_errors("the log entry can't be read"):
        cursor = await connection.execute(
            sql.SQL("SELECT {} FROM log_entries WHERE id = %s").format(READ_SQL), (number,), prepare=True
        )
        found = await cursor.fetchone()
    return None if found is None else stored(found)


async def after(
    connection: Connection,
    last_seen: int,
    up_to: int,
    limit: int,
    leaves: Sequence[str] = (),
    wanted: LogFilter | None = None,
) -> list[StoredEntry]:
    """Return at most LIMIT entries with ids above LAST_SEEN, up to and including UP_TO, ordered by id.

    LEAVES are the partitions to search; empty means all. Raises StoreError.
    """
    met, given = conditions(wanted) if wanted is not None else ([], [])
    met = [sql.SQL("id > %s"), sql.SQL("id <= %s"), *met]
    values = [last_seen, up_to, *given]
    one = sql.SQL("(SELECT {columns} FROM {leaf} WHERE {met} ORDER BY id LIMIT {limit})")
    parts = [
        one.format(columns=READ_SQL, leaf=sql.Identifier(leaf), met=where(met), limit=sql.Literal(limit))
        for leaf in leaves or ("log_entries",)
    ]
    statement = sql.SQL(" UNION ALL ").join(parts)
    if len(parts) > 1:
        statement = sql.SQL("{} ORDER BY id LIMIT {}").format(statement, sql.Literal(limit))
    with store_errors("log entries can't be read"):
        cursor = await connection.execute(statement, values * len(parts))
        return [stored(row) async for row in cursor]
