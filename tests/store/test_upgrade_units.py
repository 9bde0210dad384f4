"""Upgrades of clusters with their units: real clusters and pg_upgrade, with units that fail on demand.

Whatever fails, what ran before runs again, on a cluster that its unit can start.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from helmd.model.errors import HelmError, StartFailedError, UnitRefusedError
from helmd.operations.setup.upgrade_clusters import upgrade_with_units
from helmd.postgres.binaries import Binaries, binaries_of
from helmd.postgres.cluster import create_cluster, running
from helmd.postgres.configuration import Cluster
from helmd.postgres.roles import admin_conninfo, ensure_local_databases
from helmd.postgres.uris import service_uri
from tests.store.cluster_account import as_account, ask, own_directory, suite_like
from tests.waiting import until

UNIT = "hivematrix-postgres.service"
USERS = ("hivematrix-nexus.service", "hivematrix-codex.service")
PASSWORD = "of codex"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with own_directory() as place:
        yield suite_like(place)


@dataclass
class Units:
    """Units of which only the cluster's has a process. It starts only on the cluster that it was installed for.

    ``failing`` names calls, as "start UNIT", that fail as often as is said there.
    """

    cluster: Cluster
    failing: dict[str, int] = field(default_factory=dict)
    up: set[str] = field(default_factory=lambda: set(USERS))
    installed_for: int = 0
    server: subprocess.Popen[bytes] | None = None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.install(UNIT)

    def _maybe_fail(self, call: str) -> None:
        if self.failing.get(call, 0):
            self.failing[call] -= 1
            raise StartFailedError(f"{call} failed")

    def active(self, unit: str) -> bool:
        return self.server is not None if unit == UNIT else unit in self.up

    def start(self, unit: str) -> None:
        self._maybe_fail(f"start {unit}")
        if unit != UNIT:
            if self.server is None:
                raise StartFailedError(f"{unit} has no database")
            self.up.add(unit)
        elif self.server is None:
            if self.installed_for != self.cluster.directory.stat().st_ino:
                raise StartFailedError("database files are incompatible with server")
            postgres = str(binaries_of(self.cluster.directory).program("postgres"))
            self.server = subprocess.Popen(
                [postgres, "-D", str(self.cluster.directory)], stderr=subprocess.DEVNULL, start_new_session=True
            )
            until(self._answers, pause=0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(admin_conninfo(self.cluster)).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, unit: str) -> None:
        self._maybe_fail(f"stop {unit}")
        if unit != UNIT:
            self.up.discard(unit)
        elif self.server is not None:
            assert not self.up, "its users are stopped first"
            self.kill()

    def kill(self) -> None:
        if self.server is not None:
            self.server.send_signal(2)
            self.server.wait(30)
            self.server = None

    def install(self, unit: str) -> None:
        if self.failing.get("install", 0):
            self.failing["install"] -= 1
            raise UnitRefusedError("systemd-analyze finds fault with a rendered unit")
        self.installed_for = self.cluster.directory.stat().st_ino


def prepared(cluster: Cluster) -> Units:
    """Running units on a cluster with a table."""
    create_cluster(cluster)
    units = Units(cluster)
    units.start(UNIT)
    ensure_local_databases(cluster, {"codex": PASSWORD})
    with psycopg.connect(service_uri(cluster, "codex", password=PASSWORD)) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    return units


def upgrade(units: Units, target: Binaries | None = None) -> HelmError | None:
    """From 15 to 15, as Debian 12 has no other version: the same steps by the same programs. What was raised."""
    cluster = units.cluster
    try:
        upgrade_with_units(UNIT, cluster, USERS, units, units.said.append, target or binaries_of(cluster.directory))
    except HelmError as error:
        return error
    return None


def same_data(cluster: Cluster) -> bool:
    return bool(ask(service_uri(cluster, "codex", password=PASSWORD), "SELECT sum(n) FROM t") == 500500)


def kept(cluster: Cluster) -> list[Path]:
    return list(cluster.directory.parent.glob("*.before-upgrade-*"))


def test_upgrade_leaves_everything_running_with_statistics(cluster: Cluster) -> None:
    def work() -> None:
        units = prepared(cluster)
        try:
            before = cluster.directory.stat().st_ino
            assert upgrade(units) is None
            assert units.up == set(USERS) and units.active(UNIT) and same_data(cluster)
            assert cluster.directory.stat().st_ino != before and len(kept(cluster)) == 1
            uri = service_uri(cluster, "codex", password=PASSWORD)
            assert ask(uri, "SELECT n_distinct FROM pg_stats WHERE tablename = 't'") == -1
        finally:
            units.kill()

    as_account(work)


def test_a_stopped_cluster_is_stopped_again(cluster: Cluster) -> None:
    def work() -> None:
        units = prepared(cluster)
        units.up.clear()
        units.kill()
        assert upgrade(units) is None
        assert not units.up and not units.active(UNIT) and running(cluster) is None
        units.start(UNIT)
        try:
            assert ask(admin_conninfo(cluster), "SELECT count(*) FROM pg_stat_user_tables") == 0
            assert same_data(cluster)
        finally:
            units.kill()

    as_account(work)


FAILURES = {
    "first stop": ({f"stop {USERS[0]}": 1}, False),
    "second stop": ({f"stop {USERS[1]}": 1}, False),
    "stop of the cluster": ({f"stop {UNIT}": 1}, False),
    "installing the unit": ({"install": 1}, False),
    "start on the new cluster": ({f"start {UNIT}": 1}, False),
    "start of a user": ({f"start {USERS[1]}": 1}, True),
}
"""What fails, and whether the new cluster stays."""


@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_fails_what_ran_runs_again(cluster: Cluster, failure: str) -> None:
    failing, stays = FAILURES[failure]

    def work() -> None:
        units = prepared(cluster)
        try:
            before = cluster.directory.stat().st_ino
            units.failing = dict(failing)
            error = upgrade(units)
            assert error is not None, "an upgrade that failed says so"
            assert "has no database" not in error.sentence, f"the first error is raised, not what followed: {error}"
            assert units.active(UNIT) and same_data(cluster)
            assert (cluster.directory.stat().st_ino != before) == stays
            missing = {USERS[1]} if failure == "start of a user" else set()
            assert units.up == set(USERS) - missing
            assert bool(kept(cluster)) == stays
            assert not list(cluster.directory.parent.glob("*/hivematrix.unused"))
            if not stays:
                assert upgrade(units) is None, "it can be tried again"
                assert same_data(cluster) and units.up == set(USERS)
        finally:
            units.kill()

    as_account(work)


@pytest.mark.parametrize("program", ["pg_upgrade", "vacuumdb"])
def test_programs_that_fail(cluster: Cluster, program: str) -> None:
    """A failing pg_upgrade changes nothing; without statistics the new cluster serves all the same."""

    def work() -> None:
        units = prepared(cluster)
        real = binaries_of(cluster.directory)
        broken = Binaries(real.major, cluster.directory.parent / "bin")
        broken.directory.mkdir()
        for file in real.directory.iterdir():
            (broken.directory / file.name).symlink_to(file)
        (broken.directory / program).unlink()
        (broken.directory / program).write_text("#!/bin/sh\necho no luck\nexit 1\n")
        (broken.directory / program).chmod(0o755)
        try:
            before = cluster.directory.stat().st_ino
            if program == "pg_upgrade":
                error = upgrade(units, broken)
                assert error is not None and error.lines == ("no luck",)
                assert cluster.directory.stat().st_ino == before
            else:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("helmd.postgres.upgrade.binaries_of", lambda *_: broken)
                    assert upgrade(units, real) is None
                assert any("vacuumdb failed" in sentence for sentence in units.said)
                assert cluster.directory.stat().st_ino != before
            assert units.up == set(USERS) and units.active(UNIT) and same_data(cluster)
        finally:
            units.kill()

    as_account(work)
