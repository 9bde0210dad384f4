"""Making a backup: one encrypted archive, which gets its final name after a test restore.

The test reads the complete file: its databases are restored into a temporary cluster and compared. For that the archive
is also encrypted for a second, temporary identity, which only exists in this process's memory and the pipe to age. So
the admin's identity is not needed, and the archive itself is tested.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from helmd import __version__
from helmd.files.durable import fsync_directory
from helmd.files.lock import locked
from helmd.files.tar import Member
from helmd.files.trees import ChangedFileError, Entry, entries, entry_of, size_below
from helmd.model.backup.kept import LastRun, StoredBackup, archive_name
from helmd.model.backup.manifest import (
    CONFIGURATION,
    FORMAT,
    ROLES_PART,
    SERVICES,
    STATE_PART,
    STORE,
    SUITE,
    BackupError,
    DatabaseFacts,
    Manifest,
    ServiceRef,
    link_fault,
)
from helmd.model.config.settings import Settings
from helmd.model.counted import counted
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.model.suite.names import SUITE_CLUSTER, SUITE_CLUSTER_UNIT
from helmd.model.suite.service import Registry
from helmd.modules.records import installed_names
from helmd.operations.backup.archive import ArchiveWriter, DumpMembers, read_archive
from helmd.operations.backup.checking import restored_on_trial, roles_text
from helmd.operations.backup.checkouts import service_ref, skipped_in
from helmd.operations.backup.encryption import encrypted_to, new_identity
from helmd.operations.backup.kept import (
    BackupKey,
    backup_key,
    directory_of,
    prune,
    record_last,
    remove_partial,
)
from helmd.operations.backup.module_state import MODULES, module_files
from helmd.operations.configuration.databases import embedded_cluster, keycloak_service
from helmd.operations.logs.view_file import views_as_file
from helmd.operations.setup.setup import Notify
from helmd.postgres.binaries import Binaries, binaries_of
from helmd.postgres.cluster import account_name, running, store_cluster
from helmd.postgres.configuration import ADMIN_FILE, Cluster
from helmd.postgres.dump import Snapshot, databases_in, dump, roles_of, row_counts, schema_digest, snapshots
from helmd.postgres.scratch import STARTING_BYTES

_SPARE = 64 << 20


@dataclass(frozen=True, slots=True)
class MadeBackup:
    """A verified backup. ``size`` is that of the file in bytes."""

    path: Path
    size: int
    manifest: Manifest
    deleted: tuple[StoredBackup, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Source:
    """A cluster to back up."""

    name: Literal["suite", "store"]
    cluster: Cluster
    binaries: Binaries
    databases: Mapping[str, int]


def create_backup(layout: Layout, settings: Settings, registry: Registry, notify: Notify) -> MadeBackup:
    """Make a backup of the account's suite, verify it, and delete expired ones.

    The result is recorded. Raises BackupError, NotSetUpError, ClusterError, and LockedError while another backup is in
    progress.
    """
    key = backup_key(layout)
    with locked(layout.backup_lock, "a backup is being made"):
        began = time.time()
        try:
            made = _create(layout, settings, registry, notify, key, began)
        except HelmError as error:
            record_last(layout, LastRun(time.time(), False, sentence=error.sentence))
            raise
        except OSError as problem:
            sentence = f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem.strerror)
            record_last(layout, LastRun(time.time(), False, sentence=sentence))
            raise BackupError(f"the backup failed: {sentence}") from problem
        except BaseException:
            record_last(layout, LastRun(time.time(), False, sentence="it was interrupted"))
            raise
        record_last(layout, LastRun(time.time(), True, made.path.name))
        return made


def _create(
    layout: Layout, settings: Settings, registry: Registry, notify: Notify, key: BackupKey, began: float
) -> MadeBackup:
    directory = directory_of(layout, settings)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_partial(directory)
    refs = [
        service_ref(each, layout) for each in registry.services.values() if _has_directory(each.name, registry, layout)
    ]
    sources, left_out = _sources(layout, settings, registry)
    _check_space(directory, layout, refs, sources)
    name = archive_name(began)
    partial = directory / f".{name}.partial"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o600)
    try:
        trial, recipient = new_identity()
        recipients = dict.fromkeys((key.recipient, *settings.backup_recipients, recipient))
        writing = _Writing(layout, settings, registry, refs, sources, left_out, notify)
        with encrypted_to(tuple(recipients), descriptor) as stream:
            manifest = writing.write(ArchiveWriter(stream, began), key, began)
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
        notify(f"{name}: {size / 1e6:.1f} MB written; now restoring it on trial")
        binaries = max((source.binaries for source in sources), key=lambda each: each.major, default=None)
        if binaries is not None:
            restored_on_trial(descriptor, trial, layout.backup_scratch, binaries, notify, manifest)
        else:
            read_archive(descriptor, trial, known=manifest)
        os.rename(partial, directory / name)
        fsync_directory(directory)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    for sentence in manifest.left_out:
        notify(f"not in the backup: {sentence}")
    deleted = tuple(prune(directory, settings, began))
    return MadeBackup(directory / name, size, manifest, deleted, time.time() - began)


def _has_directory(name: str, registry: Registry, layout: Layout) -> bool:
    service = registry[name]
    return name != SUITE_CLUSTER and not service.external and layout.resolve(service.path).is_dir()


def _sources(layout: Layout, settings: Settings, registry: Registry) -> tuple[list[_Source], list[str]]:
    """Return the clusters to back up, all running, and sentences on what is not backed up. Raises BackupError."""
    wanted: list[tuple[Literal["suite", "store"], Cluster, str]] = []
    left_out = []
    if SUITE_CLUSTER in registry:
        wanted.append(("suite", embedded_cluster(registry, layout, settings), f"helmctl start {SUITE_CLUSTER}"))
    elif not settings.suite_embedded:
        server = urlsplit(settings.suite_database).hostname or "another server"
        left_out.append(f"the databases of the suite, which are on {server}: save them there")
    if settings.backup_logs and settings.store_embedded:
        cluster = store_cluster(layout, account_name())
        wanted.append(("store", cluster, "systemctl --user start helmd-postgres"))
    elif settings.backup_logs:
        left_out.append("the log store, which is on another server: save it there")
    found = []
    for name, cluster, start in wanted:
        if running(cluster) is None:
            unit = SUITE_CLUSTER_UNIT if name == SUITE else "helmd-postgres.service"
            raise BackupError(f"{unit} is not running, so its databases can't be saved", hint=f"Run: {start}")
        found.append(_Source(name, cluster, binaries_of(cluster.directory), databases_in(cluster)))
    return found, left_out


def _check_space(directory: Path, layout: Layout, refs: Iterable[ServiceRef], sources: Iterable[_Source]) -> None:
    """Raise BackupError unless there is space for the archive, at worst uncompressed, and the test restore."""
    databases = sum(size for source in sources for size in source.databases.values())
    files = sum(
        size_below(layout.resolve(ref.path), lambda name, ref=ref: skipped_in(ref, name))  # type: ignore[misc]
        for ref in refs
        if ref.saved == "whole"
    )
    files += size_below(layout.state / "homes", _is_cache)
    needed = {directory: files + databases + _SPARE, layout.state: databases * 5 // 4 + STARTING_BYTES}
    devices: dict[int, tuple[Path, int]] = {}
    for place, size in needed.items():
        device = place.stat().st_dev
        devices[device] = (place, devices.get(device, (place, 0))[1] + size)
    for place, size in devices.values():
        free = shutil.disk_usage(place).free
        if free < size:
            raise BackupError(
                f"the backup and its trial may take {size >> 20} MB, and {place} has {free >> 20} MB free",
                hint="Free some space, keep fewer backups (backup.keep), or set backup.directory to another disk.",
            )


def _not_ours(name: str) -> bool:
    """Return whether what is at NAME among the admin's units is not about the suite, or what enabling units has made
    there.
    """
    return not name.startswith(("hivematrix", "helmd")) or name.endswith((".wants", ".requires"))


def _is_cache(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/.cache")


class _Writing:
    """An archive being written."""

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        registry: Registry,
        refs: list[ServiceRef],
        sources: list[_Source],
        left_out: list[str],
        notify: Notify,
    ) -> None:
        self._layout, self._settings, self._registry = layout, settings, registry
        self._refs, self._sources, self._left_out, self._notify = refs, sources, left_out, notify

    def write(self, writer: ArchiveWriter, key: BackupKey, began: float) -> Manifest:
        with ExitStack() as stack:
            # First, so that databases and files are of nearly the same time.
            taken = [
                (source, stack.enter_context(snapshots(source.cluster, source.databases))) for source in self._sources
            ]
            self._write_files(writer)
            for source in self._sources:
                content = roles_text(roles_of(source.cluster))
                with writer.part(part := f"{ROLES_PART}/{source.name}"):
                    writer.member(part, Member("roles.json", "file", 0o600, len(content)), iter((content,)))
            databases = [facts for source, each in taken for facts in self._write_databases(writer, source, each)]
        manifest = Manifest(
            FORMAT,
            __version__,
            socket.gethostname(),
            account_name(),
            str(self._layout.home),
            began,
            max((source.binaries.major for source in self._sources), default=0),
            self._realm(),
            tuple(writer.parts),
            tuple(databases),
            tuple(self._refs),
            tuple(self._left_out),
        )
        writer.finish(manifest, key.authentication)
        return manifest

    def _realm(self) -> str:
        name = keycloak_service(self._registry)
        return self._registry[name].realm if name is not None and SUITE_CLUSTER in self._registry else ""

    def _write_files(self, writer: ArchiveWriter) -> None:
        layout = self._layout
        self._notify("configuration and secrets")
        with writer.part(CONFIGURATION):
            own = {layout.backup_identity.relative_to(layout.config).as_posix()}
            self._put(writer, CONFIGURATION, "config/", entries(layout.config, own.__contains__))
            with suppress(FileNotFoundError):
                self._put(writer, CONFIGURATION, "units/", entries(layout.admin_units, _not_ours))
        with writer.part(STATE_PART):
            self._put(writer, STATE_PART, "", entry_of(layout.state, layout.placed_variables.name))
            self._write_views(writer)
            for name, cluster in ((SUITE, layout.suite_cluster), (STORE, layout.store_cluster)):
                self._put(writer, STATE_PART, f"clusters/{name}/", entry_of(cluster, ADMIN_FILE))
            for name in installed_names(layout):
                for file, content in module_files(layout.module(name)):
                    member = Member(f"{MODULES}/{name}/{file}", "file", 0o600, len(content))
                    writer.member(STATE_PART, member, iter((content,)))
            with suppress(FileNotFoundError):
                self._put(writer, STATE_PART, "homes/", entries(layout.state / "homes", _is_cache))
        for ref in self._refs:
            if ref.saved != "nothing":
                self._write_service(writer, ref)

    def _write_views(self, writer: ArchiveWriter) -> None:
        """Add the users' saved views in the log store, which is not in the archive otherwise."""
        if any(source.name == STORE for source in self._sources):
            return
        try:
            content = views_as_file(self._settings.store_conninfo(self._layout))
        except HelmError as error:
            self._left_out.append(f"saved views of the log page: {error.sentence}")
            return
        member = Member(self._layout.restored_views.name, "file", 0o600, len(content))
        writer.member(STATE_PART, member, iter((content,)))

    def _write_service(self, writer: ArchiveWriter, ref: ServiceRef) -> None:
        directory, part = self._layout.resolve(ref.path), f"{SERVICES}/{ref.name}"
        self._notify(f"{ref.name}: {'its directory' if ref.saved == 'whole' else 'its shared paths'}")
        with writer.part(part):
            shared = self._registry[ref.name].shared_paths
            beside = self._layout.module_of(directory) is not None
            if ref.saved == "whole":
                apart = shared if beside else ()
                self._put(writer, part, "", entries(directory, lambda name: name in apart or skipped_in(ref, name)))
            for path in shared if beside or ref.saved == "shared" else ():
                place = self._layout.state_directory(directory, path, shared)
                self._put(writer, part, "", entry_of(place, path, lambda name: skipped_in(ref, name)))

    def _put(self, writer: ArchiveWriter, part: str, above: str, found: Iterator[Entry]) -> None:
        for entry in found:
            member = entry.member
            name = f"{above}{member.name}"
            fault = entry.left_out
            if member.kind == "link" and not fault:
                fault = link_fault(name, member.target) if part.startswith(SERVICES) else "it is a symbolic link"
            if fault:
                self._left_out.append(f"{part}/{name}: {fault}")
                continue
            try:
                writer.member(part, replace(member, name=name), entry.chunks)
            except ChangedFileError as problem:
                raise BackupError(
                    f"{part}/{name} became shorter while it was read", hint="Run the command again."
                ) from problem

    def _write_databases(
        self, writer: ArchiveWriter, source: _Source, taken: list[Snapshot]
    ) -> Iterator[DatabaseFacts]:
        for snapshot in taken:
            facts = DatabaseFacts(
                source.name,
                snapshot.database,
                snapshot.taken_at,
                row_counts(snapshot.connection),
                schema_digest(snapshot.connection),
            )
            self._notify(f"database {snapshot.database}: {counted(sum(facts.tables.values()), 'row')}")
            with writer.part(facts.part):
                members = DumpMembers(writer, facts.part)
                dump(source.binaries, source.cluster, snapshot, members.take)
                members.end()
            yield facts
