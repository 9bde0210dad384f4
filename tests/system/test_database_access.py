"""Who reaches the databases of the suite, and Helm's, proven from inside units at every level of hardening."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from helmd.model.units.hardening import ISOLATED, PROFILES
from tests.system.booted import Sandbox, superuser_sql, until

HOME = "/home/hive"
SECRETS = f"{HOME}/.config/hivematrix/secrets"
CLUSTER = f"{HOME}/.local/state/hivematrix/postgres-suite"
RUN = "/run/user/1000"
LEVELS: tuple[str, ...] = PROFILES
KINDS = [(level, database) for level in LEVELS for database in (True, False)]
DATABASES = "postgres template1 keycloak codex_db ledger_db knowledgetree"


def name_of(level: str, database: bool) -> str:
    return f"asks-{level}{'-db' if database else ''}"


OWN = [name_of(level, True) for level in LEVELS]


def registry() -> str:
    given = {
        "RUN": RUN, "PORT_OF_SUITE": "5499", "PLACE_PATH": SECRETS, "CLUSTER": CLUSTER,
        "ROLES": f"postgres keycloak codex ledger knowledgetree hive {' '.join(OWN)}",
        "DATABASES": f"{DATABASES} {' '.join(OWN)}",
    }  # fmt: skip
    environment = ", ".join(f"{key} = {json.dumps(value)}" for key, value in given.items())
    return "".join(
        f"""
[services.{name_of(level, database)}]
type = "command"
path = "~/{name_of(level, database)}"
start_command = ["/usr/bin/python3", "databases.py"]
environment = {{ {environment} }}
hardening = "{level}"
database = {json.dumps(database)}
"""
        for level, database in KINDS
    )


def exists(box: Sandbox, path: str) -> bool:
    return box("test", "-e", path, check=False).code == 0


@pytest.fixture(scope="module")
def reports(demo: Sandbox) -> Iterator[dict[tuple[str, bool], dict[str, Any]]]:
    for level, database in KINDS:
        demo.shell(f"mkdir -p ~/{name_of(level, database)}; rm -f ~/{name_of(level, database)}/report.json")
        demo.shell(f"cp ~/suite/faulty/databases.py ~/{name_of(level, database)}/")
    demo.register("access", registry())
    try:
        demo.helmctl("start", *[name_of(*kind) for kind in KINDS])
        found = {}
        for kind in KINDS:
            report = f"{HOME}/{name_of(*kind)}/report.json"
            until(partial(exists, demo, report), 300)
            found[kind] = json.loads(demo("cat", report).out)
        yield found
    finally:
        demo.unregister()
        demo.shell("rm -rf ~/asks-*")
        for name in OWN:
            superuser_sql(demo, f'DROP DATABASE IF EXISTS "{name}"')
            superuser_sql(demo, f'DROP ROLE IF EXISTS "{name}"')


@pytest.mark.parametrize(("level", "database"), KINDS)
def test_a_service_reaches_its_own_database_and_no_other(
    reports: dict[tuple[str, bool], dict[str, Any]], level: str, database: bool
) -> None:
    """Every pair of role and database, over the socket and TCP, without a password and with its own."""
    report = reports[level, database]
    own = name_of(level, database)
    assert report["entered"] == ([f"{own} {own} socket"] if database else [])
    assert report["own"] == database
    assert report["socket"] == (database or level not in ISOLATED)


@pytest.mark.parametrize("database", [True, False])
@pytest.mark.parametrize("level", ISOLATED)
def test_an_isolated_service_finds_no_password_and_changes_no_rule(
    reports: dict[tuple[str, bool], dict[str, Any]], level: str, database: bool
) -> None:
    report = reports[level, database]
    keys = ("passwords", "secrets of others", "environments", "rules", "store")
    assert {key: report[key] for key in keys} == {
        "passwords": False, "secrets of others": False, "environments": False, "rules": False, "store": []
    }  # fmt: skip


def test_doctor_names_the_services_that_can_act_as_the_account(
    demo: Sandbox, reports: dict[tuple[str, bool], dict[str, Any]]
) -> None:
    """They read the account's files, so a password does not stop them."""
    assert all(reports[level, database]["passwords"] for level, database in KINDS if level not in ISOLATED)
    findings = json.loads(demo.helmctl("doctor", "--json", check=False).out)["findings"]
    (sentence,) = [each["sentence"] for each in findings if each["check"] == "isolation"]
    named = set(sentence.rpartition(": ")[2].split(", "))
    assert named == {name_of(level, database) for level, database in KINDS if level not in ISOLATED}


def test_doctor_sees_what_a_drop_in_undoes(box: Sandbox) -> None:
    drop_in = f"{HOME}/.config/systemd/user/hivematrix-ticker.service.d/open.conf"
    box.write(drop_in, "[Service]\nProtectHome=no\nTemporaryFileSystem=\nBindPaths=\nBindReadOnlyPaths=\n")
    try:
        box("systemctl", "--user", "daemon-reload")
        findings = json.loads(box.helmctl("doctor", "--json", check=False).out)["findings"]
        sentences = [found["sentence"] for found in findings if found["check"] == "isolation"]
        assert any("the unit of ticker does not isolate it" in sentence for sentence in sentences), sentences
    finally:
        box("rm", drop_in)
        box("systemctl", "--user", "daemon-reload")


@pytest.mark.parametrize("role", ["postgres", "codex", "keycloak"])
def test_without_a_password_even_the_account_is_refused(demo: Sandbox, role: str) -> None:
    """The attack, where nothing is hidden."""
    words = ("psql", "-h", f"{RUN}/hivematrix/postgres-suite", "-p", "5499", "-U", role, "-w", "-c", "SELECT 1")
    done = demo("env", "PGPASSFILE=/dev/null", *words, check=False)
    assert done.code == 2 and ("no password supplied" in done.err or "rejects connection" in done.err), done.text


def test_the_account_reaches_all_databases_by_the_password_file(demo: Sandbox) -> None:
    for database in DATABASES.split():
        assert superuser_sql(demo, "SELECT current_database()", database) == database
    rights = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    query = f"SELECT rolname FROM pg_roles WHERE ({rights}) AND rolname !~ '^pg_'"
    assert superuser_sql(demo, query) == "postgres"
    public = "SELECT datname FROM pg_database WHERE has_database_privilege('public', oid, 'CONNECT')"
    assert superuser_sql(demo, public) == ""


def test_no_secret_is_in_a_unit_a_command_line_or_the_journal(demo: Sandbox) -> None:
    passwords = demo("sed", "-E", "s/.*:([^:]*)$/\\1/", f"{SECRETS}/postgres.pgpass").out.split()
    assert len(passwords) >= 5 and all(len(password) > 30 for password in passwords)
    patterns = "\n".join(passwords)
    units = "~/.local/share/systemd/user/*.service"
    assert demo.shell(f"grep -lFf - {units}", stdin=patterns, check=False).out == ""
    running = "cat > /tmp/patterns; cat /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -cFf /tmp/patterns"
    assert demo.shell(running, stdin=patterns, check=False).out == "0\n"
    journal = demo.shell("cat > /tmp/patterns; journalctl -q -o cat | grep -cFf /tmp/patterns; rm /tmp/patterns",
                         stdin=patterns, check=False)  # fmt: skip
    assert journal.out == "0\n"
