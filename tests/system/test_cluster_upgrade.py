"""``helmctl postgres upgrade`` with the real units: what ran runs again, whether it succeeds or fails.

A Debian release has one version of PostgreSQL, so its programs stand in as the next one, by links.
"""

from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, until

INSTALLED = "/usr/lib/postgresql"
NEXT = f"{INSTALLED}/99"
STATE = "/home/hive/.local/state/hivematrix"
UNITS = ("helmd-postgres", "helmd", "helmd-journal", "hivematrix-postgres", "hivematrix-codex", "hivematrix-keycloak")


@pytest.fixture
def next_version(box: Sandbox) -> Iterator[Sandbox]:
    """The programs of the installed PostgreSQL as those of a newer version."""
    box.shell(f"mkdir -p {NEXT}/bin && ln -s {INSTALLED}/1[0-9]/bin/* {NEXT}/bin/", root=True)
    try:
        yield box
    finally:
        box.shell(f"rm -rf {NEXT}", root=True)
        box.shell(f"rm -rf {STATE}/*.before-upgrade-*")


def inodes(box: Sandbox) -> list[str]:
    """Which clusters stand in their places."""
    return box.shell(f"stat -c %i {STATE}/postgres-helm {STATE}/postgres-suite").out.split()


def all_run(box: Sandbox) -> bool:
    shown = box("systemctl", "--user", "is-active", *UNITS, check=False).out.split()
    healthy = all(box.status(name)[name]["health"] == "healthy" for name in ("codex", "ledger", "keycloak"))
    return shown == ["active"] * len(UNITS) and healthy


def test_both_clusters_are_upgraded_and_everything_runs_again(next_version: Sandbox) -> None:
    box, before = next_version, inodes(next_version)
    stored = int(box.sql("SELECT count(*) FROM log_entries"))
    done = box.helmctl("postgres", "upgrade", timeout=300)
    assert "2 clusters upgraded" in done.err and "No space" not in done.err
    until(lambda: all_run(box), 60)
    assert not set(inodes(box)) & set(before)
    assert int(box.sql("SELECT count(*) FROM log_entries")) >= stored
    analyzed = "SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'public'"
    assert box.sql(analyzed) == "t"


@pytest.mark.parametrize("program", ["pg_upgrade", "initdb"])
def test_an_upgrade_that_fails_leaves_everything_as_it_was(next_version: Sandbox, program: str) -> None:
    box, before = next_version, inodes(next_version)
    broken = f"{NEXT}/bin/{program}"
    box.shell(f"rm {broken}; printf '#!/bin/sh\\necho no luck; exit 1\\n' > {broken}; chmod 755 {broken}", root=True)
    done = box.helmctl("postgres", "upgrade", check=False, timeout=300)
    assert done.code == 1 and "no luck" in done.err, done.text
    until(lambda: all_run(box), 60)
    assert inodes(box) == before
    assert box.shell(f"ls -d {STATE}/*.before-upgrade-*", check=False).out == ""
