"""The suite's PostgreSQL over TCP: only by TLS, with a key of its own, which clients recognize it by."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from helmd.files.key_pair import KeyFileError
from helmd.postgres.cluster import create_cluster
from helmd.postgres.configuration import CERTIFICATE, PRIVATE_KEY, Cluster, hba_file
from helmd.postgres.roles import ensure_local_databases
from tests.store.cluster_account import (
    Server,
    as_account,
    ask,
    made,
    own_directory,
    refused,
    running_server,
    start,
    suite_like,
)
from tests.waiting import until

PASSWORDS = {"codex": "c-secret", "keycloak": "k-secret"}
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture
def server() -> Iterator[Server]:
    with own_directory() as place, running_server(suite_like(place, ("codex",))) as server:
        as_account(lambda: ensure_local_databases(server.cluster, PASSWORDS))
        yield server


def tcp(cluster: Cluster, **given: str) -> str:
    known = {"host": "127.0.0.1", "port": str(cluster.port), "user": "keycloak", "dbname": "keycloak"}
    return make_conninfo("", **{**known, "password": "k-secret", "passfile": "/dev/null", **given})


def pinned(cluster: Cluster, **given: str) -> str:
    known = {"sslmode": "verify-full", "sslrootcert": str(cluster.certificate), "channel_binding": "require"}
    return tcp(cluster, **known, **given)


def test_over_tcp_a_role_gets_in_by_tls_alone(server: Server) -> None:
    def check() -> None:
        assert ask(pinned(server.cluster), ENCRYPTED) is True
        for name in ("localhost", "::1"):
            assert ask(pinned(server.cluster, host=name, hostaddr="127.0.0.1"), ENCRYPTED) is True
        assert "rejects connection" in refused(tcp(server.cluster, sslmode="disable"))
        # As clients of earlier releases are configured, until they are restarted.
        assert ask(tcp(server.cluster), ENCRYPTED) is True
        assert "rejects connection" in refused(pinned(server.cluster, user="codex", dbname="codex"))

    as_account(check)
    rules = [line.split() for line in hba_file(server.cluster, {}).splitlines()]
    assert {rule[0] for rule in rules if rule[0].startswith("host") and rule[-1] != "reject"} == {"hostssl"}


def test_a_server_with_another_key_gets_no_login(server: Server) -> None:
    with own_directory() as place:
        other = suite_like(place, ("codex",))

        def check() -> None:
            made(other)
            assert "certificate verify failed" in refused(pinned(replace(other, port=server.cluster.port)))

        as_account(check)


def test_the_key_is_private_and_stays(server: Server) -> None:
    files = [server.cluster.directory / name for name in (CERTIFICATE, PRIVATE_KEY)]
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
    before = [file.read_bytes() for file in files]
    server.stop()
    as_account(lambda: (create_cluster(server.cluster), None)[1])
    server.process = start(server.cluster).process
    as_account(lambda: ensure_local_databases(server.cluster, PASSWORDS))
    assert before == [file.read_bytes() for file in files]


@pytest.mark.parametrize("missing", [CERTIFICATE, PRIVATE_KEY])
def test_half_a_pair_is_reported_and_nothing_changed(missing: str) -> None:
    with own_directory() as place:
        cluster = suite_like(place, ("codex",))
        as_account(lambda: made(cluster))
        (cluster.directory / missing).unlink()
        before = {file.name: file.read_bytes() for file in cluster.directory.iterdir() if file.is_file()}

        def again() -> None:
            with pytest.raises(KeyFileError, match=rf"is there, but .*{missing} is not; nothing was changed"):
                create_cluster(replace(cluster, port=cluster.port + 1))

        as_account(again)
        assert before == {file.name: file.read_bytes() for file in cluster.directory.iterdir() if file.is_file()}


def test_a_cluster_of_an_earlier_release_gets_tls_while_it_serves(server: Server) -> None:
    directory = server.cluster.directory

    def as_before() -> None:
        for name, new, old in (("pg_hba.conf", "hostssl ", "host "), ("hivematrix.conf", "ssl = on", "ssl = off")):
            text = (directory / name).read_text()
            assert new in text
            (directory / name).write_text(text.replace(new, old))
        for name in (CERTIFICATE, PRIVATE_KEY):
            (directory / name).unlink()

    as_account(as_before)
    server.stop()
    server.process = start(server.cluster).process

    def move() -> None:
        with psycopg.connect(tcp(server.cluster), autocommit=True) as pool:
            assert not pool.pgconn.ssl_in_use
            ensure_local_databases(server.cluster, PASSWORDS)
            assert pool.execute("SELECT 1").fetchone() == (1,), "what is connected stays so"
        assert ask(pinned(server.cluster), ENCRYPTED) is True
        assert ask(tcp(server.cluster), ENCRYPTED) is True, "what reconnects as before gets in, and by TLS"
        until(lambda: "rejects connection" in refused(tcp(server.cluster, sslmode="disable")), pause=0.02)

    as_account(move)


def test_a_cluster_may_be_reached_by_a_link() -> None:
    """As that of an account whose ``~/.local`` is a link to another disk."""
    with own_directory() as place:
        (place / "disk").mkdir()
        os.chown(place / "disk", place.stat().st_uid, place.stat().st_gid)
        (place / "linked").symlink_to(place / "disk")
        cluster = replace(suite_like(place, ("codex",)), directory=place / "linked/cluster")
        as_account(lambda: made(cluster))
        assert (place / "disk/cluster" / PRIVATE_KEY).is_file()
