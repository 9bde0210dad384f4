"""What of the log store is in a backup: saved views always, the rest when logs are wanted, each table for a reason."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from helmd.model.api.log_views import LogView, LogViewRequest
from helmd.operations.logs.view_file import restore_views, views_as_file
from helmd.store.logs.views import every_view, save_view
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import Connection, connect
from tests.store.conftest import Database

ALWAYS = {"log_views"}
"""Made by users, by hand."""
WITH_LOGS = {
    "log_entries": "log entries, wanted by backup.include_logs",
    "log_partitions": "describes log_entries",
    "log_boots": "boots of the machine that is lost, which log_entries refers to",
    "log_counts_minute": "counts log_entries",
    "log_counts_hour": "counts log_entries",
    "service_metrics": "measurements",
    "metric_minutes": "made of service_metrics",
    "metric_five_minutes": "made of service_metrics",
    "metric_series": "describes service_metrics",
    "metric_partitions": "describes service_metrics",
    "service_metrics_flat": "measurements of an older version, copied into service_metrics",
    "service_status": "measured again within seconds",
    "journal_cursor": "how far the journal of the machine that is lost was read",
    "ingest_requests": "batches of the last hours, which a repeat is compared with",
    "store_upkeep": "times since the start of this machine",
    "store_takeovers": "how far tables of older versions are copied and rolled up",
    "schema_migrations": "made by setup",
}
"""Why each other table is in a backup with ``backup.include_logs`` only."""


def test_each_table_is_in_a_backup_or_left_out_for_a_reason(database: Database) -> None:
    asyncio.run(migrate(database.owner, "helm"))
    tables = database.query(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        " AND NOT relispartition"
    )
    assert {name for (name,) in tables} == ALWAYS | set(WITH_LOGS)


async def saved(connection: Connection) -> list[LogView]:
    given = LogViewRequest("Errors <b>", 'level>=error -"a"', ("host", "context.status"), "1h", shared=True)
    for owner in ("user ann", "token ci"):
        assert await save_view(connection, owner, given) is not None
    times = replace(given, name="A day", columns=(), last="", shared=False)
    saved_at = (await every_view(connection))[0].changed_at
    await save_view(connection, "user ann", replace(times, start_time=saved_at, end_time=saved_at))
    return await every_view(connection)


async def test_views_are_restored_once(database: Database, connection: Connection, tmp_path: Path) -> None:
    before = await saved(connection)
    file = tmp_path / "log-views.json"
    file.write_bytes(await asyncio.to_thread(views_as_file, database.store))
    kept = file.read_bytes()
    await connection.execute("DELETE FROM log_views")
    own = await save_view(connection, "token ci", LogViewRequest("Errors <b>", "mine"))
    owner = await connect(database.owner, "test")
    try:
        await restore_views(file)(owner)
        await restore_views(file)(owner)
        file.write_bytes(kept)
        await restore_views(file)(owner)
    finally:
        await owner.close()
    assert not file.exists()
    after = {(view.owner, view.name): replace(view, id=0) for view in await every_view(connection)}
    expected = {(view.owner, view.name): replace(view, id=0) for view in before}
    assert own is not None and after.pop(("token ci", "Errors <b>")).query == "mine"
    del expected["token ci", "Errors <b>"]
    assert after == expected


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[{"name": 3}]', b"\xff"])
async def test_a_damaged_file_is_set_aside(content: bytes, connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "log-views.json"
    file.write_bytes(content)
    await restore_views(file)(connection)
    assert not file.exists() and await every_view(connection) == []
