"""Set-up ends with a line found in the store; stores in which lines would be lost are refused and named."""

import re
from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, until

SETTINGS = "/home/hive/.config/hivematrix/helm.toml"
SERVER = "/var/tmp/external-postgres"
POOLER = """\
[databases]
* = host=127.0.0.1 port=5555 user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 5556
auth_type = any
pool_mode = transaction
ignore_startup_parameters = extra_float_digits,options
"""


@pytest.fixture(scope="module")
def server(demo: Sandbox) -> Iterator[str]:
    """A PostgreSQL that Helm does not run, and PgBouncer before it; the URI without the database."""
    demo("sh", "-c", "apt-get install --yes --no-install-recommends pgbouncer; systemctl stop pgbouncer", root=True)
    programs = demo.shell("ls -d /usr/lib/postgresql/*/bin | tail -1").out.strip()
    demo.write(f"{SERVER}.ini", POOLER, root=True)
    as_postgres = ("runuser", "-u", "postgres", "--")
    options = "-c port=5555 -c unix_socket_directories=/var/tmp -c fsync=off"
    demo(*as_postgres, f"{programs}/initdb", "-D", SERVER, "-A", "trust", "-E", "UTF8", "--locale=C", root=True)
    demo(
        *as_postgres, f"{programs}/pg_ctl", "-w", "-D", SERVER, "-o", options, "-l", f"{SERVER}.log", "start", root=True
    )
    for encoding in ("LATIN1", "SQL_ASCII", "UTF8"):
        create = f"CREATE DATABASE \"{encoding}\" ENCODING '{encoding}' TEMPLATE template0"
        demo(*as_postgres, "psql", "-h", "127.0.0.1", "-p", "5555", "-c", create, root=True)
    demo("systemd-run", "--unit=test-pooler", "--uid=postgres", "pgbouncer", f"{SERVER}.ini", root=True)
    until(lambda: demo.shell("ss -Hltn sport = :5556").out, 30)
    yield "postgresql://postgres@127.0.0.1"
    demo("systemctl", "stop", "test-pooler", root=True)
    demo(*as_postgres, f"{programs}/pg_ctl", "-D", SERVER, "-m", "fast", "stop", root=True)
    demo("sh", "-c", f"rm -rf {SERVER} {SERVER}.*", root=True)


@pytest.fixture
def settings(demo: Sandbox) -> Iterator[str]:
    """The contents of helm.toml, restored at the end."""
    before = demo("cat", SETTINGS).out
    yield before
    demo.write(SETTINGS, before)


@pytest.mark.parametrize(
    ("port", "database", "named"),
    [
        (5555, "LATIN1", "its encoding is LATIN1"),
        (5555, "SQL_ASCII", "its encoding is SQL_ASCII"),
        (5556, "UTF8", "connection pooler in transaction mode"),
        (5555, "UTF8", ""),
    ],
)
def test_stores_that_would_lose_lines(
    demo: Sandbox, server: str, settings: str, port: int, database: str, named: str
) -> None:
    chosen = re.sub(r"(?m)^#?database = .*$", f'database = "{server}:{port}/{database}"', settings, count=1)
    demo.write(SETTINGS, chosen)
    doctor = demo.helmctl("doctor", check=False)
    if not named:
        assert "of the log store answers" in doctor.out, doctor.text
        return
    assert doctor.code == 1 and named in doctor.out, doctor.text
    setup = demo.helmctl("setup", check=False)
    assert setup.code == 1 and named in setup.err and "complete" not in setup.text, setup.text


def test_set_up_ends_with_a_line_found_in_the_store(demo: Sandbox) -> None:
    assert "a line written to the journal was found in the log store" in demo.helmctl("setup").err
    assert int(demo.sql("SELECT count(*) FROM log_entries WHERE message LIKE 'setup: checked: test line %'")) >= 1
