"""The schema is brought up to date once, by one process, wholly or not at all."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from helmd.model.errors import StoreError
from helmd.store.maintenance.migrate import Migration, migrate, migrations
from helmd.store.session import LOCK_CLASS, MIGRATE_LOCK
from tests.store.conftest import Cluster, Database
from tests.waiting import eventually

STEPS = (
    Migration(1, "one", 'CREATE TABLE one (n int); GRANT SELECT ON one TO :"helm_role";'),
    Migration(2, "two", "CREATE TABLE two (n int); INSERT INTO one SELECT generate_series(1, 1000);"),
    Migration(3, "three", "ALTER TABLE two ADD COLUMN m int;"),
)


async def test_all_steps_once(database: Database) -> None:
    assert await migrate(database.owner, "helm") == migrations()
    assert await migrate(database.owner, "helm") == ()
    noted = database.query("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
    assert noted == [(step.number, step.name, step.sha256) for step in migrations()]


async def test_several_at_once_apply_each_step_once(database: Database) -> None:
    done = await asyncio.gather(*(migrate(database.owner, "helm", STEPS) for _ in range(6)))
    assert sorted(step.number for steps in done for step in steps) == [1, 2, 3]
    assert database.query("SELECT count(*) FROM one") == [(1000,)]


async def test_a_step_that_fails_leaves_nothing_and_can_be_repaired(database: Database) -> None:
    broken = (STEPS[0], Migration(2, "two", "CREATE TABLE two (n int); INSERT INTO one VALUES ('x');"))
    with pytest.raises(StoreError, match=r"migration 0002_two failed and was undone: invalid input syntax"):
        await migrate(database.owner, "helm", broken)
    assert database.query("SELECT to_regclass('one') IS NULL, to_regclass('two') IS NULL") == [(False, True)]
    assert await migrate(database.owner, "helm", STEPS) == STEPS[1:]


async def test_killed_in_the_middle_of_a_step(database: Database) -> None:
    slow = (STEPS[0], Migration(2, "two", "CREATE TABLE two (n int); SELECT pg_sleep(30);"))
    task = asyncio.create_task(migrate(database.owner, "helm", slow))
    active = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE TABLE two%%' AND state = 'active'"
    await eventually(lambda: database.query(active))
    database.kill_backends("helm migrations")
    with pytest.raises(StoreError):
        await task
    assert database.query("SELECT to_regclass('two') IS NULL") == [(True,)]
    assert await migrate(database.owner, "helm", STEPS) == STEPS[1:]


async def test_a_process_that_is_cancelled_lets_the_next_one_in(database: Database) -> None:
    slow = (Migration(1, "one", "SELECT pg_sleep(30);"),)
    task = asyncio.create_task(migrate(database.owner, "helm", slow))
    held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND (classid, objid) = (%s::oid, %s::oid)"
    await eventually(lambda: database.query(held, LOCK_CLASS, MIGRATE_LOCK))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    database.kill_backends("helm migrations")
    assert await migrate(database.owner, "helm", STEPS) == STEPS


async def test_a_step_that_was_changed_since_is_refused(database: Database) -> None:
    await migrate(database.owner, "helm", STEPS[:2])
    changed = (Migration(1, "one", "SELECT 1;"), *STEPS[1:])
    with pytest.raises(StoreError, match="0001_one was applied in another form"):
        await migrate(database.owner, "helm", changed)
    assert database.query("SELECT count(*) FROM schema_migrations") == [(2,)]


async def test_a_newer_schema_is_refused(database: Database) -> None:
    await migrate(database.owner, "helm", STEPS)
    with pytest.raises(StoreError, match=r"schema \(0003_three\) is newer"):
        await migrate(database.owner, "helm", STEPS[:2])


async def test_unreachable_and_unknown_role_are_reported(database: Database, cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be reached"):
        await migrate(cluster.conninfo("helm_owner", socket=tmp_path))
    with pytest.raises(StoreError, match='role "nobody" does not exist'):
        await migrate(database.owner, "nobody")


async def test_role_names_are_quoted(database: Database) -> None:
    hostile = 'x"; DROP TABLE one; --'
    with pytest.raises(StoreError, match="does not exist"):
        await migrate(database.owner, hostile, STEPS[:1])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_entries SET message = ''",
        "DELETE FROM log_entries",
        "TRUNCATE log_entries",
        "DROP TABLE log_entries",
        "ALTER TABLE log_entries DISABLE TRIGGER ALL",
        "DELETE FROM journal_cursor",
        "DELETE FROM schema_migrations",
        "CREATE TABLE mine ()",
    ],
)
async def test_the_daemons_role_cannot_change_what_is_logged(database: Database, statement: str) -> None:
    await migrate(database.owner, "helm")
    with psycopg.connect(database.store, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement", ["UPDATE log_entries SET message = ''", "DELETE FROM log_entries", "TRUNCATE log_entries"]
)
async def test_nor_can_the_owner_by_accident(database: Database, statement: str) -> None:
    await migrate(database.owner, "helm")
    with psycopg.connect(database.owner, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="log entries are final"):
            connection.execute(statement.encode())


def test_missing_numbers_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / "0003_b.sql").write_text("SELECT 1")
    with pytest.raises(StoreError, match="not numbered"):
        migrations(tmp_path)
