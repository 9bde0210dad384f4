"""No client keeps the others from the suite's PostgreSQL by its connections, and whoever tries is seen."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import psycopg
import pytest

from helmd.model.suite.names import DATABASE_CONNECTIONS
from helmd.postgres.cluster import configure
from helmd.postgres.configuration import AUTHENTICATION_SECONDS, PasswordLogin, connections_needed
from helmd.postgres.roles import admin_conninfo, ensure_local_databases
from helmd.postgres.sessions import login_verdict, sessions
from helmd.postgres.uris import service_uri
from tests.store.cluster_account import Server, as_account, ask, own_directory, running_server, start, suite_like
from tests.waiting import WITHIN, until

PASSWORDS = {"codex": "c-secret", "ledger": "l-secret", "keycloak": "k-secret"}


@pytest.fixture
def server() -> Iterator[Server]:
    with own_directory() as place, running_server(suite_like(place, ("codex", "ledger"))) as server:
        as_account(lambda: ensure_local_databases(server.cluster, PASSWORDS))
        yield server


def uri(server: Server, role: str) -> str:
    return service_uri(server.cluster, role, password=PASSWORDS[role])


def restart(server: Server, setting: str) -> None:
    """Have the server run with an admin's SETTING."""

    def write() -> None:
        (server.cluster.directory / "postgresql.local.conf").write_text(f"{setting}\n")

    as_account(write)
    server.stop()
    server.process = start(server.cluster).process


def test_one_service_leaves_enough_connections_for_all_others(server: Server) -> None:
    def check() -> None:
        with ExitStack() as held:
            for _ in range(DATABASE_CONNECTIONS):
                held.enter_context(psycopg.connect(uri(server, "codex")))
            with pytest.raises(psycopg.OperationalError, match='too many connections for role "codex"'):
                psycopg.connect(uri(server, "codex"))
            for _ in range(DATABASE_CONNECTIONS):
                held.enter_context(psycopg.connect(uri(server, "ledger")))
            assert ask(admin_conninfo(server.cluster), "SELECT 1") == 1
            verdict = login_verdict(server.cluster, WITHIN)
            assert verdict.state == "degraded"
            for role in ("codex", "ledger"):
                assert f"{role} holds all of its {DATABASE_CONNECTIONS} connections" in verdict.sentence
        until(lambda: login_verdict(server.cluster, WITHIN).state == "healthy", pause=0.02)

    as_account(check)


def test_a_changed_limit_holds_for_the_next_connection(server: Server) -> None:
    fewer = replace(server.cluster, logins=(PasswordLogin("codex", "codex", 2), PasswordLogin("ledger", "ledger")))

    def check() -> None:
        ensure_local_databases(fewer, PASSWORDS)
        with psycopg.connect(uri(server, "codex")), psycopg.connect(uri(server, "codex")):
            with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
                psycopg.connect(uri(server, "codex"))

    as_account(check)


def test_the_server_has_connections_for_all_limits_together() -> None:
    logins = [PasswordLogin(f"service-{number}", "x", 90) for number in range(10)]
    assert connections_needed(logins) >= 10 * 90 + 3
    assert connections_needed([]) == 100


def test_when_the_places_of_services_are_taken_the_check_says_by_whom(server: Server) -> None:
    """As where an admin's own settings leave fewer connections than the services may hold."""

    def check() -> None:
        with psycopg.connect(admin_conninfo(server.cluster), autocommit=True) as connection:
            connection.execute("ALTER ROLE codex CONNECTION LIMIT -1")
        places = sessions(server.cluster, WITHIN).places
        with ExitStack() as held:
            for _ in range(places):
                held.enter_context(psycopg.connect(uri(server, "codex")))
            with pytest.raises(psycopg.OperationalError, match="remaining connection slots"):
                psycopg.connect(uri(server, "ledger"))
            verdict = login_verdict(server.cluster, WITHIN)
        assert verdict.state == "unhealthy"
        assert verdict.sentence == f"all {places} connections for services are in use: codex {places}"

    as_account(check)


def silent(server: Server, seconds: float | None = None) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.cluster.port), timeout=seconds)


def half_way(server: Server, seconds: float | None = None) -> socket.socket:
    """Return a connection that names a role and does not answer when it is asked to prove who it is."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(seconds)
    connection.connect(str(server.cluster.socket_file))
    body = struct.pack("!i", 196608) + b"user\0codex\0database\0codex\0\0"
    connection.sendall(struct.pack("!i", len(body) + 4) + body)
    return connection


@pytest.mark.parametrize("connect", [silent, half_way])
def test_connections_that_do_not_log_in_are_seen_and_closed_soon(server: Server, connect: object) -> None:
    # With the usual number, so many may not come about before the first ones are closed.
    restart(server, "max_connections = 20")

    def full(held: ExitStack) -> bool:
        assert callable(connect)
        # More each time: the first ones are closed before the others have come about where the server runs slowly.
        with suppress(OSError):
            for _ in range(100):
                held.enter_context(connect(server, 1.0))
        verdict = login_verdict(server.cluster, WITHIN)
        return verdict.state == "unhealthy" and "too many clients already" in verdict.sentence

    def check() -> None:
        with ExitStack() as held:
            until(lambda: full(held), pause=0.02)
            begun = time.monotonic()
            until(lambda: login_verdict(server.cluster, WITHIN).state == "healthy", pause=0.02)
            assert time.monotonic() - begun < 50, "PostgreSQL's own limit is a minute"
            assert ask(uri(server, "ledger"), "SELECT 1") == 1

    as_account(check)


def test_a_share_of_connections_without_a_login_is_reported(server: Server) -> None:
    restart(server, "authentication_timeout = 10min")

    def check() -> None:
        with ExitStack() as held:
            for _ in range(60):
                held.enter_context(half_way(server))
            # The server takes them one after the other.
            seen = until(
                lambda: (verdict := login_verdict(server.cluster, WITHIN)).sentence.startswith("60 ") and verdict,
                pause=0.02,
            )
            assert seen.state == "degraded" and seen.sentence.startswith("60 connections have not logged in")

    as_account(check)


def test_a_stopped_server_is_unhealthy_with_the_reason(server: Server) -> None:
    server.stop()
    verdict = login_verdict(server.cluster, WITHIN)
    assert verdict.state == "unhealthy" and "No such file or directory" in verdict.sentence


def test_what_configure_writes_is_what_the_server_takes(server: Server) -> None:
    def check() -> None:
        configure(server.cluster)
        shown = {name: ask(admin_conninfo(server.cluster), f"SHOW {name}") for name in (
            "authentication_timeout", "max_connections", "superuser_reserved_connections", "ssl"
        )}  # fmt: skip
        assert shown == {
            "authentication_timeout": f"{AUTHENTICATION_SECONDS}s",
            "max_connections": str(server.cluster.max_connections),
            "superuser_reserved_connections": "3",
            "ssl": "on",
        }

    as_account(check)
