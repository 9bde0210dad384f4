"""Dumps of a real PostgreSQL into an encrypted archive, restored on trial, and what a trial finds."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from helmd.files.tar import Member
from helmd.model.backup.manifest import DatabaseFacts, Manifest
from helmd.model.errors import HelmError
from helmd.operations.backup.archive import ArchiveWriter, DumpMembers
from helmd.operations.backup.checking import restored_on_trial, roles_text
from helmd.operations.backup.encryption import AgeIdentity, encrypted_to, new_identity
from helmd.postgres.binaries import binaries_of
from helmd.postgres.configuration import Cluster
from helmd.postgres.dump import databases_in, dump, roles_of, row_counts, schema_digest, snapshots
from helmd.postgres.roles import admin_conninfo, ensure_local_databases
from helmd.postgres.uris import service_uri
from tests.store.cluster_account import as_account, own_directory, running_server, suite_like

PASSWORDS = {"codex": "code x", "keycloak": "k"}


@pytest.fixture
def place() -> Iterator[Path]:
    with own_directory() as directory:
        yield directory


def filled(cluster: Cluster) -> None:
    """Two databases with what dumps are wrong about most easily."""
    ensure_local_databases(cluster, PASSWORDS)
    with psycopg.connect(service_uri(cluster, "codex", "codex", PASSWORDS["codex"]), autocommit=True) as connection:
        for statement in (
            "CREATE TABLE note (id serial PRIMARY KEY, gone int, kind varchar(9), text text)",
            "ALTER TABLE note ADD CHECK (kind IN ('a', 'b'))",
            "ALTER TABLE note ALTER text SET NOT NULL",
            "INSERT INTO note (kind, text) SELECT 'a', repeat('x', 5000) || g FROM generate_series(1, 3000) g",
            "CREATE TABLE part (day date, n int) PARTITION BY RANGE (day)",
            "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            "INSERT INTO part VALUES ('2026-05-05', 1)",
            "CREATE VIEW notes AS SELECT text FROM note WHERE kind IN ('a', 'b')",
            "CREATE TYPE mood AS ENUM ('good', 'bad')",
            "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE INDEX note_kind ON note (kind, lower(text)); ALTER TABLE note RENAME COLUMN kind TO sort",
            "ALTER TABLE note DROP COLUMN gone",
            'CREATE SCHEMA other; CREATE TABLE other."Odd name" ("a b" mood)',
        ):
            connection.execute(statement.encode())
        # What is left of an index that could not be built, or is being built. pg_dump leaves it out.
        with suppress(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY note_twice ON note (sort)")
    with psycopg.connect(admin_conninfo(cluster), autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN CONNECTION LIMIT 3 PASSWORD 'r'")
        connection.execute("ALTER ROLE reader SET search_path = other, public")
        connection.execute("GRANT codex TO reader")
    with psycopg.connect(service_uri(cluster, "codex", "codex", PASSWORDS["codex"]), autocommit=True) as connection:
        connection.execute("GRANT SELECT ON note TO reader")


def written(cluster: Cluster, file: Path, recipient: str, change: bool = False) -> Manifest:
    """Return a backup of all databases; with CHANGE, its manifest says something else than is in the dump."""
    binaries = binaries_of(cluster.directory)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with encrypted_to([recipient], descriptor) as stream, snapshots(cluster, databases_in(cluster)) as taken:
        writer = ArchiveWriter(stream, 0)
        # After the snapshots, so not in the backup.
        with psycopg.connect(service_uri(cluster, "codex", "codex", PASSWORDS["codex"]), autocommit=True) as other:
            other.execute("INSERT INTO note (sort, text) VALUES ('b', 'later')")
        content = roles_text(roles_of(cluster))
        with writer.part("roles/suite"):
            writer.member("roles/suite", Member("roles.json", "file", 0o600, len(content)), iter((content,)))
        facts = []
        for each in taken:
            rows = row_counts(each.connection)
            if change and each.database == "codex":
                rows["public.note"] += 1
            facts.append(DatabaseFacts("suite", each.database, each.taken_at, rows, schema_digest(each.connection)))
            with writer.part(facts[-1].part):
                members = DumpMembers(writer, facts[-1].part)
                dump(binaries, cluster, each, members.take)
                members.end()
        manifest = Manifest(
            1, "1.0", "h", "a", "/h", 0.0, binaries.major, "", tuple(writer.parts), tuple(facts), (), ()
        )
        writer.finish(manifest, "key")
    os.close(descriptor)
    return manifest


def tried(cluster: Cluster, file: Path, identity: AgeIdentity, place: Path) -> list[str]:
    said: list[str] = []
    descriptor = os.open(file, os.O_RDONLY)
    try:
        restored_on_trial(descriptor, identity, place / "check", binaries_of(cluster.directory), said.append)
    finally:
        os.close(descriptor)
        assert not list(place.glob("check*")), "nothing is left of the trial"
    return said


def test_a_backup_is_restored_and_equal(place: Path) -> None:
    cluster = suite_like(place, ("codex",))

    def work() -> None:
        filled(cluster)
        identity, recipient = new_identity()
        manifest = written(cluster, place / "a.age", recipient)
        codex = next(facts for facts in manifest.databases if facts.name == "codex")
        assert codex.tables == {"public.note": 3000, "public.part_1": 1, "other.Odd name": 0}
        assert [facts.name for facts in manifest.databases] == ["codex", "keycloak"]
        # The dump of 15 MB is cut into several members.
        assert (part := manifest.part(codex.part)) is not None and part.members == 4
        said = tried(cluster, place / "a.age", identity, place)
        assert said == [
            "codex: 3 tables with 3,001 rows restored and compared",
            "keycloak: 0 tables with 0 rows restored and compared",
        ]
        raw = (place / "a.age").read_bytes()
        assert raw.startswith(b"age-encryption.org/v1") and b"xxxx" not in raw

    with running_server(cluster):
        as_account(work)


def test_a_dump_that_is_not_what_was_there_is_found(place: Path) -> None:
    cluster = suite_like(place, ("codex",))

    def work() -> None:
        filled(cluster)
        identity, recipient = new_identity()
        written(cluster, place / "a.age", recipient, change=True)
        with pytest.raises(HelmError, match=r"public\.note has 3,000 rows instead of 3,001 rows"):
            tried(cluster, place / "a.age", identity, place)

    with running_server(cluster):
        as_account(work)


def test_what_a_killed_trial_left_is_removed_by_the_next(place: Path) -> None:
    """Also while its server still runs."""
    cluster = suite_like(place, ("codex",))

    def work() -> None:
        from helmd.postgres.cluster import running
        from helmd.postgres.scratch import scratch_cluster

        binaries = binaries_of(cluster.directory)
        child = os.fork()
        if not child:
            with scratch_cluster(place / "check-suite", binaries):
                os._exit(0)
        os.waitpid(child, 0)
        left = Cluster(place / "check-suite", place, 0, "")
        assert running(left) is not None
        with scratch_cluster(place / "check-suite", binaries) as made:
            assert roles_of(made) == []
        assert running(left) is None and not left.directory.exists()

    with running_server(cluster):
        as_account(work)
