"""Private clusters for real: made, interrupted, configured, reached by the right roles only."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from helmd.postgres import unlock
from helmd.postgres.binaries import binaries_of
from helmd.postgres.cluster import ClusterError, configure, create_cluster, running
from helmd.postgres.configuration import Cluster, PasswordLogin, ident_file, mappings_in
from helmd.postgres.roles import admin_conninfo, ensure_local_databases, ensure_role_and_database, ensure_store
from helmd.postgres.uris import service_uri
from tests.store.cluster_account import (
    ACCOUNT,
    Server,
    as_account,
    ask,
    fork_as_account,
    logs_in,
    made,
    own_directory,
    refused,
    running_server,
    start,
    suite_like,
)
from tests.unit.test_dialects import rows_of
from tests.waiting import until

PASSWORD = "s3cret'with\\signs"


@pytest.fixture
def place() -> Iterator[Path]:
    with own_directory() as directory:
        yield directory


@pytest.fixture
def cluster(place: Path) -> Cluster:
    return suite_like(place)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Yield one for the tests that only look at it, or add what the others don't look at."""
    with own_directory() as directory, running_server(suite_like(directory)) as server:
        yield server


def test_cluster_is_made_once_private_and_as_configured(server: Server) -> None:
    cluster = server.cluster
    assert stat.S_IMODE(cluster.directory.stat().st_mode) == 0o700
    before = {file: file.stat().st_mtime_ns for file in cluster.directory.glob("*.conf")}

    def again() -> None:
        assert create_cluster(cluster) is False
        admin = admin_conninfo(cluster)
        assert ask(admin, "SHOW data_checksums") == "on"
        assert ask(admin, "SHOW server_encoding") == "UTF8"
        assert ask(admin, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C.UTF-8"
        assert ask(admin, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(admin, "SHOW log_line_prefix") == "[%p] %q%u@%d "
        assert ask(admin, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == 0
        assert ask(admin, "SELECT count(*) FROM pg_ident_file_mappings WHERE error IS NOT NULL") == 0
        assert running(cluster) == server.process.pid

    as_account(again)
    assert {file: file.stat().st_mtime_ns for file in cluster.directory.glob("*.conf")} == before
    assert stat.S_IMODE(cluster.socket_file.stat().st_mode) == 0o700
    (cluster.directory / "postgresql.local.conf").write_text("work_mem = 33MB\njit = on\n")
    server.process.send_signal(signal.SIGHUP)

    def admin_wins() -> None:
        until(lambda: ask(admin_conninfo(cluster), "SHOW work_mem") == "33MB", pause=0.02)
        assert ask(admin_conninfo(cluster), "SHOW jit") == "on"

    shutil.chown(cluster.directory / "postgresql.local.conf", ACCOUNT)
    as_account(admin_wins)


@pytest.mark.parametrize("group", [False, True], ids=["helm alone", "and initdb"])
def test_killed_while_initdb_works_then_run_again(cluster: Cluster, group: bool) -> None:
    parent = cluster.directory.parent
    while True:
        child = fork_as_account(lambda: made(cluster))
        until(lambda: [*parent.glob(".cluster.making-*/global"), *parent.glob("cluster")], pause=0.002)
        os.killpg(child, signal.SIGKILL) if group else os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not cluster.directory.exists():
            break
        # This process did not run until all was made.
        shutil.rmtree(cluster.directory)
    assert list(cluster.directory.parent.glob(".cluster.making-*"))

    as_account(lambda: made(cluster))
    assert not list(cluster.directory.parent.glob(".cluster.making-*"))
    start(cluster).stop()


def test_each_service_owns_its_database_and_has_no_other_right(server: Server) -> None:
    cluster = server.cluster

    def databases() -> None:
        for _ in range(2):
            ensure_local_databases(cluster, {"codex": PASSWORD, "knowledge-tree_2": "other"})
        codex = service_uri(cluster, "codex", password=PASSWORD)
        assert ask(codex, "SELECT has_schema_privilege('public', 'CREATE')") is True
        assert ask(codex, "SELECT current_user || current_database()") == "codexcodex"
        with psycopg.connect(admin_conninfo(cluster), autocommit=True) as connection:
            connection.execute("ALTER ROLE codex SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS")
            connection.execute('GRANT pg_read_all_data, "knowledge-tree_2" TO codex')
        ensure_local_databases(cluster, {"codex": PASSWORD})
        rights = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
        assert ask(codex, f"SELECT {rights} FROM pg_roles WHERE rolname = current_user") is False
        members = "SELECT count(*) FROM pg_auth_members WHERE member = 'codex'::regrole"
        assert ask(admin_conninfo(cluster), members) == 0
        other = service_uri(cluster, "knowledge-tree_2", password="other")
        assert ask(other, "SELECT current_user::text") == "knowledge-tree_2"
        assert configure(cluster) is False, "a later configure forgets no service"
        with pytest.raises(ClusterError, match="administrator"):
            ensure_local_databases(cluster, {"postgres": "x"})

    as_account(databases)


def test_other_accounts_are_refused_at_the_socket(server: Server) -> None:
    for role in ("postgres", "codex"):
        assert "no password supplied" in refused(service_uri(server.cluster, role))
    for role in ("keycloak", "root", ACCOUNT):
        assert "rejects connection" in refused(service_uri(server.cluster, role, "postgres"))


def test_over_tcp_only_keycloak_gets_in_and_only_with_its_password(server: Server) -> None:
    cluster = server.cluster

    def prepare() -> None:
        ensure_local_databases(cluster, {"keycloak": "an older password"})
        ensure_local_databases(cluster, {"keycloak": PASSWORD, "codex": PASSWORD})
        assert ask(admin_conninfo(cluster), "SELECT rolpassword FROM pg_authid WHERE rolname = 'keycloak'").startswith(
            "SCRAM-SHA-256$"
        )

    as_account(prepare)

    def over_tcp(user: str, database: str, password: str) -> str:
        parts = {
            "host": "127.0.0.1",
            "port": cluster.port,
            "user": user,
            "dbname": database,
            "password": password,
        }
        return psycopg.conninfo.make_conninfo("", **parts)

    assert ask(over_tcp("keycloak", "keycloak", PASSWORD), "SELECT current_user::text") == "keycloak"
    assert "password authentication failed" in refused(over_tcp("keycloak", "keycloak", "an older password"))
    for user, database in (
        ("codex", "codex"),
        ("postgres", "postgres"),
        ("keycloak", "postgres"),
        ("nobody", "codex"),
    ):
        assert "rejects connection" in refused(over_tcp(user, database, PASSWORD))
    with socket.socket() as elsewhere, pytest.raises(ConnectionRefusedError):
        elsewhere.connect(("127.0.0.2", cluster.port))
    assert PASSWORD not in server.log.read_text() and "s3cret" not in server.log.read_text()


def test_an_administrator_who_is_no_superuser_can_make_roles_and_databases(server: Server) -> None:
    """As on an external server, where Helm gets CREATEROLE and CREATEDB at most."""
    cluster = server.cluster

    def external() -> None:
        with psycopg.connect(admin_conninfo(cluster), autocommit=True) as connection:
            connection.execute("CREATE ROLE steward LOGIN CREATEROLE CREATEDB PASSWORD 'steward'")
            connection.execute("GRANT CONNECT ON DATABASE postgres TO steward")
        configure(replace(cluster, logins=(*cluster.logins, PasswordLogin("steward", "postgres"))))
        steward = service_uri(cluster, "steward", "postgres", "steward")
        until(lambda: logs_in(steward), pause=0.02)
        for _ in range(2):
            ensure_role_and_database(steward, "ledger", PASSWORD)
        assert ask(service_uri(cluster, "ledger", password=PASSWORD), "SELECT current_database()::text") == "ledger"
        with psycopg.connect(admin_conninfo(cluster), autocommit=True) as connection:
            connection.execute("CREATE DATABASE billing OWNER postgres")
        with pytest.raises(ClusterError, match="belongs to the role 'postgres'"):
            ensure_role_and_database(steward, "billing", PASSWORD)

    as_account(external)


def test_store_is_reached_by_socket_alone(place: Path) -> None:
    cluster = Cluster(place / "cluster", place / "run", 5432, ACCOUNT, ("helm", "helm_owner"))
    as_account(lambda: made(cluster))
    server = start(cluster)

    def store() -> None:
        ensure_store(cluster)
        ensure_store(cluster)
        assert ask(admin_conninfo(cluster), "SHOW listen_addresses") == ""
        owner = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'helm'"
        assert ask(service_uri(cluster, "helm"), owner) == "helm_owner"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(service_uri(cluster, "helm"), "CREATE TABLE public.t ()")
        assert (
            ask(service_uri(cluster, "helm_owner", "helm"), "SELECT has_schema_privilege('public', 'CREATE')") is True
        )

    try:
        as_account(store)
    finally:
        server.stop()


def out_of_time(connection: psycopg.Connection[Any]) -> None:
    """A statement that its time limit ends. That holds for no other statement, which might end late as well."""
    with pytest.raises(psycopg.errors.QueryCanceled), connection.transaction():
        connection.execute("SET LOCAL statement_timeout = '50ms'")
        connection.execute("SELECT pg_sleep(300)")


def test_a_search_that_is_cancelled_is_no_error_of_helm(place: Path) -> None:
    """By its time limit, or with its client; other errors and other roles' remain errors."""
    cluster = Cluster(place / "store", place / "run", 5432, ACCOUNT, peers=("helm_owner", "helm"))
    with running_server(cluster) as server:

        def work() -> None:
            ensure_store(cluster)
            with psycopg.connect(service_uri(cluster, "helm", "helm"), autocommit=True) as connection:
                out_of_time(connection)
                with pytest.raises(psycopg.errors.UndefinedColumn):
                    connection.execute("SELECT no_such_column")
                sleeping = "SELECT count(*) FROM pg_stat_activity WHERE (usename, state) = ('helm', 'active')"

                def leave() -> None:
                    until(lambda: ask(admin_conninfo(cluster), sleeping) == 1, pause=0.02)
                    connection.cancel()

                leaving = threading.Thread(target=leave)
                leaving.start()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    connection.execute("SELECT pg_sleep(300)")
                leaving.join()
            with psycopg.connect(admin_conninfo(cluster), autocommit=True) as connection:
                out_of_time(connection)

        as_account(work)
    rows = rows_of(server.log.read_text().splitlines())
    cancelled = [row for row in rows if "canceling statement" in row.message]
    assert [(row.level, (row.context or {}).get("user")) for row in cancelled] == [
        ("INFO", "helm"), ("INFO", "helm"), ("ERROR", "postgres"),
    ]  # fmt: skip
    errors = [row.message.split("\n")[0] for row in rows if row.level in ("ERROR", "CRITICAL")]
    assert errors == ['column "no_such_column" does not exist at character 8', cancelled[-1].message.split("\n")[0]]


def test_stale_lock_of_another_process_does_not_keep_it_from_starting(cluster: Cluster) -> None:
    as_account(lambda: made(cluster))
    start(cluster).stop(signal.SIGKILL)
    lock = cluster.directory / "postmaster.pid"
    other = subprocess.Popen(["sleep", "60"], user=ACCOUNT)
    try:
        lock.write_text("\n".join([str(other.pid), *lock.read_text().splitlines()[1:]]) + "\n")
        postgres = str(binaries_of(cluster.directory).program("postgres"))
        start_anyway = [postgres, "-D", str(cluster.directory)]
        alone = subprocess.run(start_anyway, user=ACCOUNT, cwd="/", capture_output=True, check=False)
        assert b'lock file "postmaster.pid" already exists' in alone.stderr, "the reason for unlock is gone"
        program = ["/usr/bin/python3", "-I", "-S", unlock.__file__, str(cluster.directory)]
        subprocess.run(program, check=True, user=ACCOUNT)
        server = start(cluster)
        subprocess.run(program, check=True, user=ACCOUNT)
        assert lock.exists(), "the lock of a running server stays"
        server.stop()
    finally:
        other.kill()
        other.wait()


def test_files_of_another_program_are_not_replaced(place: Path) -> None:
    cluster = Cluster(place, place / "run", 5432, ACCOUNT)
    with pytest.raises(ClusterError, match="holds files but no PostgreSQL cluster"):
        create_cluster(cluster)
    with pytest.raises(ClusterError, match="longer than a unix socket's name"):
        create_cluster(replace(cluster, socket=place / ("x" * 100)))


def test_names_with_quotes_survive_the_ident_file() -> None:
    roles = {'a"b': None, "plain": "0123abcd", "with space": "", "postgres": None}
    assert mappings_in(ident_file('acc"ount', roles)) == roles
