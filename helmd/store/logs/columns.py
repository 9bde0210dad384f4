"""Columns of ``log_entries`` as they are read: rows hold some values in a shorter form (``0009_small_rows.sql``)."""

from collections.abc import Mapping
from typing import LiteralString

from psycopg import sql

from helmd.model.logs.entry import LogRow

READ = ("id", *LogRow._fields)
PLAIN = ", ".join(READ)
"""The columns as they are stored."""
PLAIN_SQL = sql.SQL(", ").join(map(sql.Identifier, READ))

_DECODED: Mapping[str, LiteralString] = {
    "unit": "(CASE unit WHEN '' THEN 'hivematrix-' || service_name || '.service' ELSE unit END)",
    # Before there was log_boots, entries had the 32 digits.
    "boot_id": (
        "(CASE WHEN length(boot_id) < 32 THEN (SELECT long_id FROM log_boots WHERE short_id = boot_id)"
        " ELSE boot_id END)"
    ),
}


def value_of(column: str) -> sql.Composable:
    """Return the expression for a column's value."""
    return sql.SQL(_DECODED[column]) if column in _DECODED else sql.Identifier(column)


READ_SQL = sql.SQL(", ").join(
    sql.SQL("{} AS {}").format(value_of(name), sql.Identifier(name)) if name in _DECODED else sql.Identifier(name)
    for name in READ
)
"""The columns with their values."""

_VALUES = ", ".join(f"{_DECODED[name]} AS {name}" if name in _DECODED else name for name in READ)


def with_values(query: str) -> str:
    """Return the query for the values of QUERY's rows, which have the columns PLAIN; in no order.

    To look boots up in each of many partitions would take long to plan, and in rows that a limit leaves out to run.
    """
    return f"SELECT {_VALUES} FROM ({query}) AS found"  # noqa: S608 - QUERY is SQL already
