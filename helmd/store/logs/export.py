"""All entries that a filter takes, as a stream: NDJSON as exact as the store has them, or CSV for a spreadsheet."""

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Literal

import psycopg
from psycopg import sql

from helmd.model.errors import UsageError
from helmd.model.logs.filter import LogFilter
from helmd.store.logs.entries import READ, READ_SQL, conditions, day_rows
from helmd.store.maintenance.partitions import Leaf, group_by_day, leaves
from helmd.store.session import Connection, reason, store_errors

Form = Literal["ndjson", "csv"]
_FEW, _ROWS = 50, 500
"""Rows that are fetched, and held, at once: at first, and where they are short."""
_CHUNK = 1024 * 1024
"""Bytes of a chunk after which fewer rows are fetched: one message may have as many."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


async def export(
    connection: Connection, wanted: LogFilter, form: Form, *, oldest_first: bool = False
) -> AsyncIterator[bytes]:
    """The entries that are WANTED, some lines at a time, as of one moment. The connection is in use until the end.

    Each day is sorted by its index and read by a cursor, so that neither side holds more than a few rows. Raises
    StoreError, and UsageError for a regular expression that PostgreSQL can't read.
    """
    with store_errors("log entries can't be exported"):
        try:
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                days = group_by_day(await leaves(connection, wanted.start, wanted.end))
                if form == "csv":
                    yield _csv([READ])
                for day in reversed(days) if oldest_first else days:
                    async for rows in _day(connection, day, wanted, form, oldest_first):
                        yield rows
        except psycopg.errors.InvalidRegularExpression as error:
            raise UsageError(f"q: this is no regular expression ({reason(error)})") from None


async def _day(
    connection: Connection, day: Sequence[Leaf], wanted: LogFilter, form: Form, oldest_first: bool
) -> AsyncIterator[bytes]:
    met, given = conditions(wanted)
    # PostgreSQL writes the JSON: a line of it costs a fifth of a row's sixteen values made and written here.
    columns = sql.SQL("row_to_json(day)::text") if form == "ndjson" else READ_SQL
    order = sql.SQL("timestamp, id") if oldest_first else sql.SQL("timestamp DESC, id DESC")
    there = await _still_there(connection, day)
    if not there:
        return
    tables = day_rows(there, met)
    statement = sql.SQL("SELECT {} FROM ({}) AS day ORDER BY {}").format(columns, tables, order)
    async with connection.cursor(name="export") as cursor:
        await cursor.execute(statement, given * len(there))
        number = _FEW
        while rows := await cursor.fetchmany(number):
            text = "".join(f"{line}\n" for (line,) in rows).encode() if form == "ndjson" else _csv(rows)
            number = max(1, min(2 * number, _ROWS, _CHUNK * len(rows) // len(text)))
            yield text


async def _still_there(connection: Connection, day: Sequence[Leaf]) -> list[str]:
    """The partitions of DAY but those that have expired since the export began, held until it ends."""
    there = []
    for leaf in day:
        try:
            async with connection.transaction():
                await connection.execute(
                    sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(leaf.name))
                )
            there.append(leaf.name)
        except psycopg.errors.UndefinedTable:
            continue
    return there


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return written.getvalue().encode()


def _cell(value: object) -> object:
    """A value as a spreadsheet may read it. What a service printed must not be taken for a formula (CWE-1236)."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat() if isinstance(value, datetime) else value
