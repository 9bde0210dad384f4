"""Verifying a dump: it is restored, and rows and schema are compared with the original."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from helmd.files.tar import Member
from helmd.model.backup.manifest import DATABASES, ROLES_PART, BackupError, DatabaseFacts, Manifest, kind_of_part
from helmd.model.counted import counted
from helmd.operations.backup.archive import ReadArchive, read_archive
from helmd.operations.backup.encryption import AgeIdentity
from helmd.postgres.binaries import Binaries
from helmd.postgres.cluster import KEYCLOAK_ROLE
from helmd.postgres.configuration import Cluster
from helmd.postgres.dump import Restoration, RoleFacts, database_state, has_realm, put_roles
from helmd.postgres.scratch import scratch_cluster

_MAX_ROLES = 4 << 20


def roles_text(roles: list[RoleFacts]) -> bytes:
    return json.dumps([asdict(role) for role in roles], indent=1).encode() + b"\n"


def read_roles(content: bytes) -> list[RoleFacts]:
    """Raise BackupError for what `roles_text` has not written."""
    try:
        return [
            RoleFacts(
                str(each["name"])[:63],
                bool(each["login"]),
                int(each["limit"]),
                str(each["verifier"]),
                tuple(map(str, each["member_of"])),
                tuple(map(str, each["settings"])),
            )
            for each in json.loads(content)
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise BackupError(f"the roles in the archive can't be read: {problem}") from None


class Dumps:
    """Restores the databases of an archive; CLUSTER_OF returns the target for the name of a cluster.

    A visitor of `helmd.operations.backup.archive.read_archive`; call `abandon` after an error.
    """

    def __init__(self, cluster_of: Callable[[str], tuple[Cluster, Binaries]], notify: Callable[[str], None]) -> None:
        self._cluster_of = cluster_of
        self._notify = notify
        self._restoring: Restoration | None = None

    def part(self, name: str) -> None:
        if kind_of_part(name) == DATABASES:
            _, where, database = name.split("/")
            cluster, binaries = self._cluster_of(where)
            self._notify(f"restoring the database {database}")
            self._restoring = Restoration(binaries, cluster, database)

    def member(self, part: str, member: Member, chunks: Iterator[bytes]) -> None:
        if kind_of_part(part) == ROLES_PART:
            if member.size > _MAX_ROLES:
                raise BackupError("the roles in the archive are too large")
            cluster, _ = self._cluster_of(part.split("/")[1])
            put_roles(cluster, read_roles(b"".join(chunks)))
        elif self._restoring is not None:
            for data in chunks:
                self._restoring.give(data)

    def end(self, part: str) -> None:
        if self._restoring is not None:
            restoring, self._restoring = self._restoring, None
            restoring.end()

    def abandon(self) -> None:
        if self._restoring is not None:
            self._restoring.abandon()
            self._restoring = None


def compare(facts: DatabaseFacts, cluster: Cluster, realm: str) -> None:
    """Raise BackupError unless a restored database equals the original; Keycloak's must have the REALM."""
    tables, digest = database_state(cluster, facts.name)
    for name in sorted({*tables, *facts.tables}):
        if tables.get(name) != facts.tables.get(name):
            raise BackupError(
                f"the restored database {facts.name} differs: {name} has {_rows(tables.get(name))} instead of"
                f" {_rows(facts.tables.get(name))}"
            )
    if digest != facts.schema_sha256:
        raise BackupError(f"the restored database {facts.name} differs in its schema: columns, owners or rights")
    if realm and facts.name == KEYCLOAK_ROLE and not has_realm(cluster, facts.name, realm):
        raise BackupError(f"the restored database {facts.name} has no realm {realm}")


def _rows(count: int | None) -> str:
    return "no such table" if count is None else counted(count, "row")


def restored_on_trial(
    descriptor: int,
    identity: AgeIdentity,
    directory: Path,
    binaries: Binaries,
    notify: Callable[[str], None],
    known: Manifest | None = None,
) -> ReadArchive:
    """Read the archive behind DESCRIPTOR, and restore its databases into temporary clusters in DIRECTORY.

    Raises BackupError if one differs from the original, and errors as `read_archive`.
    """
    with ExitStack() as stack:
        made: dict[str, Cluster] = {}

        def cluster_of(name: str) -> tuple[Cluster, Binaries]:
            if name not in made:
                made[name] = stack.enter_context(
                    scratch_cluster(directory.with_name(f"{directory.name}-{name}"), binaries)
                )
            return made[name], binaries

        dumps = Dumps(cluster_of, lambda sentence: None)
        try:
            read = read_archive(descriptor, identity, dumps, known)
        except BaseException:
            dumps.abandon()
            raise
        for facts in read.manifest.databases:
            compare(facts, made[facts.cluster], read.manifest.realm)
            notify(
                f"{facts.name}: {counted(len(facts.tables), 'table')} with {counted(sum(facts.tables.values()), 'row')}"
                " restored and compared"
            )
    return read
