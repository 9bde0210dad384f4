"""A service of the suite, in its sandbox, that takes the port or the connections of the suite's PostgreSQL."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.booted import Sandbox, until

PLACE = "/home/hive/abuser"
UNIT = "hivematrix-abuser.service"
SECRETS = "/home/hive/.config/hivematrix/secrets"
SOCKET = "/run/user/1000/hivematrix/postgres-suite"

Start = Callable[[str, bool], None]


@pytest.fixture
def abuser(demo: Sandbox) -> Iterator[Start]:
    """Starts a program of the faulty services as a strict service, with or without a database."""

    def start(program: str, database: bool) -> None:
        demo.shell(f"rm -rf {PLACE}; mkdir -p {PLACE}; cp ~/suite/faulty/{program} {PLACE}/")
        environment = '{ PORT_OF_SUITE = "5499", COUNT = "900" }'
        demo.register(
            "abuser",
            f"""
[services.abuser]
type = "command"
path = "~/abuser"
start_command = ["/usr/bin/python3", "{program}"]
environment = {environment}
hardening = "strict"
database = {json.dumps(database)}
""",
        )
        demo.helmctl("start", "abuser")

    try:
        yield start
    finally:
        demo.unregister()
        demo.shell(f"rm -rf {PLACE}")
        for what in ("DATABASE", "ROLE"):
            superuser(demo, f"DROP {what} IF EXISTS abuser")


def superuser(box: Sandbox, query: str) -> str:
    words = ("psql", "-h", SOCKET, "-p", "5499", "-U", "postgres", "-wAtqc", query)
    return box("env", f"PGPASSFILE={SECRETS}/postgres.pgpass", *words).out.strip()


def report(box: Sandbox, name: str = "report.txt") -> str:
    return box("cat", f"{PLACE}/{name}", check=False).out


def findings(box: Sandbox) -> str:
    found = json.loads(box.helmctl("doctor", "--json", check=False).out)["findings"]
    return "\n".join(each["sentence"] for each in found if each["verdict"] != "ok")


def test_whoever_takes_the_port_gets_no_password(demo: Sandbox, abuser: Start) -> None:
    """While PostgreSQL is stopped any service can listen on its port, as it can on every other."""
    abuser("impostor.py", False)
    try:
        demo("systemctl", "--user", "stop", "hivematrix-postgres.service")
        until(lambda: "listening" in report(demo), 30)
        demo("systemctl", "--user", "restart", "--no-block", "hivematrix-keycloak.service")
        until(lambda: "tls refused" in report(demo), 120)
        until(lambda: "does not support SSL" in demo.helmctl("logs", "keycloak", "-n", "200", "--journal").text, 60, 1)
        time.sleep(2)
        lines = report(demo).splitlines()
        assert not [line for line in lines if line.startswith(("startup", "password"))], lines
        assert UNIT in findings(demo), "doctor names the unit that has the port"
    finally:
        demo.helmctl("stop", "abuser")
        demo.helmctl("restart", "postgres", timeout=300)
        demo.helmctl("start", "all", timeout=300)


def test_keycloaks_connections_are_encrypted(demo: Sandbox) -> None:
    query = "SELECT bool_and(ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
    assert superuser(demo, f"{query} WHERE usename = 'keycloak'") == "t|t"


def test_a_service_with_a_database_can_not_replace_the_socket(demo: Sandbox) -> None:
    """Other services would then connect to it, and so it would get their passwords."""
    pid = demo("systemctl", "--user", "show", "-P", "MainPID", "hivematrix-codex.service").out.strip()
    inside = ("nsenter", "-t", pid, "-U", "-m", "--preserve-credentials")
    for words in (
        ("rm", "-f", f"{SOCKET}/.s.PGSQL.5499"),
        ("mv", f"{SOCKET}/.s.PGSQL.5499", f"{SOCKET}/away"),
        ("touch", f"{SOCKET}/new"),
        ("mount", "--bind", "/tmp", SOCKET),
    ):
        done = demo(*inside, *words, check=False)
        assert done.code and any(word in done.err for word in ("Read-only", "denied", "permitted", "must be superuser"))
    assert demo("test", "-S", f"{SOCKET}/.s.PGSQL.5499").code == 0


def test_connections_of_one_service_leave_the_others_theirs(demo: Sandbox, abuser: Start) -> None:
    abuser("greedy.py", True)
    until(lambda: report(demo, "report.json"), 60)
    assert json.loads(report(demo, "report.json")) == {"sessions": 50}
    assert superuser(demo, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'codex'") == "50"
    uri = demo("sed", "-n", "s/^DATABASE_URL=//p", f"{SECRETS}/codex.env").out.strip().strip("\"'")
    for _ in range(10):
        assert demo("psql", uri, "-wAtqc", "SELECT 1").out.strip() == "1"
    assert "abuser holds all of its 50 connections" in demo.status("postgres")["postgres"]["health_message"]
    assert "abuser 50" in findings(demo)


def test_silent_connections_are_seen_and_named(demo: Sandbox, abuser: Start) -> None:
    """They belong to no role, so PostgreSQL can only close them after a time; whoever does it must be found."""
    abuser("greedy.py", True)
    until(lambda: report(demo, "report.json"), 60)
    demo("touch", f"{PLACE}/silent")
    until(lambda: demo.status("postgres")["postgres"]["health"] == "unhealthy", 60)
    said = demo.status("postgres")["postgres"]["health_message"]
    assert "no login" in said and "too many clients" in said
    # Now and then a login succeeds, when PostgreSQL has closed some of them.
    until(lambda: UNIT in (text := findings(demo)) and "lets nobody log in" in text, 60)
    demo.helmctl("stop", "abuser")
    until(lambda: demo.status("postgres")["postgres"]["health"] == "healthy", 60)
