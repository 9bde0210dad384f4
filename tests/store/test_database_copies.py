"""Copies of a service's database on a real PostgreSQL: equal in what matters, and restored after any interruption."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from helmd.postgres.cluster import ClusterError
from helmd.postgres.copies import (
    clone_database,
    close_database,
    copy_name,
    database_exists,
    database_size,
    drop_database,
    drop_role,
    open_database,
    put_in_place,
    role_exists,
    rows_changed,
)
from tests.store.conftest import Cluster
from tests.waiting import until

NAME, COPY, ASIDE = "copied", "copied_before_20261128t221502z", "copied_failed_20261128t221502z"


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[str]:
    """Yield a database with everything that a copy has to have as well."""
    conninfo = cluster.conninfo("postgres")
    for statement in (
        "CREATE ROLE copied LOGIN",
        "CREATE ROLE copied_reader LOGIN",
        "CREATE DATABASE copied OWNER copied TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
        "REVOKE ALL ON DATABASE copied FROM PUBLIC",
        "GRANT CONNECT ON DATABASE copied TO copied_reader WITH GRANT OPTION",
        "REVOKE TEMPORARY ON DATABASE copied FROM copied",
        "ALTER DATABASE copied CONNECTION LIMIT 7",
        'ALTER DATABASE copied SET search_path TO shop, "Odd, name", public',
        "ALTER DATABASE copied SET statement_timeout TO '61s'",
        "ALTER DATABASE copied SET shop.colour TO 'it''s red'",
        "ALTER ROLE copied_reader IN DATABASE copied SET work_mem TO '5MB'",
        'ALTER ROLE copied_reader IN DATABASE copied SET search_path TO "$user", shop',
        "COMMENT ON DATABASE copied IS 'notes of ''codex'''",
    ):
        cluster.execute(statement)
    cluster.execute(
        "CREATE SCHEMA shop; CREATE TABLE shop.notes AS SELECT g AS id FROM generate_series(1, 1000) g", NAME
    )
    cluster.execute(
        "GRANT USAGE ON SCHEMA shop TO copied_reader; GRANT SELECT ON shop.notes TO copied_reader;"
        "ALTER TABLE shop.notes OWNER TO copied",
        NAME,
    )
    yield conninfo
    for name in (NAME, COPY, ASIDE):
        drop_database(conninfo, name)
    for role in ("copied", "copied_reader"):
        cluster.execute(f"DROP ROLE IF EXISTS {role}")


def facts(cluster: Cluster, name: str) -> Any:
    query = """
        SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(d.oid, 'pg_database'),
               pg_encoding_to_char(encoding),
               datcollate, datctype, dattablespace,
               ARRAY(SELECT (pg_get_userbyid(grantor), grantee, privilege_type, is_grantable)::text
                     FROM aclexplode(datacl) ORDER BY 1),
               datacl IS NULL,
               ARRAY(SELECT (setrole, unnest(setconfig))::text FROM pg_db_role_setting
                     WHERE setdatabase = d.oid ORDER BY 1)
        FROM pg_database d WHERE datname = %s"""
    with psycopg.connect(cluster.conninfo("postgres")) as connection:
        return connection.execute(query, (name,)).fetchone()


def rows(cluster: Cluster, name: str = NAME) -> int:
    with psycopg.connect(cluster.conninfo("postgres", name)) as connection:
        found = connection.execute("SELECT count(*) FROM shop.notes").fetchone()
        assert found is not None
        return int(found[0])


def test_a_copy_is_equal_in_owner_privileges_settings_and_limit(cluster: Cluster, admin: str) -> None:
    before = facts(cluster, NAME)
    assert before[1] == 7 and len(before[9]) == 5 and not before[8]
    close_database(admin, NAME)
    assert clone_database(admin, NAME, COPY) > 1_000_000
    assert facts(cluster, COPY) == before
    # The original is as it was, too, and its table's privileges are in the copy.
    open_database(admin, NAME)
    assert facts(cluster, NAME) == before and rows(cluster) == 1000
    open_database(admin, COPY)
    with psycopg.connect(cluster.conninfo("copied_reader", COPY)) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (1000,)
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)


def test_a_database_without_own_privileges_gets_a_copy_without(cluster: Cluster, admin: str) -> None:
    cluster.execute("CREATE DATABASE copied_plain")
    try:
        close_database(admin, "copied_plain")
        clone_database(admin, "copied_plain", COPY)
        assert facts(cluster, COPY) == facts(cluster, "copied_plain") and facts(cluster, COPY)[8]
    finally:
        drop_database(admin, "copied_plain")


def test_sessions_are_ended_and_nobody_gets_in(cluster: Cluster, admin: str) -> None:
    """Also those that connect again at once, as a pool does."""
    refused, stop = [], threading.Event()

    def pool() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(cluster.conninfo("copied", NAME)) as connection:
                    connection.execute("SELECT pg_sleep(300)")
            except psycopg.Error as error:
                refused.append(str(error))
            time.sleep(0.01)

    threads = [threading.Thread(target=pool) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE (datname, usename, state) = (%s, 'copied', 'active')"
        with psycopg.connect(admin, autocommit=True) as watching:
            until(lambda: watching.execute(sleeping, (NAME,)).fetchone() == (len(threads),), pause=0.02)
        close_database(admin, NAME)
        clone_database(admin, NAME, COPY)
        with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
            psycopg.connect(cluster.conninfo("postgres", NAME))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert any("terminating connection" in each for each in refused)
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        psycopg.connect(cluster.conninfo("copied", COPY))


def test_the_copy_takes_its_place_and_what_was_written_stays(cluster: Cluster, admin: str) -> None:
    before = facts(cluster, NAME)
    close_database(admin, NAME)
    clone_database(admin, NAME, COPY)
    open_database(admin, NAME)
    count = rows_changed(admin, NAME)
    cluster.execute("DROP TABLE shop.notes; CREATE TABLE shop.other AS SELECT 1 AS id", NAME)
    assert count is not None
    until(lambda: (rows_changed(admin, NAME) or 0) > count)
    with psycopg.connect(cluster.conninfo("copied", NAME)):
        assert put_in_place(admin, NAME, COPY, ASIDE) is True
    open_database(admin, NAME)
    assert rows(cluster) == 1000 and facts(cluster, NAME) == before
    open_database(admin, ASIDE)
    with psycopg.connect(cluster.conninfo("postgres", ASIDE)) as connection:
        assert connection.execute("SELECT count(*) FROM shop.other").fetchone() == (1,)


def test_putting_back_can_be_repeated_and_a_missing_copy_is_said(cluster: Cluster, admin: str) -> None:
    close_database(admin, NAME)
    clone_database(admin, NAME, COPY)
    assert put_in_place(admin, NAME, COPY, ASIDE) is True
    assert put_in_place(admin, NAME, COPY, ASIDE) is False
    drop_database(admin, ASIDE)
    with pytest.raises(ClusterError, match="the copy of the database 'copied' is missing"):
        put_in_place(admin, NAME, COPY, ASIDE)
    open_database(admin, NAME)
    assert rows(cluster) == 1000


def test_a_database_that_a_migration_has_removed_is_restored(cluster: Cluster, admin: str) -> None:
    close_database(admin, NAME)
    clone_database(admin, NAME, COPY)
    drop_database(admin, NAME)
    assert put_in_place(admin, NAME, COPY, ASIDE) is True
    open_database(admin, NAME)
    assert rows(cluster) == 1000 and not database_exists(admin, ASIDE)


@pytest.mark.parametrize("statement", ["CREATE DATABASE", "ALTER DATABASE", "COMMENT ON", "GRANT"])
def test_interrupted_at_any_statement_it_can_be_made_again(
    cluster: Cluster, admin: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks within: what is left of a copy is replaced, and the original is untouched."""
    before = facts(cluster, NAME)
    close_database(admin, NAME)
    execute = psycopg.Connection.execute

    def breaks(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        text = query if isinstance(query, str | bytes) else query.as_string(self)
        if str(text).startswith(statement) and COPY in str(text):
            psycopg.connect(admin, autocommit=True).execute(
                "SELECT pg_terminate_backend(%s)", (self.info.backend_pid,)
            ).connection.close()
        return execute(self, query, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", breaks)
        with pytest.raises(ClusterError):
            clone_database(admin, NAME, COPY)
    clone_database(admin, NAME, COPY)
    assert facts(cluster, COPY) == before
    open_database(admin, NAME)
    assert rows(cluster) == 1000 and facts(cluster, NAME) == before


def test_the_names_change_together_or_not_at_all(cluster: Cluster, admin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    close_database(admin, NAME)
    clone_database(admin, NAME, COPY)
    execute, renamed = psycopg.Connection.execute, 0

    def breaks(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal renamed
        text = query if isinstance(query, str | bytes) else query.as_string(self)
        renamed += "RENAME TO" in str(text)
        if renamed == 2:
            renamed = 0
            psycopg.connect(admin, autocommit=True).execute(
                "SELECT pg_terminate_backend(%s)", (self.info.backend_pid,)
            ).connection.close()
        return execute(self, query, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", breaks)
        with pytest.raises(ClusterError):
            put_in_place(admin, NAME, COPY, ASIDE)
    assert database_exists(admin, NAME) and database_exists(admin, COPY) and not database_exists(admin, ASIDE)
    assert put_in_place(admin, NAME, COPY, ASIDE) is True


def test_what_was_never_there(admin: str) -> None:
    with pytest.raises(ClusterError, match="there is no database 'nowhere'"):
        clone_database(admin, "nowhere", COPY)
    open_database(admin, "nowhere")
    drop_database(admin, "nowhere")
    drop_role(admin, "nowhere")
    assert role_exists(admin, NAME) and not role_exists(admin, "nowhere")
    assert database_size(admin, "nowhere") == 0 and rows_changed(admin, "nowhere") is None
    assert database_size(admin, NAME) > 1_000_000


def test_the_name_of_a_copy_fits() -> None:
    assert copy_name("codex_db", "before", "20261128T221502Z") == "codex_db_before_20261128t221502z"
    name = copy_name("ä" * 40, "failed", "20261128T221502Z")
    assert len(name.encode()) <= 63 and name.endswith("_failed_20261128t221502z")
