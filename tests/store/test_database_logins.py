"""Who reaches which database of the suite's PostgreSQL, and how clusters of earlier releases get there step by step."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from helmd.files.environment_file import read_environment_file
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import DeniedError
from helmd.model.layout import layout
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.registry import read_registry
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.configuration.databases import (
    embedded_cluster,
    ensure_databases,
    pending_logins,
    require_passwords,
)
from helmd.postgres import provision
from helmd.postgres.cluster import ClusterError, create_cluster, running
from helmd.postgres.configuration import SUPERUSER, Cluster
from helmd.postgres.passfile import passwords_in, put_passwords, remove_password
from helmd.postgres.roles import admin_conninfo, ensure_role_and_database
from helmd.postgres.uris import service_uri
from tests.free_ports import free_port
from tests.store.cluster_account import Server, as_account, fork_as_account, logs_in, own_directory, start
from tests.waiting import WITHIN

REGISTRY = """
[services.keycloak]
type = "keycloak"
port = 8080
[services.codex]
port = 6000
database = true
[services.ledger]
port = 6001
database = true
[services.odd-one_2]
port = 6002
database = true
"""
WITH_DATABASE = ("codex", "ledger", "odd-one_2")
DATABASES = (*WITH_DATABASE, "keycloak", "postgres", "template1", "gone")
ROLES = (*WITH_DATABASE, "keycloak", "postgres", "nobody", "gone")


@dataclass
class Suite:
    """A suite below PLACE. ``runs`` has the run of every service that runs, which systemd would know."""

    place: Path
    port: int = field(default_factory=free_port)
    runs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = Settings(suite_database_port=self.port)
        self.registry = whole_suite(read_registry([ConfigSource("test", REGISTRY)], {}), self.settings)
        environment = {"XDG_RUNTIME_DIR": str(self.place / "r")}
        self.layout = layout(environment, self.place / "home", os.getuid(), self.place)

    @property
    def cluster(self) -> Cluster:
        return replace(embedded_cluster(self.registry, self.layout, self.settings), account="nobody")

    @property
    def as_before(self) -> Cluster:
        """The cluster as earlier releases configured it: the account may be any of its roles."""
        return replace(self.cluster, passfile=None, logins=(), peers=("keycloak", "gone", *WITH_DATABASE))

    def facts(self, unit: str) -> UnitFacts:
        name = unit.removeprefix("hivematrix-").removesuffix(".service")
        run = self.runs.get(name)
        return UnitFacts(unit, active_state="active" if run else "inactive", invocation=run or "0" * 32)

    def apply(self) -> None:
        ensure_databases(self.registry, self.layout, self.settings, self.facts)

    def settle(self) -> tuple[str, ...]:
        require_passwords(self.registry, self.layout, self.settings, self.facts)
        return tuple(pending_logins(self.registry, self.layout, self.settings))

    def delivered(self, name: str) -> str:
        """Return the DSN that the next run of a service gets."""
        return read_environment_file(self.layout.secrets_file(name))["DATABASE_URL"]

    def old(self, name: str) -> str:
        """Return the DSN that earlier releases rendered into a service's unit."""
        return service_uri(self.cluster, name)

    def provision(self, *words: str) -> int:
        cluster = self.cluster
        given = [f"directory={cluster.directory}", f"socket={cluster.socket}", f"port={self.port}", "account=nobody"]
        return provision.main([*given, *words])

    def provision_by_old_unit(self) -> int:
        return self.provision(f"keycloak={self.layout.secrets_file('keycloak')}", *WITH_DATABASE)

    def provision_by_unit(self) -> int:
        return self.provision(f"passfile={self.layout.suite_passfile}", *WITH_DATABASE)


@pytest.fixture
def suite() -> Iterator[Suite]:
    with own_directory() as place:

        def prepare() -> None:
            made = Suite(place)
            made.layout.suite_socket.mkdir(parents=True)
            made.layout.state.mkdir(parents=True)

        as_account(prepare)
        yield Suite(place)


@contextlib.contextmanager
def served(suite: Suite, old: bool = False) -> Iterator[Server]:
    """Yield the running cluster of the suite, with OLD as made by an earlier release, with its databases."""
    as_account(lambda: (create_cluster(suite.as_before if old else suite.cluster), None)[1])
    server = start(suite.cluster)
    try:
        if old:

            def databases() -> None:
                for name in (*WITH_DATABASE, "gone", "keycloak"):
                    ensure_role_and_database(admin_conninfo(suite.as_before), name)

            as_account(databases)
        yield server
    finally:
        server.stop()


