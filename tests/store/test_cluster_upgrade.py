"""Clusters moved to another version for real, and what is said before a distribution strands them."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from helmd.model.errors import HelmError, NotSetUpError
from helmd.postgres.binaries import binaries_of, newest
from helmd.postgres.cluster import ClusterError, create_cluster
from helmd.postgres.configuration import Cluster
from helmd.postgres.distribution_upgrade import PackageFacts, verdict
from helmd.postgres.roles import ensure_local_databases
from helmd.postgres.upgrade import Upgraded, delete_kept, kept_directory, undo_upgrade, upgrade_cluster
from helmd.postgres.uris import service_uri
from tests.store.cluster_account import (
    Server,
    as_account,
    ask,
    fork_as_account,
    own_directory,
    running_server,
    start,
    suite_like,
)
from tests.waiting import until

PASSWORD = "of codex"


@pytest.fixture
def place() -> Iterator[Path]:
    with own_directory() as directory:
        yield directory


@pytest.fixture
def cluster(place: Path) -> Cluster:
    return suite_like(place)


@pytest.fixture
def server(cluster: Cluster) -> Iterator[Server]:
    with running_server(cluster) as server:
        yield server


def test_upgrade_keeps_the_data_and_the_old_cluster(server: Server) -> None:
    """From 15 to 15, as Debian 12 has no other version: the same steps by the same program."""
    cluster = server.cluster
    programs = binaries_of(cluster.directory)

    def fill() -> None:
        ensure_local_databases(cluster, {"codex": PASSWORD})
        with psycopg.connect(service_uri(cluster, "codex", password=PASSWORD)) as connection:
            connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        with pytest.raises(ClusterError, match="is running"):
            upgrade_cluster(cluster, target=programs)
        (cluster.directory / "postgresql.local.conf").write_text("work_mem = 33MB\n")

    as_account(fill)
    server.stop(signal.SIGKILL)
    kept = kept_directory(cluster.directory, programs.major)
    parent, at_work = kept.parent, ".cluster.upgrading-*/new/pg_upgrade_output.d"
    while True:
        child = fork_as_account(lambda: upgraded(cluster))
        until(lambda: [*parent.glob(at_work), *parent.glob(kept.name)], pause=0.002)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not kept.exists():
            break
        # This process did not run until the upgrade was over.
        as_account(lambda: undo_upgrade(cluster, Upgraded(programs.major, programs.major, kept)))

    def upgrade() -> None:
        assert upgrade_cluster(cluster).kept is None, "already of the newest version"
        # As left by a kill between the new cluster's completion and the change of places.
        kept.mkdir()
        (kept / "hivematrix.unused").touch()
        said: list[str] = []
        done = upgrade_cluster(cluster, said.append, target=programs)
        assert (done.old, done.new, done.kept) == (programs.major, programs.major, kept)
        assert len(said) >= 3
        with pytest.raises(ClusterError, match="still there from an earlier upgrade"):
            upgrade_cluster(cluster, target=programs)

    as_account(upgrade)
    assert not list(cluster.directory.parent.glob(".cluster.upgrading-*"))
    assert not list(cluster.directory.parent.glob("*/hivematrix.unused"))
    server.process = start(cluster).process

    def same() -> None:
        assert ask(service_uri(cluster, "codex", password=PASSWORD), "SELECT sum(n) FROM t") == 500500
        assert ask(service_uri(cluster, "codex", password=PASSWORD), "SHOW work_mem") == "33MB"
        assert ask(service_uri(cluster, "codex", password=PASSWORD), "SHOW data_checksums") == "on"
        assert create_cluster(cluster) is False
        delete_kept(cluster, kept)
        assert not kept.exists()

    as_account(same)


def upgraded(cluster: Cluster) -> None:
    upgrade_cluster(cluster, target=newest())


def test_missing_programs_name_the_package(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("13\n")
    with pytest.raises(NotSetUpError) as caught:
        binaries_of(tmp_path)
    assert "postgresql-13" in caught.value.hint
    with pytest.raises(NotSetUpError, match="not installed"):
        newest(tmp_path)
    with pytest.raises(HelmError, match="no PostgreSQL cluster"):
        binaries_of(tmp_path / "elsewhere")


def test_unsupported_clusters_are_reported_before_and_after() -> None:
    well = PackageFacts(installed=True, source=True, leaving=False)
    assert not verdict(15, [15], well)
    assert not verdict(15, [15], None)
    (gone,) = verdict(15, [17], well)
    assert gone.broken and "postgresql-15" in gone.hint
    (newer,) = verdict(15, [15, 17], well)
    assert not newer.broken and "17 is installed" in newer.sentence
    (orphan,) = verdict(15, [15], replace(well, source=False))
    assert "archive" in orphan.sentence
    (leaving,) = verdict(15, [15], replace(well, leaving=True))
    assert "would remove postgresql-15" in leaving.sentence
