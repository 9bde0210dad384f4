"""Stored log entries as they are read: one by its id, those after an id, and how a filter becomes a condition."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql
from psycopg.rows import TupleRow

from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter, words_of
from helmd.store.session import Connection, store_errors

READ = ("id", *LogRow._fields)
READ_SQL = sql.SQL(", ").join(map(sql.Identifier, READ))


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row and its id."""

    id: int
    row: LogRow

    def as_json(self) -> dict[str, Any]:
        """By the names that the API gives its fields; the time is ISO 8601 in UTC."""
        return {"id": self.id, **self.row._asdict(), "timestamp": self.row.timestamp.isoformat()}


def stored(found: TupleRow) -> StoredEntry:
    """The entry of a row of READ."""
    return StoredEntry(found[0], LogRow(*found[1:]))


SEEN_ONCE = sql.SQL("duplicate_of IS NULL")
"""Of a line that was printed and posted only the entry that came first counts."""

Conditions = tuple[list[sql.Composable], list[object]]
"""What a row must meet, as SQL, and the parameters of that."""


def conditions(wanted: LogFilter) -> Conditions:
    """All that a row must meet."""
    walked, looked = walked_conditions(wanted), looked_conditions(wanted)
    return [*walked[0], *looked[0]], [*walked[1], *looked[1]]


def walked_conditions(wanted: LogFilter) -> Conditions:
    """What an index by time helps with, so that the newest rows that meet it are found at once."""
    met: list[sql.Composable] = [*_among("service_name", wanted.services), *_among("level", wanted.levels)]
    given: list[object] = []

    def add(condition: LiteralString, *values: object) -> None:
        met.append(sql.SQL(condition))
        given.extend(values)

    if wanted.sources is None:
        met.append(SEEN_ONCE)
    if wanted.start is not None:
        add("timestamp >= %s", wanted.start)
    if wanted.end is not None:
        add("timestamp < %s", wanted.end)
    if wanted.trace_id is not None:
        add("trace_id = %s", wanted.trace_id)
    if wanted.user_id is not None:
        add("user_id = %s", wanted.user_id)
    return met, given


def looked_conditions(wanted: LogFilter) -> Conditions:
    """The others: rows have to be looked at one by one, a text's index aside."""
    met: list[sql.Composable] = [*_among("source", wanted.sources), *_among("stream", wanted.streams)]
    given: list[object] = []
    if wanted.text is not None:
        for condition, value in _text_conditions(wanted):
            met.append(condition)
            given.append(value)
    return met, given


def _among(column: str, chosen: frozenset[str] | None) -> list[sql.Composable]:
    if chosen is None:
        return []
    # A single value as such, since only then does an index give rows in the order of time.
    name, values = sql.Identifier(column), sorted(chosen)
    shown = sql.SQL(", ").join(map(sql.Literal, values)) if values else sql.SQL("NULL")
    return [(sql.SQL("{} = {}") if len(values) == 1 else sql.SQL("{} IN ({})")).format(name, shown)]


def _text_conditions(wanted: LogFilter) -> list[tuple[sql.Composable, str]]:
    """What the message must hold, each with its parameter; all of these can use a trigram index."""
    text = wanted.text or ""
    if wanted.mode == "regex":
        return [(sql.SQL("message ~* %s"), text)]
    if wanted.mode == "words":
        # A word's ends are asked for only where it begins and ends as one: "(error)" is found as it stands.
        return [(sql.SQL("message ~* %s"), _bounded(word)) for word in words_of(text)]
    return [(sql.SQL("message ILIKE %s"), f"%{_like(text)}%")]


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _bounded(word: str) -> str:
    """A word as a regular expression of PostgreSQL's (manual, 9.7.3.5, constraint escapes)."""
    escaped = "".join(c if c.isalnum() or c == "_" or not c.isascii() else "\\" + c for c in word)
    # Not \m and \M, which hold for no word that begins or ends with another sign.
    return rf"(?<!\w){escaped}(?!\w)"


def where(met: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(met) if met else sql.SQL("true")


def day_rows(leaves: Iterable[str], met: Sequence[sql.Composable]) -> sql.Composed:
    """READ of the rows of several partitions that are MET, as one; the parameters are those of each, in turn."""
    one = sql.SQL("SELECT {} FROM {} WHERE {}")
    return sql.SQL(" UNION ALL ").join(one.format(READ_SQL, sql.Identifier(leaf), where(met)) for leaf in leaves)


async def entry(connection: Connection, number: int) -> StoredEntry | None:
    """The entry with this id, or None. Raises StoreError."""
    with store_errors("the log entry can't be read"):
        cursor = await connection.execute(
            sql.SQL("SELECT {} FROM log_entries WHERE id = %s").format(READ_SQL), (number,), prepare=True
        )
        found = await cursor.fetchone()
    return None if found is None else stored(found)


async def after(
    connection: Connection,
    last_seen: int,
    up_to: int | None,
    limit: int,
    leaves: Sequence[str] = (),
    wanted: LogFilter | None = None,
) -> list[StoredEntry]:
    """At most LIMIT entries with ids above LAST_SEEN, up to and with UP_TO, by id.

    LEAVES are the partitions that can have them, none for all. Raises StoreError.
    """
    met, given = conditions(wanted) if wanted is not None else ([], [])
    met = [sql.SQL("id > %s"), *([sql.SQL("id <= %s")] if up_to is not None else []), *met]
    values = [last_seen, *([up_to] if up_to is not None else []), *given]
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