def soon(conninfo: str, wanted: bool) -> bool:
    """Return whether a login comes to succeed, or to fail, within the time that a server takes to read its files."""
    deadline = time.monotonic() + WITHIN
    while logs_in(conninfo) != wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_every_role_reaches_its_own_database_and_no_other(suite: Suite) -> None:
    """Every pair of role and database, over the socket and TCP, with every password that there is and with none."""
    with served(suite):

        def matrix() -> None:
            suite.apply()
            with psycopg.connect(admin_conninfo(suite.cluster), autocommit=True) as connection:
                connection.execute("CREATE DATABASE gone")
                connection.execute("CREATE ROLE gone LOGIN PASSWORD 'gone'")
                connection.execute("GRANT CONNECT ON DATABASE codex, keycloak TO ledger")
            passwords = {"none": "", **passwords_in(suite.layout.suite_passfile), "gone": "gone"}
            assert set(passwords) == {"none", "gone", SUPERUSER, "keycloak", *WITH_DATABASE}
            allowed = set()
            for where in (str(suite.cluster.socket), "127.0.0.1"):
                for role in ROLES:
                    for database in DATABASES:
                        for whose, password in passwords.items():
                            given = {"host": where, "port": suite.port, "user": role, "dbname": database}
                            conninfo = make_conninfo("", **given, password=password, passfile="/dev/null")
                            if logs_in(conninfo):
                                allowed.add((where.startswith("/"), role, database, whose))
            services = {(True, name, name, name) for name in WITH_DATABASE}
            superuser = {(True, SUPERUSER, name, SUPERUSER) for name in DATABASES}
            assert allowed == {*services, *superuser, (False, "keycloak", "keycloak", "keycloak")}
            public = "SELECT count(*) FROM pg_database WHERE has_database_privilege('public', oid, 'CONNECT')"
            with psycopg.connect(admin_conninfo(suite.cluster)) as connection:
                for name in (*WITH_DATABASE, "keycloak", "postgres", "template1", "template0"):
                    query = f"{public} AND datname = %s"
                    assert connection.execute(query.encode(), (name,)).fetchone() == (0,), name

        as_account(matrix)


def test_a_cluster_of_an_earlier_release_is_moved_step_by_step(suite: Suite) -> None:
    with served(suite, old=True) as server:

        def before() -> None:
            for role in (SUPERUSER, "gone", *WITH_DATABASE):
                assert logs_in(suite.old(role)), "else this is not a cluster of an earlier release"

        as_account(before)

        def move() -> None:
            suite.runs = {"codex": "c1", "ledger": "l1"}
            with psycopg.connect(suite.old("codex"), autocommit=True) as pool:
                suite.apply()
                assert pool.execute("SELECT 1").fetchone() == (1,), "what is connected stays so"
            assert soon(suite.old(SUPERUSER), False), "the superuser needs its password at once"
            assert logs_in(admin_conninfo(suite.cluster))
            assert soon(suite.old("gone"), False), "a role of no service gets in no more"
            assert soon(suite.old("odd-one_2"), False), "a service that does not run starts with its password"
            for running_on in ("codex", "ledger"):
                assert logs_in(suite.old(running_on)), "running pools reconnect with the DSN that they have"
                assert not logs_in(service_uri(suite.cluster, running_on, "keycloak"))
            for name in WITH_DATABASE:
                assert logs_in(suite.delivered(name)), "a service that is restarted gets in with its password"
            assert suite.settle() == ("codex", "ledger")
            suite.apply()
            assert suite.settle() == ("codex", "ledger"), "applied again, the same runs are waited for"
            suite.runs["codex"] = "c2"
            assert suite.settle() == ("ledger",)
            assert soon(suite.old("codex"), False) and logs_in(suite.delivered("codex"))
            assert logs_in(suite.old("ledger"))

        as_account(move)
        server.stop()
        server.process = start(suite.cluster).process

        def after_restart() -> None:
            assert suite.provision_by_unit() == 0
            suite.runs = {"codex": "c2", "ledger": "l1"}
            assert logs_in(suite.old("ledger")) and not logs_in(suite.old("codex"))
            del suite.runs["ledger"]
            assert suite.settle() == ()
            assert soon(suite.old("ledger"), False) and logs_in(suite.delivered("ledger"))

        as_account(after_restart)


def test_a_package_upgraded_but_not_applied_serves_as_before(suite: Suite) -> None:
    """The new programs, called by units of the earlier release on its configuration."""
    with served(suite, old=True) as server:
        server.stop()
        server.process = start(suite.cluster).process

        def unchanged() -> None:
            files = {file: file.read_bytes() for file in suite.cluster.directory.glob("pg_*.conf")}
            assert suite.provision_by_old_unit() == 0
            assert suite.settle() == ()
            assert files == {file: file.read_bytes() for file in suite.cluster.directory.glob("pg_*.conf")}
            assert all(logs_in(suite.old(name)) for name in (SUPERUSER, *WITH_DATABASE))

        as_account(unchanged)


