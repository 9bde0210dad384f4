"""Exports contain all matching rows without loss, and hold only few rows in memory."""

import csv
import io
import json
import tracemalloc
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from helmd.model.errors import UsageError
from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter
from helmd.store.logs.columns import READ
from helmd.store.logs.export import Form, export
from helmd.store.session import Connection, connect
from tests.store.conftest import Database
from tests.store.stored import BASE, append, everything, random_rows


async def exported(connection: Connection, wanted: LogFilter, form: Form, **options: Any) -> bytes:
    return b"".join([chunk async for chunk in export(connection, wanted, form, **options)])


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_both_formats_have_every_row_in_order(connection: Connection, oldest_first: bool) -> None:
    await append(connection, random_rows(2_500, seed=1))
    wanted = LogFilter(services=frozenset({"core", "ledger"}), text="err")
    expected = [
        entry
        for entry in await everything(connection)
        if entry.row.service_name in ("core", "ledger")
        and "err" in entry.row.message.lower()
        and entry.row.duplicate_of is None
    ]
    if oldest_first:
        expected.reverse()
    lines = (await exported(connection, wanted, "ndjson", oldest_first=oldest_first)).splitlines()
    read = [json.loads(line) for line in lines]
    for entry in read:
        entry["timestamp"] = datetime.fromisoformat(entry["timestamp"])
    assert read == [{**entry.as_json(), "timestamp": entry.row.timestamp} for entry in expected]
    text = (await exported(connection, wanted, "csv", oldest_first=oldest_first)).decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == list(READ)
    assert [int(row[0]) for row in rows] == [entry.id for entry in expected]
    assert [row[1] for row in rows] == [entry.row.timestamp.isoformat() for entry in expected]
    assert [json.loads(row[5]) if row[5] else None for row in rows] == [entry.row.context for entry in expected]


async def test_messages_are_not_formulas_and_round_trip(connection: Connection) -> None:
    texts = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        'quo"te, comma',
        "two\r\nlines",
        "",
        "a=b",
        "\u2028ö",
    ]
    await append(
        connection, [LogRow(BASE + timedelta(seconds=n), "codex", "INFO", text) for n, text in enumerate(texts)]
    )
    text = (await exported(connection, LogFilter(), "csv", oldest_first=True)).decode()
    column = READ.index("message")
    cells = [row[column] for row in csv.reader(io.StringIO(text, newline=""))][1:]
    assert cells == [f"'{text}" if n < 7 else text for n, text in enumerate(texts)]
    lines = (await exported(connection, LogFilter(), "ndjson", oldest_first=True)).split(b"\n")
    assert [json.loads(line)["message"] for line in lines if line] == texts


async def test_an_empty_export_is_an_empty_file_or_a_header(connection: Connection) -> None:
    assert await exported(connection, LogFilter(), "ndjson") == b""
    assert await exported(connection, LogFilter(), "csv") == ",".join(READ).encode() + b"\r\n"


@pytest.mark.parametrize("form", ["ndjson", "csv"])
async def test_few_long_messages_are_held_in_memory(connection: Connection, form: Form) -> None:
    short = [LogRow(BASE + timedelta(days=1), "codex", "INFO", "x")] * 1_000
    for _ in range(6):
        await append(connection, [LogRow(BASE, "codex", "INFO", "x" * 1_000_000)] * 20)
    await append(connection, short)
    tracemalloc.start()
    try:
        sizes = [len(chunk) async for chunk in export(connection, LogFilter(), form)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 120_000_000
    # All of it would be 120 MB, and as much again as text.
    assert max(sizes) < 60_000_000
    assert peak < 200_000_000


async def test_an_abandoned_export_leaves_the_connection_usable(connection: Connection) -> None:
    await append(connection, random_rows(3_000, seed=2))
    async with aclosing(export(connection, LogFilter(), "ndjson")) as chunks:  # type: ignore[type-var]
        assert await anext(chunks)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert len((await exported(connection, LogFilter(), "ndjson")).splitlines()) > 2_000


async def test_an_export_is_one_snapshot(connection: Connection, database: Database) -> None:
    await append(connection, random_rows(600, seed=3))
    expected = sum(entry.row.duplicate_of is None for entry in await everything(connection))
    writer = await connect(database.store, "writer")
    number = 0
    async for chunk in export(connection, LogFilter(), "ndjson"):
        number += chunk.count(b"\n")
        await append(writer, random_rows(50, seed=number))
    await writer.close()
    assert number == expected


async def test_an_invalid_expression_is_reported(connection: Connection) -> None:
    await append(connection, random_rows(10, seed=4))
    with pytest.raises(UsageError, match="q: invalid regular expression"):
        await exported(connection, LogFilter(text="(", mode="regex"), "csv")
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