def test_a_stopped_cluster_is_moved_when_it_starts(suite: Suite) -> None:
    with served(suite, old=True) as server:
        server.stop()

        def apply() -> None:
            suite.runs = {"codex": "c1"}
            suite.apply()

        as_account(apply)
        server.process = start(suite.cluster).process

        def started() -> None:
            assert suite.provision_by_unit() == 0
            assert soon(suite.old(SUPERUSER), False) and logs_in(admin_conninfo(suite.cluster))
            suite.runs = {"codex": "c1", "ledger": "l1"}
            assert suite.settle() == ("codex",), "ledger was started with its password"
            assert logs_in(suite.old("codex")) and soon(suite.old("ledger"), False)
            assert all(logs_in(suite.delivered(name)) for name in WITH_DATABASE)

        as_account(started)


def ended_at(step: int, work: Callable[[], None]) -> bool:
    """Do WORK in a process that is killed before its STEP-th change of a file or statement; return whether it was."""

    def work_until() -> None:
        count = 0

        def counted(owner: Any, name: str) -> None:
            real = getattr(owner, name)

            def call(*words: Any, **how: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*words, **how)

            setattr(owner, name, call)

        for owner, name in ((os, "rename"), (os, "kill"), (psycopg.Connection, "execute")):
            counted(owner, name)
        work()

    code = os.waitstatus_to_exitcode(os.waitpid(fork_as_account(work_until), 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_killed_at_any_step_services_go_on_and_the_next_run_completes_it(suite: Suite) -> None:
    """Also when PostgreSQL is restarted in between, by the unit of the earlier release."""
    with served(suite, old=True) as server:
        step = 0
        while True:
            step += 1

            def back() -> None:
                """As it was before the first step."""
                create_cluster(suite.as_before)
                for file in suite.layout.secrets.glob("*"):
                    file.unlink()
                (suite.cluster.directory / "pg_ident.conf").unlink()
                create_cluster(suite.as_before)
                assert soon(suite.old(SUPERUSER), True)

            as_account(back)

            def apply() -> None:
                suite.runs = {"codex": "c1"}
                suite.apply()

            killed = ended_at(step, apply)
            if step % 3 == 0:
                server.stop()
                server.process = start(suite.cluster).process

            def afterwards(step: int = step, killed: bool = killed) -> None:
                suite.runs = {"codex": "c1"}
                if step % 3 == 0:
                    assert suite.provision_by_old_unit() == 0, f"step {step}: PostgreSQL starts by the old unit"
                assert logs_in(suite.old("codex")), f"step {step}: a running pool reconnects"
                if suite.layout.secrets_file("codex").exists() and "DATABASE_URL" in read_environment_file(
                    suite.layout.secrets_file("codex")
                ):
                    assert logs_in(suite.delivered("codex")), f"step {step}: a service that was restarted gets in"
                suite.apply()
                assert soon(suite.old(SUPERUSER), False) and logs_in(suite.old("codex"))
                assert all(logs_in(suite.delivered(name)) for name in WITH_DATABASE)
                suite.runs = {"codex": "c2"}
                assert suite.settle() == () and soon(suite.old("codex"), False), f"step {step}"

            as_account(afterwards)
            if not killed:
                break
        assert step > 20


def test_a_lost_password_of_the_superuser_is_replaced_while_the_cluster_is_stopped(suite: Suite) -> None:
    with served(suite) as server:

        def lost() -> None:
            suite.apply()
            suite.layout.suite_passfile.unlink()
            with pytest.raises(ClusterError, match="is missing") as caught:
                suite.apply()
            assert "helmctl stop postgres" in caught.value.hint
            assert not suite.layout.suite_passfile.exists(), "the next run must see that it is lost"

        as_account(lost)
        server.stop()
        as_account(suite.apply)
        server.process = start(suite.cluster).process

        def found() -> None:
            assert suite.provision_by_unit() == 0
            assert logs_in(admin_conninfo(suite.cluster))
            assert all(logs_in(suite.delivered(name)) for name in WITH_DATABASE)
            assert running(suite.cluster) is not None

        as_account(found)


def test_a_password_file_that_libpq_would_ignore_is_an_error(suite: Suite, tmp_path: Path) -> None:
    path = tmp_path / "pgpass"
    put_passwords(path, {"a:b\\c": "p:w\\d", SUPERUSER: "x"})
    path.write_text(f"# mine\nhost:1:db:me:mine\n{path.read_text()}")
    put_passwords(path, {SUPERUSER: "y"})
    assert passwords_in(path) == {"me": "mine", "a:b\\c": "p:w\\d", SUPERUSER: "y"}
    assert path.read_text().startswith("# mine\n")
    remove_password(path, "a:b\\c")
    assert passwords_in(path) == {"me": "mine", SUPERUSER: "y"} and path.read_text().startswith("# mine\n")
    path.chmod(0o640)
    with pytest.raises(DeniedError, match="nobody else can read"):
        passwords_in(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(DeniedError, match="can't be read"):
        passwords_in(tmp_path / "link")
